"""Tests of examples/local_pruning.py: dense layers retrain while convolutions are fixed, and the reverse."""

import pathlib

import keras
import numpy as np
import pytest
from helpers import array
from keras import layers

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(32, 8, 1)).astype("float32")
Y = np.argmax(X[:, :3, 0], axis=1)
FIT = {"x": X, "y": Y, "batch_size": 16, "validation_data": (X, Y), "max_drop": 1.0}


@pytest.fixture
def local_retraining(monkeypatch):
    monkeypatch.syspath_prepend(str(pathlib.Path(__file__).parents[2] / "examples"))
    from local_pruning import local_retraining

    return local_retraining


def compile(model):
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(0.1), loss, metrics=["accuracy"], jit_compile=False)


def compiled(*hidden):
    model = keras.Sequential([keras.Input((8, 1)), *hidden, layers.Flatten(), layers.Dense(3, name="head")])
    compile(model)
    return model


def convolutional_model():
    return compiled(layers.Conv1D(4, 3, name="conv"), layers.Conv1D(3, 3, name="unpruned_conv"))


def kernels(model):
    return [np.copy(array(model.get_layer(name).kernel)) for name in ("conv", "unpruned_conv", "head")]


class Watch(keras.callbacks.Callback):
    """Records kernels and the learning rate at the start of each `fit`, and kernels at its end."""

    def __init__(self):
        super().__init__()
        self.fits, self.rates = [], []

    def on_epoch_begin(self, epoch, logs=None):
        self.before = kernels(self.model)
        self.rates.append(float(array(self.model.optimizer.learning_rate)))

    def on_epoch_end(self, epoch, logs=None):
        self.fits.append((self.before, kernels(self.model)))


def moved(before, after):
    return [not np.array_equal(*pair) for pair in zip(before, after, strict=True)]


def test_local_retraining_trains_dense_layers_then_convolutions(local_retraining):
    model, watch = kp.prune(convolutional_model(), {"conv|head": kp.StdThreshold()}), Watch()
    with local_retraining(model, compile):
        rounds = kp.iterative_prune(model, [2], learning_rate_fraction=0.5, callbacks=[watch], **FIT)
    assert rounds[1].compression == 2
    assert [moved(*both) for both in watch.fits] == [[False, False, True], [True, True, False]]
    # Each half starts with the cut of the layers that it trains.
    zeros = [[np.count_nonzero(kernel == 0) > 0 for kernel in before] for before, _ in watch.fits]
    assert zeros == [[False, False, True], [True, False, True]]
    assert watch.rates == [pytest.approx(0.05)] * 2


def test_model_trains_as_a_whole_after_local_retraining(local_retraining):
    model = convolutional_model()
    with local_retraining(model, compile):
        kp.iterative_prune(model, [2], **FIT)
    assert all(layer.trainable for layer in model.layers)
    before = kernels(model)
    model.fit(X, Y, verbose=0)
    assert moved(before, kernels(model)) == [True, True, True]


def test_half_without_pruned_layers_is_trained_without_a_cut(local_retraining):
    model, watch = kp.prune(convolutional_model(), {"head": kp.StdThreshold()}), Watch()
    with local_retraining(model, compile):
        kp.iterative_prune(model, [2], callbacks=[watch], **FIT)
    assert [moved(*both) for both in watch.fits] == [[False, False, True], [True, True, False]]
    assert [weight.density <= 0.5 for weight in kp.layers.pruned_weights(model)] == [True]


def test_half_without_layers_is_left_out(local_retraining):
    model, epochs = compiled(layers.Flatten(), layers.Dense(4)), []
    count = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: epochs.append(epoch))
    with local_retraining(model, compile):
        kp.iterative_prune(model, [2], callbacks=[count], **FIT)
    assert epochs == [0]
