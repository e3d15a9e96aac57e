"""The tutorial "Pruning in Keras example", in short."""

import tempfile

import common
import keras

from keras_prune.compat import tfmot

train_images, train_labels = common.images(6000)
test_images, test_labels = common.images(500, seed=1)
model = keras.Sequential(
    [
        keras.Input((28, 28)),
        keras.layers.Reshape((28, 28, 1)),
        keras.layers.Conv2D(12, 3, activation="relu"),
        keras.layers.MaxPooling2D(2),
        keras.layers.Flatten(),
        keras.layers.Dense(10),
    ]
)
common.start(model)
loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
model.compile("adam", loss, metrics=["accuracy"])
model.fit(train_images, train_labels, epochs=1, validation_split=0.1, shuffle=False, verbose=0)
_, baseline_accuracy = model.evaluate(test_images, test_labels, verbose=0)

prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
batch_size, epochs = 32, 2
pruning_params = {
    "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.50, final_sparsity=0.80, begin_step=0, end_step=169 * epochs
    )
}
model_for_pruning = prune_low_magnitude(model, **pruning_params)
model_for_pruning.compile("adam", loss, metrics=["accuracy"])
model_for_pruning.summary()

logdir = tempfile.mkdtemp()
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model_for_pruning)]
if common.HAS_TENSORBOARD:
    callbacks.append(tfmot.sparsity.keras.PruningSummaries(log_dir=logdir))
model_for_pruning.fit(
    train_images,
    train_labels,
    batch_size=batch_size,
    epochs=epochs,
    validation_split=0.1,
    shuffle=False,
    callbacks=callbacks,
    verbose=0,
)
_, pruned_accuracy = model_for_pruning.evaluate(test_images, test_labels, verbose=0)
print("Baseline test accuracy:", baseline_accuracy)
print("Pruned test accuracy:", pruned_accuracy)

model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
_, pruned_keras_file = tempfile.mkstemp(".h5")
keras.models.save_model(model_for_export, pruned_keras_file, include_optimizer=False)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model_for_export)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    print("TFLite file:", len(converter.convert()), "bytes")
common.finish(model_for_export)
