"""Tests of models created from configs, compared with the models that Keras creates."""

import copy

import keras
import pytest
from keras import layers

import keras_prune as kp
from keras_prune.models.deserialize import deserialize

DEPTH = 12


@keras.saving.register_keras_serializable("tests")
class Counted(layers.Layer):
    """Counts the calls of all its objects."""

    calls = 0

    def call(self, inputs):
        Counted.calls += 1
        return inputs


@keras.saving.register_keras_serializable("tests")
class Stack(keras.Sequential):
    """A class of Sequential models that Keras creates in the usual way."""


@keras.saving.register_keras_serializable("tests")
class Unnamed(keras.Sequential):
    """A class with its own `from_config`."""

    @classmethod
    def from_config(cls, config, custom_objects=None):
        return super().from_config({**config, "name": "unnamed"})


@keras.saving.register_keras_serializable("tests")
class Doubled(keras.Sequential):
    """A class with its own `add`."""

    def add(self, layer):
        layer.name = f"doubled_{layer.name.removeprefix('doubled_')}"
        super().add(layer)


class Local(keras.Sequential):
    """A class that Keras only finds in `custom_objects`."""


@keras.saving.register_keras_serializable("tests")
class WithoutShape(layers.Dense):
    """A layer for which Keras cannot create the graph of its model."""

    def compute_output_spec(self, inputs):
        raise NotImplementedError


def called(model):
    model(keras.ops.ones((2, 4)))
    return model


def in_functional(make=keras.Sequential):
    inputs = keras.Input((4,))
    inner = make([keras.Input((4,)), layers.Dense(4), layers.Dense(3)], name="inner")
    return keras.Model(inputs, layers.Dense(2)(inner(inputs)))


def in_layer():
    inner = keras.Sequential([keras.Input((2,)), layers.Dense(3), layers.Dense(2)])
    return keras.Sequential([keras.Input((4, 2)), layers.TimeDistributed(inner)])


def doubled():
    model = Doubled()
    for layer in (keras.Input((4,)), layers.Dense(3)):
        model.add(layer)
    return model


MODELS = {
    "an input": lambda: keras.Sequential([keras.Input((4,), batch_size=2, name="in"), layers.Dense(3), layers.ReLU()]),
    "integers": lambda: keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2), layers.Flatten()]),
    "no input, built": lambda: called(keras.Sequential([layers.Dense(3), layers.Dense(2)])),
    "no input, not built": lambda: keras.Sequential([layers.Dense(3), layers.Dense(2)]),
    "an input alone": lambda: keras.Sequential([keras.Input((4,))]),
    "one layer": lambda: keras.Sequential([layers.Dense(3)]),
    "no layer": lambda: keras.Sequential(name="empty"),
    "no graph": lambda: called(keras.Sequential([keras.Input((4,)), layers.Dense(3), WithoutShape(2)])),
    "models": lambda: keras.Sequential([in_functional(), keras.Sequential([layers.Dense(2)])]),
    "in Functional": in_functional,
    "in Functional, a class": lambda: in_functional(Stack),
    "in a layer": in_layer,
    "a class": lambda: Stack([keras.Input((4,)), layers.Dense(3), layers.Dense(2)]),
    "its own from_config": lambda: Unnamed([keras.Input((4,)), layers.Dense(3)]),
    "its own add": doubled,
    "custom_objects": lambda: Local([keras.Input((4,)), layers.Dense(3)]),
    "a policy": lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, dtype="mixed_bfloat16")]),
    "not a Sequential": lambda: layers.Dense(3, activation=keras.activations.gelu),
}


def description(one):
    """Returns the config of a model, and properties that are not in it."""
    weights = [(weight.path, tuple(weight.shape), str(weight.dtype)) for weight in one.weights]
    return keras.saving.serialize_keras_object(one), type(one), one.built, weights


@pytest.mark.parametrize("name", MODELS)
def test_deserialize_makes_the_models_of_keras(name):
    config = keras.saving.serialize_keras_object(MODELS[name]())
    before, objects = copy.deepcopy(config), {"Local": Local}
    made = deserialize(config, objects)
    assert config == before
    assert description(made) == description(keras.saving.deserialize_keras_object(config, objects))


@pytest.mark.parametrize("make", [keras.Sequential, Stack])
def test_deserialize_is_linear_in_the_layers(make):
    inner = make([keras.Input((4,)), *[Counted() for _ in range(DEPTH)]])
    inputs = keras.Input((4,))
    for model in (inner, keras.Model(inputs, inner(inputs)), keras.Sequential([keras.Input((4,)), inner])):
        config = keras.saving.serialize_keras_object(model)
        Counted.calls = 0
        deserialize(config)
        assert DEPTH <= Counted.calls <= 2 * DEPTH  # Keras calls them again in a model around theirs.


def test_files_of_both_formats_are_read_in_linear_time(tmp_path):
    model = keras.Sequential([keras.Input((4,)), *[Counted() for _ in range(DEPTH)], layers.Dense(2)])
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    model.save(tmp_path / "model.keras")
    Counted.calls = 0
    keras.models.load_model(tmp_path / "model.keras")
    assert DEPTH <= Counted.calls <= 2 * DEPTH
    Counted.calls = 0
    kp.save_sparse(model, tmp_path / "model.kprune")  # It rebuilds the model as a trial.
    kp.load_sparse(tmp_path / "model.kprune")
    assert 2 * DEPTH <= Counted.calls <= 4 * DEPTH
