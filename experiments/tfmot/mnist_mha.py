"""The example mnist_mha.py, in short: multi-head attention."""

import tempfile

import common
import keras

from keras_prune.compat import tfmot

train_images, train_labels = common.images(3200)
inputs = keras.layers.Input(shape=(28, 28))
x = keras.layers.MultiHeadAttention(num_heads=2, key_dim=16, name="mha")(query=inputs, value=inputs)
x = keras.layers.Flatten()(x)
model = keras.Model(inputs=inputs, outputs=keras.layers.Dense(10)(x))
common.start(model)
pruning_params = {"pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=200, frequency=100)}
model_for_pruning = tfmot.sparsity.keras.prune_low_magnitude(model, **pruning_params)
model_for_pruning.compile(
    optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
)
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model_for_pruning)]
if common.HAS_TENSORBOARD:
    callbacks.append(tfmot.sparsity.keras.PruningSummaries(log_dir=tempfile.mkdtemp()))
model_for_pruning.fit(
    train_images, train_labels, batch_size=32, epochs=3, shuffle=False, callbacks=callbacks, verbose=0
)
print("Pruned model test accuracy:", model_for_pruning.evaluate(train_images, train_labels, verbose=0)[1])
common.finish(model_for_pruning)
