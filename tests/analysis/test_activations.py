"""Tests of `nonzero_shares`."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_prune.analysis.activations import nonzero_shares

X = np.random.default_rng(0).normal(size=(10, 6)).astype("float32")


def two_layers():
    return keras.Sequential([keras.Input((6,)), layers.Dense(5, "relu", name="a"), layers.Dense(4, "relu", name="b")])


def true_shares(model, x=X):
    """The shares of a chain of layers, layer by layer."""
    shares = []
    for layer in model.layers:
        x = layer(x)
        shares.append(np.count_nonzero(ops.convert_to_numpy(x)) / ops.convert_to_numpy(x).size)
    return shares


def measured_shares(model, data, **kwargs):
    shares = nonzero_shares(model, model.layers, data, **kwargs)
    return [shares[id(layer)] for layer in model.layers]


class Batches:
    """An iterable of batches with nothing but `__iter__`, like a data loader."""

    def __init__(self, pack):
        self.pack = pack

    def __iter__(self):
        yield from (self.pack(X[:4]), self.pack(X[4:]))


@pytest.mark.parametrize("batch_size", [1, 3, 10, 256])
def test_shares_do_not_depend_on_the_batch_size(batch_size):
    model = two_layers()
    assert 0 < true_shares(model)[0] < 1
    assert measured_shares(model, X, batch_size=batch_size) == true_shares(model)


@pytest.mark.parametrize(
    "pack",
    [
        lambda x: x,
        lambda x: (x,),
        lambda x: (x, x[:, :1]),
        lambda x: (x, x[:, :1], x[:, 0]),
        lambda x: [x, x[:, :1]],  # As PyTorch's DataLoader gives them.
    ],
)
@pytest.mark.filterwarnings("error:The structure of `inputs`")
def test_only_the_inputs_of_a_batch_are_used(pack):
    model = two_layers()
    assert measured_shares(model, Batches(pack)) == true_shares(model)


def test_datasets_are_read_once():
    class Pairs(keras.utils.PyDataset):
        def __len__(self):
            return 2

        def __getitem__(self, index):
            return X[5 * index : 5 * index + 5], X[5 * index : 5 * index + 5, :1]

    model = two_layers()
    assert measured_shares(model, Pairs()) == true_shares(model)
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        assert measured_shares(model, tf.data.Dataset.from_tensor_slices((X, X[:, :1])).batch(4)) == true_shares(model)


@pytest.mark.parametrize("pack", [lambda a, b: [a, b], lambda a, b: (a, b), lambda a, b: {"left": a, "right": b}])
def test_structures_of_arrays_are_several_inputs(pack):
    left, right = keras.Input((6,), name="left"), keras.Input((6,), name="right")
    layer = layers.Dense(5, "relu")
    model = keras.Model(pack(left, right), layers.Concatenate()([layer(left), right]))
    expected = np.count_nonzero(ops.convert_to_numpy(layer(X))) / 50
    assert nonzero_shares(model, [layer], pack(X, -X), batch_size=3)[id(layer)] == expected


def test_every_call_of_a_shared_layer_counts():
    inputs = keras.Input((6,))
    shared = layers.ReLU()
    model = keras.Model(inputs, layers.Concatenate()([shared(inputs), shared(layers.Rescaling(-1.0)(inputs))]))
    assert nonzero_shares(model, [shared], X) == {id(shared): 0.5}


def test_layers_of_nested_models_are_measured():
    inner = two_layers()
    model = keras.Sequential([keras.Input((6,)), inner, layers.Dense(2)])
    shares = nonzero_shares(model, inner.layers, X)
    assert [shares[id(layer)] for layer in inner.layers] == true_shares(inner)


def test_dropout_does_not_count_as_zeros():
    model = keras.Sequential([keras.Input((6,)), layers.Dropout(0.9)])
    assert measured_shares(model, X) == [1.0]


def test_layers_are_restored_if_the_data_fails():
    def broken():
        yield X
        raise OSError("the disk is gone")

    model = two_layers()
    with pytest.raises(OSError, match="the disk is gone"):
        measured_shares(model, broken())
    assert all("call" not in vars(layer) for layer in model.layers)
    before = [list(vars(layer)) for layer in model.layers]
    assert measured_shares(model, X) == true_shares(model)
    assert [list(vars(layer)) for layer in model.layers] == before


@pytest.mark.parametrize("data", [X[:0], [], {}, iter([])])
def test_empty_inputs_are_rejected(data):
    with pytest.raises(ValueError, match="at least one input"):
        measured_shares(two_layers(), data)


class Endless(keras.utils.PyDataset):
    """An endless dataset."""

    num_batches = None

    def __getitem__(self, index):
        return X if index < 2 else np.zeros_like(X)


def test_endless_data_needs_steps():
    model = two_layers()
    assert measured_shares(model, Endless(), steps=2) == true_shares(model)
    assert measured_shares(model, X, steps=1, batch_size=4) == true_shares(model, X[:4])
    with pytest.raises(ValueError, match=r"Pass `steps`.*Received: data=.*, steps=None"):
        measured_shares(model, Endless())
    with pytest.raises(ValueError, match="Received: steps=0"):
        measured_shares(model, X, steps=0)
