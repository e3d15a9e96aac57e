"""Neurons are followed through each kind of layer, or stay with a reason."""

import keras
import numpy as np
import pytest
from helpers import array
from keras import layers
from neurons.sparse_networks import assert_same_outputs, conv_net, cut_inputs, outputs, randomize, row

from keras_prune.neurons import dead_neurons, remove_dead_neurons
from keras_prune.neurons.rules import RULES, ElementwiseRule


@pytest.mark.parametrize(
    "hidden",
    [
        [layers.BatchNormalization, lambda: layers.Activation("softplus")],
        [lambda: layers.AveragePooling2D(2, padding="same"), lambda: layers.MaxPooling2D(2, 1)],
        [lambda: layers.DepthwiseConv2D(2, depth_multiplier=2, activation="sigmoid")],
        [lambda: layers.SeparableConv2D(4, 2, depth_multiplier=2, activation="relu")],
        [lambda: layers.Conv2D(5, 3, strides=2)],
        [lambda: layers.Conv2D(5, 1, padding="same")],
        [lambda: layers.Dense(5, layers.ReLU(max_value=2))],
        [lambda: layers.GaussianNoise(0.1), lambda: layers.SpatialDropout2D(0.5)],
    ],
)
def test_constants_are_folded_through(hidden):
    model = randomize(conv_net(*[build() for build in hidden]), density=1)
    cut_inputs(model.layers[0], [1, 4])
    small = remove_dead_neurons(model)
    assert small.layers[0].filters == 4
    assert_same_outputs(small, model)
    assert not np.allclose(outputs(small), outputs(with_biases_of(model, small)))


def with_biases_of(model, small):
    """Returns the smaller model with the biases of the larger one, as without folding constants."""
    wrong = keras.models.clone_model(small)
    wrong.set_weights(small.get_weights())
    for old, new in zip(model.layers, wrong.layers, strict=True):
        if getattr(new, "use_bias", False) and old.bias.shape == new.bias.shape:
            new.bias.assign(old.bias)
    return wrong


def test_flatten_spreads_constants():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Conv2D(3, 2, activation="sigmoid"), layers.Flatten(), layers.Dense(2)]
    )
    cut_inputs(randomize(model, density=1).layers[0], 1)
    small = remove_dead_neurons(model)
    assert small.layers[2].kernel.shape == (18, 2)
    assert_same_outputs(small, model)


def test_flatten_follows_channels_first():
    if keras.backend.backend() == "tensorflow":
        pytest.skip("TensorFlow's max pooling on a CPU takes channels last only.")
    model = keras.Sequential(
        [
            keras.Input((2, 8, 7)),
            layers.Conv2D(5, 3, activation="sigmoid", data_format="channels_first"),
            layers.BatchNormalization(axis=1),
            layers.MaxPooling2D(2, data_format="channels_first"),
            layers.Conv2D(4, 2, activation="tanh", data_format="channels_first"),
            layers.Flatten(data_format="channels_first"),
            layers.Dense(3),
        ]
    )
    for layer in (0, 3):
        cut_inputs(randomize(model, density=1).layers[layer], 2)
    small = remove_dead_neurons(model)
    assert (small.layers[0].filters, small.layers[3].filters) == (5, 3)
    assert_same_outputs(small, model)


@pytest.mark.parametrize(
    "following",
    [
        lambda: [layers.Conv2D(3, 3, padding="same", name="next")],
        lambda: [layers.SeparableConv2D(3, 3, padding="same", name="next")],
        lambda: [layers.DepthwiseConv2D(3, padding="same", name="next")],
        lambda: [layers.ZeroPadding2D(1, name="next"), layers.Conv2D(3, 3)],
    ],
)
def test_zero_padding_folds_only_zeros(following):
    model = randomize(conv_net(*following()), density=1)
    cut_inputs(model.layers[0], [0, 5])
    bias = np.array(array(model.layers[0].bias))
    bias[0] = 0
    model.layers[0].bias.assign(bias)
    found = row(dead_neurons(model), "conv")
    assert (found.without_inputs, found.left) == (1, 1)
    assert found.note == "'next' pads with zeros, where only a constant 0 stays constant"
    assert_same_outputs(remove_dead_neurons(model), model)


def test_causal_padding_folds_only_zeros():
    model = keras.Sequential(
        [keras.Input((6, 2)), layers.Conv1D(4, 1, name="conv"), layers.Conv1D(3, 2, padding="causal")]
    )
    cut_inputs(randomize(model, density=1).layers[0], 2)
    assert row(dead_neurons(model), "conv").left == 1
    assert_same_outputs(remove_dead_neurons(model), model)


