"""The example mnist_e2e.py, in short: blocks of 2x2, 4x1 and 16x1 in dense layers, and TFLite files."""

import common
import keras

from keras_prune.compat import tfmot

l = keras.layers  # noqa: E741
prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
x_train, labels = common.images(3200, (28, 28, 1))
y_train = keras.utils.to_categorical(labels, 10)


def build_layerwise_model(input_shape, **pruning_params):
    return keras.Sequential(
        [
            l.Conv2D(16, 5, padding="same", activation="relu", input_shape=input_shape),
            l.MaxPooling2D((2, 2), (2, 2), padding="same"),
            l.BatchNormalization(),
            l.ReLU(),
            l.MaxPooling2D((2, 2), (2, 2), padding="same"),
            l.Flatten(),
            prune_low_magnitude(l.Dense(64, activation="relu"), **pruning_params),
            prune_low_magnitude(l.Dense(10, activation="softmax"), **pruning_params),
        ]
    )


for block_size in [(2, 2), (4, 1), (16, 1)]:
    pruning_params = {
        "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=20),
        "block_size": block_size,
    }
    model = build_layerwise_model((28, 28, 1), **pruning_params)
    common.start(model)
    model.compile(loss=keras.losses.categorical_crossentropy, optimizer="adam", metrics=["accuracy"])
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model)]
    model.fit(x_train, y_train, batch_size=32, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
    model = tfmot.sparsity.keras.strip_pruning(model)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        converter = tf.lite.TFLiteConverter.from_keras_model(model)
        dense = len(converter.convert())
        converter.optimizations = {tf.lite.Optimize.EXPERIMENTAL_SPARSITY}
        print("Compression ratio:", len(converter.convert()) / dense)
common.finish(model)
