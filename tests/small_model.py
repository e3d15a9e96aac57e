"""A small pruned model, and data to train it on."""

import keras
import numpy as np
from helpers import JAX, TENSORFLOW
from keras import layers

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")


def pruned_model(optimizer="adam", **compiling):
    inputs = keras.Input((8,))
    hidden = layers.Dropout(0.5, seed=3)(layers.Dense(16, "relu", name="hidden")(inputs))
    model = kp.prune(keras.Model(inputs, layers.Dense(3, name="head")(hidden)), kp.TargetSparsity(0.75))
    # A few steps take TensorFlow less time than compiling them would.
    model.compile(optimizer, "mse", **{"jit_compile": JAX, "run_eagerly": TENSORFLOW} | compiling)
    return model


def fit(model, *callbacks, schedule=None, epochs=3, **kwargs):
    """Trains with the callback after all others, so that it sees their changes."""
    callbacks = [*callbacks, kp.PruningCallback(schedule or kp.OneShot(start=1), verbose=0)]
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)