def test_folding_adds_a_bias_if_there_is_none():
    model = keras.Sequential(
        [keras.Input((3,)), layers.Dense(4, "sigmoid"), layers.Dense(2, use_bias=False, name="head")]
    )
    cut_inputs(randomize(model, density=1).layers[0], 3)
    assert "a bias is added for the constants folded into it" in row(dead_neurons(model), "head").note
    small = remove_dead_neurons(model)
    assert small.layers[1].use_bias
    assert_same_outputs(small, model)


def test_folding_zeros_adds_no_bias():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "relu"), layers.Dense(2, use_bias=False)])
    cut_inputs(randomize(model, density=1).layers[0], 3)
    model.layers[0].bias.assign([-1] * 4)
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 3
    assert not small.layers[1].use_bias


@pytest.mark.parametrize(
    ("layer", "note"),
    [
        (lambda: layers.LayerNormalization(name="x"), "LayerNormalization 'x' cannot be followed"),
        (lambda: layers.Softmax(name="x"), "Softmax 'x' cannot be followed"),
        (lambda: layers.PReLU(name="x"), "PReLU 'x' cannot be followed"),
        (lambda: layers.Dropout(0.5, noise_shape=(None, 1, 4), name="x"), "Dropout 'x' cannot be followed"),
        (lambda: layers.BatchNormalization(axis=1, name="x"), "BatchNormalization 'x' cannot be followed"),
        (lambda: layers.Conv1D(4, 2, groups=2, name="x"), "Conv1D 'x' cannot be followed"),
        (lambda: layers.LSTM(3, return_sequences=True, name="x"), "LSTM 'x' cannot be followed"),
        (lambda: keras.Sequential([layers.Dense(3)], name="x"), "'x' is a nested model"),
    ],
)
def test_neurons_before_unknown_layers_stay(layer, note):
    model = keras.Sequential([keras.Input((5, 3)), layers.Dense(4, "tanh", name="before"), layer(), layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0], 0)
    found = row(dead_neurons(model), "before")
    assert (found.left, found.without_inputs, found.note) == (1, 0, note)
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 4
    assert_same_outputs(small, model)


@keras.saving.register_keras_serializable(package="test_neurons")
def scaled(x):
    return x / (1 + keras.ops.sum(x**2, axis=-1, keepdims=True))


@pytest.mark.parametrize("activation", ["softmax", scaled])
def test_neurons_before_mixing_activations_stay(activation):
    model = keras.Sequential([keras.Input((5,)), layers.Dense(4, activation, name="hidden"), layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0], 0)
    found = row(dead_neurons(model), "hidden")
    assert (found.left, found.note) == (1, "its activation mixes neurons or is not a Keras activation")
    small = remove_dead_neurons(model)
    assert small.layers[0].units == 4
    assert_same_outputs(small, model)


def test_subclasses_are_followed_unless_call_differs():
    class Same(layers.Dense):
        pass

    class Doubled(layers.Dense):
        def call(self, inputs):
            return 2 * super().call(inputs)

    for kind, units in ((Same, 3), (Doubled, 4)):
        model = keras.Sequential([keras.Input((5,)), kind(4, "sigmoid"), layers.Dense(2)])
        cut_inputs(randomize(model, density=1).layers[0], 0)
        small = remove_dead_neurons(model)
        assert small.layers[0].units == units
        assert_same_outputs(small, model)


def test_elementwise_activations_are_followed():
    left = []
    # Not activations, or not without more arguments, or with other shapes.
    others = {"deserialize", "get", "glu", "serialize", "threshold"}
    for name in set(dir(keras.activations)) - others:
        if name.startswith("_"):
            continue
        model = keras.Sequential([keras.Input((2,)), layers.Dense(3, name, name="hidden"), layers.Dense(1)])
        cut_inputs(randomize(model, density=1).layers[0], 1)
        left += [name] * row(dead_neurons(model), "hidden").left
    assert sorted(left) == ["log_softmax", "softmax", "sparsemax"]


def test_rules_can_be_added_for_other_layers(monkeypatch):
    class Double(layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    def small():
        model = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh"), Double(), layers.Dense(2)])
        cut_inputs(randomize(model, density=1).layers[0], 1)
        result = remove_dead_neurons(model)
        assert_same_outputs(result, model)
        return result

    assert small().layers[0].units == 4
    monkeypatch.setitem(RULES, Double, ElementwiseRule())
    assert small().layers[0].units == 3
