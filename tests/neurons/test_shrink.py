"""`remove_dead_neurons` returns a smaller model with the same outputs."""

from itertools import pairwise

import keras
import numpy as np
import pytest
from helpers import array, assert_same
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers
from neurons.sparse_networks import assert_same_outputs, conv_net, cut_inputs, outputs, randomize, residual_net

import keras_prune as kp
from keras_prune.neurons import dead_neurons, remove_dead_neurons


@pytest.mark.parametrize(
    ("density", "activation"), [(0.05, "relu"), (0.15, "sigmoid"), (0.3, layers.LeakyReLU()), (1.0, "relu")]
)
def test_removal_leaves_no_dead_neuron_in_an_mlp(density, activation):
    model = keras.Sequential(
        [
            keras.Input((12,)),
            layers.Dense(20, activation),
            layers.Dense(16),
            layers.BatchNormalization(),
            layers.Activation("gelu"),
            layers.Dropout(0.5),
            layers.Dense(12, activation),
            layers.Dense(4, "softmax"),
        ]
    )
    small = remove_dead_neurons(randomize(model, density))
    assert_same_outputs(small, model)
    assert [layer.name for layer in small.layers] == [layer.name for layer in model.layers]
    kernels = [array(layer.kernel) for layer in small.layers if isinstance(layer, layers.Dense)]
    for kernel, following in pairwise(kernels):
        assert len(following) == 1 or (kernel.any(axis=0).all() and following.any(axis=1).all())
    assert (small.count_params() < model.count_params()) == (density < 1)


@pytest.mark.parametrize(("padding", "strides"), [("valid", 1), ("same", 2)])
def test_removal_keeps_outputs_of_convolutional_nets(padding, strides):
    model = keras.Sequential(
        [
            keras.Input((19, 18, 2)),
            layers.Conv2D(12, 3, strides, padding, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(2, strides, padding),
            layers.Conv2D(10, 2, 1, padding, activation="relu"),
            layers.AveragePooling2D(2, strides, padding),
            layers.Conv2D(8, 1, 1, padding, activation="tanh"),
            layers.SpatialDropout2D(0.2),
            layers.Flatten(),
            layers.Dense(9, "relu"),
            layers.Dense(3),
        ]
    )
    before = randomize(model, density=0.25).get_weights()
    assert outputs(model).std(axis=0).max() > 0.01
    small = remove_dead_neurons(model)
    assert_same_outputs(small, model)
    small.set_weights([weight + 1 for weight in small.get_weights()])
    assert_same(before, model.get_weights())
    assert small.layers[0].filters < 12
    assert small.layers[9].input.shape[1:] != model.layers[9].input.shape[1:]


KINDS = {
    "dense": lambda n: layers.Dense(n, "sigmoid"),
    "conv": lambda n: layers.Conv2D(n, 2, activation="relu"),
    "same": lambda n: layers.Conv2D(n, 3, padding="same", activation="relu"),
    "plain": lambda n: layers.Conv2D(n, 1, use_bias=False),
    "strided": lambda n: layers.Conv2D(n, 3, 2, "same", activation="elu"),
    "depthwise": lambda n: layers.DepthwiseConv2D(2, depth_multiplier=1 + n % 2, activation="tanh"),
    "depthwise same": lambda n: layers.DepthwiseConv2D(3, padding="same", use_bias=n % 2 == 0),
    "separable": lambda n: layers.SeparableConv2D(n, 2, depth_multiplier=1 + n % 2, activation="relu"),
    "separable same": lambda n: layers.SeparableConv2D(n, 2, padding="same"),
    "normalization": lambda n: layers.BatchNormalization(),
    "activation": lambda n: layers.Activation(["relu", "softplus", "softmax"][n % 3]),
    "pooling": lambda n: layers.MaxPooling2D(2, 1, "same") if n % 2 else layers.AveragePooling2D(2, 1, "same"),
    "padding": lambda n: layers.ZeroPadding2D(1),
    "layer normalization": lambda n: layers.LayerNormalization(),
}


# JAX compiles every operation for every shape.
@settings(max_examples=3 if keras.backend.backend() == "jax" else 12, deadline=None, derandomize=True)
@given(
    hidden=st.lists(st.tuples(st.sampled_from(sorted(KINDS)), st.integers(1, 6)), max_size=5),
    top=st.sampled_from([layers.Flatten, layers.GlobalAveragePooling2D, layers.GlobalMaxPooling2D]),
    density=st.sampled_from([0.1, 0.25, 0.5]),
    seed=st.integers(0, 1000),
)
def test_removal_keeps_outputs_and_is_complete(hidden, top, density, seed):
    chain = [keras.Input((20, 20, 2)), layers.Conv2D(6, 2, activation="relu")]
    chain += [KINDS[kind](size) for kind, size in hidden]
    chain += [top(), layers.Dense(5, "relu"), layers.Dense(2)]
    model = randomize(keras.Sequential(chain), density, seed)
    report = dead_neurons(model)
    small = remove_dead_neurons(model, verbose=0)
    assert_same_outputs(small, model)
    again = dead_neurons(small)
    assert (again.neurons, again.kept) == (report.kept, report.kept)


def test_removal_without_dead_neurons_changes_nothing(capsys):
    model = randomize(conv_net(layers.BatchNormalization()), density=1)
    small = remove_dead_neurons(model)
    assert capsys.readouterr().out == "Removed 0 of 9 neurons.\n"
    assert_same(model.get_weights(), small.get_weights())


def test_removal_opens_nested_models():
    nested = keras.Sequential([keras.Input((4,)), layers.Dense(6, "tanh", name="a"), layers.Dense(3, name="b")])
    model = keras.Sequential([keras.Input((4,)), nested, layers.Dense(2)])
    cut_inputs(randomize(model, density=1).layers[0].get_layer("a"), [0, 3])
    small = remove_dead_neurons(model)
    assert [layer.units for layer in small.layers[0].layers] == [4, 3]
    assert_same_outputs(small, model)


def test_removal_returns_a_plain_trainable_model(tmp_path):
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(8, 3, activation="relu"),
            layers.Flatten(),
            layers.Dropout(0.3),
            layers.Dense(16, "relu"),
            layers.Dropout(0.3),
            layers.Dense(3),
        ]
    )
    kp.prune(randomize(model, density=1), kp.TargetSparsity(0.96))
    model.compile("adam", "mse")
    kp.cut(model)
    before = kp.report(model)
    small = remove_dead_neurons(model)
    assert small.count_params() < model.count_params() / 4
    assert [type(layer) for layer in small.layers] == [type(layer) for layer in model.layers]
    assert type(small) is keras.Sequential
    assert kp.layers.pruned_weights(small) == []
    assert str(kp.report(model)) == str(before)
    assert_same_outputs(small, model)
    assert small.compiled
    small.fit(np.ones((8, 8, 8, 1)), np.ones((8, 3)), verbose=0)
    small.save(tmp_path / "small.keras")
    assert_same_outputs(keras.models.load_model(tmp_path / "small.keras"), small)


