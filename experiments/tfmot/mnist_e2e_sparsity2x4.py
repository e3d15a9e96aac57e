"""The example mnist_e2e_sparsity2x4.py, in short."""

import common
import keras
import numpy as np

from keras_prune.compat import tfmot

l = keras.layers  # noqa: E741
prune_low_magnitude = tfmot.sparsity.keras.prune_low_magnitude
x_train, labels = common.images(1600, (28, 28, 1))
y_train = keras.utils.to_categorical(labels, 10)


def check_model_sparsity_2x4(model):
    for weight in common.kernels(model).values():
        channels = weight.shape[-2] // 4 * 4
        groups = np.moveaxis(weight, -2, -1)[..., :channels].reshape(-1, 4)
        yield bool((np.count_nonzero(groups, axis=1) <= 2).all())


pruning_params = {
    "pruning_schedule": tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=100),
    "sparsity_m_by_n": (2, 4),
}
model = keras.Sequential(
    [
        prune_low_magnitude(
            l.Conv2D(8, 5, padding="same", activation="relu", input_shape=(28, 28, 1)), **pruning_params
        ),
        l.MaxPooling2D((2, 2), (2, 2), padding="same"),
        prune_low_magnitude(l.Conv2D(16, 5, padding="same"), **pruning_params),
        l.BatchNormalization(),
        l.ReLU(),
        l.MaxPooling2D((2, 2), (2, 2), padding="same"),
        l.Flatten(),
        prune_low_magnitude(l.Dense(64, activation="relu"), **pruning_params),
        l.Dropout(common.DROPOUT),
        l.Dense(10, activation="softmax"),
    ]
)
common.start(model)
model.compile(loss=keras.losses.categorical_crossentropy, optimizer="adam", metrics=["accuracy"])
callbacks = [tfmot.sparsity.keras.UpdatePruningStep(), common.follow(keras, model)]
model.fit(x_train, y_train, batch_size=32, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
print("Pass the check for sparsity 2x4:", list(check_model_sparsity_2x4(model)))
model = tfmot.sparsity.keras.strip_pruning(model)
common.finish(model)
