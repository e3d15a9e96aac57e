import keras
import numpy as np
import pytest
from keras import ops

from keras_prune.sparse.matrices import Connections
from keras_prune.sparse.sparse_dense import SparseDense

pytestmark = pytest.mark.skipif(
    keras.backend.backend() not in ("tensorflow", "jax"), reason="sparse layers run on TensorFlow and JAX"
)
FORMATS = ("csr", "coo", "ell")


def dense_layer(inputs=20, units=12, density=0.2, **settings):
    """Returns a built dense layer with a random bias and a random kernel of a given density."""
    layer = keras.layers.Dense(units, bias_initializer="normal", **settings)
    layer.build((None, inputs))
    random = np.random.default_rng(0)
    layer.kernel.assign(random.normal(size=(inputs, units)) * (random.random((inputs, units)) < density))
    return layer


def outputs(layer, inputs):
    return ops.convert_to_numpy(layer(inputs))


def random_inputs(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("batch", [1, 7, 8, 9, 64])
def test_call_matches_the_dense_layer_for_any_batch(format, batch):
    layer = dense_layer(activation="relu")
    inputs = random_inputs(batch, 20)
    np.testing.assert_allclose(outputs(SparseDense.of(layer, format), inputs), outputs(layer, inputs), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_call_takes_inputs_of_any_rank(format):
    layer = dense_layer(use_bias=False)
    inputs = random_inputs(2, 3, 5, 20)
    sparse = SparseDense.of(layer, format)
    assert outputs(sparse, inputs).shape == sparse.compute_output_shape(inputs.shape) == (2, 3, 5, 12)
    np.testing.assert_allclose(outputs(sparse, inputs), outputs(layer, inputs), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("density", [0.0, 1.0])
def test_call_with_no_or_all_connections(format, density):
    layer = dense_layer(density=density)
    sparse = SparseDense.of(layer, format)
    assert sparse.connections == int(density * 240)
    inputs = random_inputs(3, 20)
    np.testing.assert_allclose(outputs(sparse, inputs), outputs(layer, inputs), atol=1e-5)


@pytest.mark.parametrize("format", FORMATS)
def test_read_returns_the_assigned_connections(format):
    layer = dense_layer()
    kernel = ops.convert_to_numpy(layer.kernel.value)
    expected = Connections.of(kernel)
    read = SparseDense.of(layer, format).matrix.read()
    for name in Connections._fields:
        np.testing.assert_array_equal(getattr(read, name), getattr(expected, name))
    rebuilt = np.zeros_like(kernel)
    rebuilt[read.columns, read.rows] = read.values
    np.testing.assert_array_equal(rebuilt, kernel)


@pytest.mark.parametrize("format", FORMATS)
def test_sparse_layer_is_not_trainable(format):
    assert not SparseDense.of(dense_layer(), format).trainable_weights


@pytest.mark.parametrize("format", FORMATS)
def test_of_copies_the_bias(format):
    layer = dense_layer()
    sparse = SparseDense.of(layer, format)
    before = ops.convert_to_numpy(sparse.bias.value).copy()
    layer.bias.assign(ops.zeros_like(layer.bias.value))
    np.testing.assert_array_equal(ops.convert_to_numpy(sparse.bias.value), before)


def test_call_in_mixed_precision_multiplies_in_float32(mixed_float16):
    layer = dense_layer()
    inputs = random_inputs(4, 20)
    sparse = SparseDense.of(layer)
    assert outputs(sparse, inputs).dtype == "float16"
    np.testing.assert_allclose(outputs(sparse, inputs), outputs(layer, inputs), atol=1e-2)


def test_call_rejects_inputs_of_another_width():
    with pytest.raises(ValueError, match="expected axis -1 of input shape to have value 20"):
        SparseDense.of(dense_layer())(random_inputs(2, 19))