def test_removal_leaves_wrappers_out():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            kp.Prune(layers.Conv2D(8, 3, activation="relu"), kp.TargetSparsity(0.9)),
            layers.Flatten(),
            kp.Prune(layers.Dense(16, "relu"), kp.TargetSparsity(0.997)),
            layers.Dense(3),
        ]
    )
    kp.cut(randomize(model, density=1))
    found = dead_neurons(model)
    small = remove_dead_neurons(model)
    assert [type(layer).__name__ for layer in small.layers] == ["Conv2D", "Flatten", "Dense", "Dense"]
    assert small.layers[2].units == found.rows[1].kept < 16
    assert_same_outputs(small, model)
    assert [type(layer).__name__ for layer in model.layers] == ["Prune", "Flatten", "Prune", "Dense"]
    assert len(kp.layers.pruned_weights(model)) == 2


def test_removal_keeps_trainable_and_dtype_policy():
    model = keras.Sequential(
        [keras.Input((6,)), layers.Dense(5, "sigmoid", dtype="mixed_bfloat16"), layers.Dense(3, trainable=False)]
    )
    cut_inputs(randomize(model, density=1).layers[0], 2)
    small = remove_dead_neurons(model)
    assert small.layers[0].dtype_policy.name == "mixed_bfloat16"
    assert not small.layers[1].trainable
    np.testing.assert_allclose(outputs(small), outputs(model), atol=0.02)


def test_removal_prints_one_line(capsys):
    model = randomize(residual_net(), density=1)
    cut_inputs(model.get_layer("inner"), [0, 1])
    model.get_layer("inner").bias.assign([-1] * 8)
    cut_inputs(model.get_layer("start"), 3)
    remove_dead_neurons(model)
    assert capsys.readouterr().out == (
        "Removed 2 of 19 neurons: inner 8 -> 6; dead neurons that stay: 1, see keras_prune.dead_neurons(model).\n"
    )
    remove_dead_neurons(model, verbose=0)
    assert capsys.readouterr().out == ""
