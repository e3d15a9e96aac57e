"""Layers choose their pruned weights with `get_prunable_weights`."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same, assert_zeros, criteria, kept
from keras import layers

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(4, 8)).astype("float32")
register = keras.saving.register_keras_serializable(package="test_prunable")


@register
class BiasToo(layers.Dense):
    def get_prunable_weights(self):
        return [self.kernel, self.bias]


@register
class SomeInside(layers.Layer):
    """Prunes the bias of one inner layer, and the kernel of the other."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.first = layers.Dense(8, name="first", bias_initializer="ones")
        self.second = layers.Dense(8, name="second")

    def build(self, input_shape):
        self.first.build(input_shape)
        self.second.build(input_shape)

    def call(self, inputs):
        return self.second(self.first(inputs))

    def get_prunable_weights(self):
        return [self.first.bias, self.second.kernel]


@register
class Nothing(layers.Dense):
    def get_prunable_weights(self):
        return []


OWN = {
    "bias": (lambda: BiasToo(8, name="own", bias_initializer="ones"), ["own/kernel", "own/bias"], [32, 4]),
    "inside": (SomeInside, ["first/bias", "second/kernel"], [4, 32]),
    "nothing": (lambda: Nothing(8), [], []),
}


@pytest.mark.parametrize("unbuilt", [False, True])
@pytest.mark.parametrize("name", OWN)
def test_prune_takes_the_weights_that_a_layer_names(name, unbuilt, tmp_path):
    make, names, sizes = OWN[name]
    inputs = [] if unbuilt else [keras.Input((8,))]
    model = kp.prune(keras.Sequential([*inputs, make(), layers.Dense(4, name="head")]), kp.TargetSparsity(0.5))
    model(X)
    kp.cut(model)
    assert list(criteria(model)) == [*names, "head/kernel"]
    assert kept(model) == [*sizes, 16]
    assert_zeros(model)
    assert kp.report(model).kept == sum(sizes) + 16
    expected = array(model(X))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert criteria(loaded) == criteria(model)
    assert_same(loaded(X), expected)
    assert kept(kp.prune(kp.strip(model))) == [*sizes, 16]


def test_budget_counts_the_weights_that_a_layer_names():
    model = keras.Sequential([keras.Input((8,)), OWN["bias"][0](), layers.Dense(4, name="head")])
    assert list(kp.budgets.shares(model, kp.budgets.ErdosRenyiKernel(2))) == ["own/kernel", "own/bias", "head"]
    kp.cut(kp.prune(model, 0.5))
    assert sum(kept(model)) == (64 + 8 + 32) // 2


def test_prune_rejects_other_objects_from_a_layer():
    class NamesItself(layers.Dense):
        def get_prunable_weights(self):
            return [self]

    with pytest.raises(ValueError, match=r"must return a list of weights.*Received: layer='odd' of class NamesItself"):
        kp.prune(keras.Sequential([keras.Input((8,)), NamesItself(4, name="odd")]))
