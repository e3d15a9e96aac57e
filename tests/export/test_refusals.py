"""Layers that crash TensorFlow's converter, or that an exported file cannot hold, are rejected by name."""

import importlib.util

import keras
import numpy as np
import pytest
from helpers import array

import keras_prune as kp

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="TensorFlow's converter writes the files, and ai-edge-litert runs them",
)
needs_xla = pytest.mark.skipif(BACKEND == "torch", reason="Keras runs on PyTorch, which XLA does not compile here")
layers = keras.layers
RECURRENT = {
    "LSTM": lambda **kwargs: layers.LSTM(3, **kwargs),
    "GRU": lambda **kwargs: layers.GRU(3, **kwargs),
    "bidirectional": lambda **kwargs: layers.Bidirectional(layers.LSTM(3, **kwargs)),
    "nested": lambda **kwargs: keras.Sequential([layers.SimpleRNN(3, **kwargs)]),
}


def recurrent(kind, **kwargs):
    return keras.Sequential([keras.Input((2, 5)), RECURRENT[kind](**kwargs), layers.Dense(2)])


@pytest.fixture
def inputs():
    return np.random.default_rng(0).random((8, 2, 5), "float32")


@needs_tensorflow
@pytest.mark.parametrize("kind", RECURRENT)
@pytest.mark.parametrize("batch_size", [None, 1])
def test_full_int8_rejects_recurrent_loops(kind, batch_size, inputs, tmp_path):
    name = {"LSTM": "lstm", "GRU": "gru", "bidirectional": "backward_lstm.*forward_lstm", "nested": "simple_rnn"}[kind]
    with pytest.raises(ValueError, match=rf"unroll=True.*dynamic_int8.*Received: .*recurrent layers \['{name}"):
        kp.export_tflite(recurrent(kind), tmp_path / "model.tflite", "full_int8", x=inputs, batch_size=batch_size)
    assert not list(tmp_path.iterdir())


@needs_tensorflow
def test_full_int8_takes_unrolled_layers(inputs, tmp_path):
    unrolled = recurrent("nested", unroll=True)
    unrolled.set_weights(recurrent("nested").get_weights())
    report = kp.export_tflite(unrolled, tmp_path / "model.tflite", "full_int8", False, x=inputs, batch_size=1)
    assert report.relative_difference < 0.1


@needs_tensorflow
def test_dynamic_int8_takes_recurrent_loops(inputs, tmp_path):
    report = kp.export_tflite(
        recurrent("LSTM"), tmp_path / "model.tflite", "dynamic_int8", False, x=inputs, batch_size=1
    )
    assert report.relative_difference < 0.1


def stateful(**kwargs):
    inputs = keras.Input((2, 5), batch_size=1)
    return keras.Sequential([inputs, layers.Bidirectional(layers.LSTM(3, **kwargs)), layers.Dense(2)])


STATEFUL = r"stateful=False.*Received: .*stateful layers \['backward_lstm.*forward_lstm"


@needs_tensorflow
def test_export_tflite_rejects_stateful_layers(inputs, tmp_path):
    with pytest.raises(ValueError, match=STATEFUL):
        kp.export_tflite(stateful(stateful=True), tmp_path / "model.tflite", x=inputs, batch_size=1)


@needs_xla
def test_export_xla_rejects_stateful_layers(inputs, tmp_path):
    with pytest.raises(ValueError, match=STATEFUL):
        kp.export_xla(stateful(stateful=True), tmp_path / "model", "stablehlo", x=inputs)


def test_stateless_layer_takes_weights_of_stateful_layer(inputs):
    model, without = stateful(stateful=True), stateful()
    without.set_weights(model.get_weights())
    first = inputs[:1]
    np.testing.assert_array_equal(*(array(each(first)) for each in (model, without)))


def sparse(format):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="fc")])
    return kp.to_sparse(keras.Sequential([keras.Input((8,)), model]), format, verbose=0)


SPARSE = r"as it was before to_sparse\. Received: .*sparse layers \['fc'\]"


@needs_tensorflow
@pytest.mark.parametrize("format", ["csr", "coo"])
def test_export_tflite_rejects_sparse_layers(format, tmp_path):
    with pytest.raises(ValueError, match=SPARSE):
        kp.export_tflite(sparse(format), tmp_path / "model.tflite")


@needs_xla
@pytest.mark.parametrize("format", ["csr", "coo"] if BACKEND == "tensorflow" else ["csr"])
def test_export_xla_rejects_sparse_layers_it_cannot_compile(format, tmp_path):
    with pytest.raises(ValueError, match=SPARSE):
        kp.export_xla(sparse(format), tmp_path / "model", "stablehlo")


@needs_xla
@pytest.mark.parametrize("format", ["ell"] if BACKEND == "tensorflow" else ["ell", "coo"])
def test_export_xla_takes_sparse_layers_it_can_compile(format, tmp_path):
    assert kp.export_xla(sparse(format), tmp_path / "model", "stablehlo").relative_difference < 1e-5
