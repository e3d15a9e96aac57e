"""What used to end the whole process in TensorFlow's converter, or to be refused without its reason."""

import importlib.util

import keras
import numpy as np
import pytest

import keras_prune as kp

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(
    BACKEND != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="the converter is TensorFlow's, and files are tried in ai-edge-litert",
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
def test_a_recurrent_layer_in_a_loop_is_refused_in_full_int8_with_the_way_to_go(kind, batch_size, inputs, tmp_path):
    name = {"LSTM": "lstm", "GRU": "gru", "bidirectional": "backward_lstm.*forward_lstm", "nested": "simple_rnn"}[kind]
    with pytest.raises(ValueError, match=rf"unroll=True.*dynamic_int8.*Received: .*recurrent layers \['{name}"):
        kp.export_tflite(recurrent(kind), tmp_path / "model.tflite", "full_int8", data=inputs, batch_size=batch_size)
    assert not list(tmp_path.iterdir())


@needs_tensorflow
def test_an_unrolled_recurrent_layer_with_the_same_weights_goes_in_full_int8(inputs, tmp_path):
    unrolled = recurrent("nested", unroll=True)
    unrolled.set_weights(recurrent("nested").get_weights())
    report = kp.export_tflite(unrolled, tmp_path / "model.tflite", "full_int8", False, data=inputs, batch_size=1)
    assert report.relative_difference < 0.1


@needs_tensorflow
def test_a_recurrent_layer_in_a_loop_goes_in_dynamic_int8(inputs, tmp_path):
    report = kp.export_tflite(
        recurrent("LSTM"), tmp_path / "model.tflite", "dynamic_int8", False, data=inputs, batch_size=1
    )
    assert report.relative_difference < 0.1


def stateful(**kwargs):
    inputs = keras.Input((2, 5), batch_size=1)
    return keras.Sequential([inputs, layers.Bidirectional(layers.LSTM(3, **kwargs)), layers.Dense(2)])


STATEFUL = r"stateful=False.*Received: .*stateful layers \['backward_lstm.*forward_lstm"


@needs_tensorflow
def test_a_stateful_layer_is_named_as_what_stands_in_the_way_of_a_tflite_file(inputs, tmp_path):
    with pytest.raises(ValueError, match=STATEFUL):
        kp.export_tflite(stateful(stateful=True), tmp_path / "model.tflite", data=inputs, batch_size=1)


@needs_xla
def test_a_stateful_layer_is_named_as_what_stands_in_the_way_of_xla(inputs, tmp_path):
    with pytest.raises(ValueError, match=STATEFUL):
        kp.export_xla(stateful(stateful=True), tmp_path, data=inputs)


def test_a_layer_without_state_takes_the_weights_of_a_stateful_one(inputs):
    model, without = stateful(stateful=True), stateful()
    without.set_weights(model.get_weights())
    first = inputs[:1]
    np.testing.assert_array_equal(*(keras.ops.convert_to_numpy(each(first)) for each in (model, without)))


def sparse(kernel):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4, name="fc")])
    return kp.to_sparse(keras.Sequential([keras.Input((8,)), model]), kernel, verbose=0)


SPARSE = r"as it was before to_sparse\. Received: .*sparse layers \['fc'\]"


@needs_tensorflow
@pytest.mark.parametrize("kernel", ["csr", "coo"])
def test_sparse_layers_are_refused_in_a_tflite_file(kernel, tmp_path):
    with pytest.raises(ValueError, match=SPARSE):
        kp.export_tflite(sparse(kernel), tmp_path / "model.tflite")


@needs_xla
@pytest.mark.parametrize("kernel", ["csr", "coo"] if BACKEND == "tensorflow" else ["csr"])
def test_sparse_layers_whose_kernels_xla_does_not_compile_are_refused(kernel, tmp_path):
    with pytest.raises(ValueError, match=SPARSE):
        kp.export_xla(sparse(kernel), tmp_path)


@needs_xla
@pytest.mark.parametrize("kernel", ["ell"] if BACKEND == "tensorflow" else ["ell", "coo"])
def test_sparse_layers_whose_kernels_xla_compiles_are_exported(kernel, tmp_path):
    assert kp.export_xla(sparse(kernel), tmp_path, ["stablehlo"]).differences["stablehlo"] < 1e-5
