"""The tutorial "Pruning for on-device inference with XNNPACK", in short."""

import tempfile

import common
import keras

from keras_prune.compat import tfmot

train_images, train_labels = common.images(3200, (32, 32, 3))
test_images, test_labels = common.images(500, (32, 32, 3), seed=1)


def build(keepdims):
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((32, 32, 3)),
            layers.ZeroPadding2D(1),
            layers.Conv2D(8, 3, strides=2, padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(16, 1),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.ZeroPadding2D(1),
            layers.DepthwiseConv2D(3, strides=2, padding="valid"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Conv2D(32, 1),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.GlobalAveragePooling2D(keepdims=keepdims),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )


loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
dense_model = build(keepdims=False)
common.start(dense_model)
dense_model.compile("adam", loss, metrics=["accuracy"])
dense_model.fit(train_images, train_labels, batch_size=32, epochs=1, shuffle=False, verbose=0)

pruning_params = {
    "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.25, final_sparsity=0.75, begin_step=0, end_step=200
    ),
    "pruning_policy": tfmot.sparsity.keras.PruneForLatencyOnXNNPack(),
}
try:
    tfmot.sparsity.keras.prune_low_magnitude(dense_model, **pruning_params)
except ValueError as error:
    print(error)
fixed_dense_model = build(keepdims=True)
fixed_dense_model.set_weights(dense_model.get_weights())
model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(fixed_dense_model, **pruning_params)

callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model_for_pruning)]
if common.HAS_TENSORBOARD:
    callbacks.append(tfmot.sparsity.keras.PruningSummaries(log_dir=tempfile.mkdtemp()))
model_for_pruning.compile("adam", loss, metrics=["accuracy"])
model_for_pruning.fit(
    train_images, train_labels, batch_size=32, epochs=3, shuffle=False, callbacks=callbacks, verbose=0
)
print("Pruned model test accuracy:", model_for_pruning.evaluate(test_images, test_labels, verbose=0)[1])

model_for_export = tfmot.sparsity.keras.strip_pruning(model_for_pruning)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    converter = tf.lite.TFLiteConverter.from_keras_model(model_for_export)
    converter.optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
    print("TFLite file:", len(converter.convert()), "bytes")
common.finish(model_for_export)
