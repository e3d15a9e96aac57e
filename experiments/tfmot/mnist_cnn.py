"""The example mnist_cnn.py, in short: layer by layer, Sequential and Functional."""

import tempfile

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
            prune_low_magnitude(
                l.Conv2D(8, 5, padding="same", activation="relu"), input_shape=input_shape, **pruning_params
            ),
            l.MaxPooling2D((2, 2), (2, 2), padding="same"),
            l.BatchNormalization(),
            l.Flatten(),
            prune_low_magnitude(l.Dense(64, activation="relu"), **pruning_params),
            l.Dropout(common.DROPOUT),
            prune_low_magnitude(l.Dense(10, activation="softmax"), **pruning_params),
        ]
    )


def build_sequential_model(input_shape):
    return keras.Sequential(
        [
            l.Conv2D(8, 5, padding="same", activation="relu", input_shape=input_shape),
            l.MaxPooling2D((2, 2), (2, 2), padding="same"),
            l.BatchNormalization(),
            l.Flatten(),
            l.Dense(64, activation="relu"),
            l.Dropout(common.DROPOUT),
            l.Dense(10, activation="softmax"),
        ]
    )


def build_functional_model(input_shape):
    inp = keras.Input(shape=input_shape)
    x = l.Conv2D(8, 5, padding="same", activation="relu")(inp)
    x = l.MaxPooling2D((2, 2), (2, 2), padding="same")(x)
    x = l.BatchNormalization()(x)
    x = l.Flatten()(x)
    x = l.Dense(64, activation="relu")(x)
    out = l.Dense(10, activation="softmax")(x)
    return keras.Model([inp], [out])


pruning_params = {
    "pruning_schedule": tfmot.sparsity.keras.PolynomialDecay(
        initial_sparsity=0.1, final_sparsity=0.75, begin_step=50, end_step=150, frequency=10
    )
}
layerwise_model = build_layerwise_model((28, 28, 1), **pruning_params)
sequential_model = prune_low_magnitude(build_sequential_model((28, 28, 1)), **pruning_params)
functional_model = prune_low_magnitude(build_functional_model((28, 28, 1)), **pruning_params)
for model in [layerwise_model, sequential_model, functional_model]:
    common.start(model)
    model.compile(loss=keras.losses.categorical_crossentropy, optimizer="adam", metrics=["accuracy"])
    model.summary()
    callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model)]
    if common.HAS_TENSORBOARD:
        callbacks.append(tfmot.sparsity.keras.PruningSummaries(log_dir=tempfile.mkdtemp()))
    model.fit(x_train, y_train, batch_size=32, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    print("Test accuracy:", model.evaluate(x_train, y_train, verbose=0)[1])
    saved_model = tempfile.mkdtemp() + "/model.h5"
    keras.models.save_model(model, saved_model)
    with tfmot.sparsity.keras.prune_scope():
        loaded_model = keras.models.load_model(saved_model)
    print("Test accuracy:", loaded_model.evaluate(x_train, y_train, verbose=0)[1])
common.finish(model)
