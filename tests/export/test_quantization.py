"""Models that are pruned, stripped, and then quantized by Keras. The 8-bit formats of TFLite are in test_tflite.py."""

import keras
import numpy as np
import pytest
from helpers import array

import keras_prune as kp

pytestmark = pytest.mark.filterwarnings("ignore:.*does not have a `quantize` method")


@pytest.fixture
def float_model():
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Dense(128, "relu", name="fc1"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(10, name="fc2"),
        ]
    )
    model = kp.prune(model, kp.TargetSparsity(0.9))
    kp.cut(model)
    return kp.strip(model)


def kernels(model):
    return [array(model.get_layer(name).kernel) for name in ("fc1", "fc2")]


def test_quantize_keeps_zeros(float_model):
    inputs = np.random.default_rng(0).random((16, 64), "float32")
    expected, before = float_model.predict(inputs, verbose=0), kernels(float_model)
    float_model.quantize("int8")
    for kernel, quantized in zip(before, kernels(float_model), strict=True):
        assert quantized.dtype == np.int8
        assert not np.any(quantized[kernel == 0])
        assert np.count_nonzero(quantized) > 0.95 * np.count_nonzero(kernel)
    difference = np.abs(float_model.predict(inputs, verbose=0) - expected).max()
    assert difference < 0.02 * np.abs(expected).max()


def test_save_sparse_of_quantized_model_is_smaller_and_exact(float_model, tmp_path):
    path = tmp_path / "model.kprune"
    kp.save_sparse(float_model, path)
    float_bytes = path.stat().st_size
    float_model.quantize("int8")
    kp.save_sparse(float_model, path)
    assert path.stat().st_size < 0.6 * float_bytes
    inputs = np.random.default_rng(0).random((16, 64), "float32")
    np.testing.assert_array_equal(
        kp.load_sparse(path).predict(inputs, verbose=0), float_model.predict(inputs, verbose=0)
    )
