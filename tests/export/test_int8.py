"""8-bit activations, whose ranges are measured on inputs."""

import importlib.util
import warnings

import keras
import numpy as np
import pytest
from keras import layers

import keras_prune as kp

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="TensorFlow's converter writes the files, and ai-edge-litert runs them",
)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


@pytest.fixture
def model():
    """Two inputs, of which one stays an integer, and two outputs of other sizes."""
    keras.utils.set_random_seed(0)
    pixels, ids = keras.Input((6,), name="pixels"), keras.Input((2,), dtype="int32", name="ids")
    words = layers.Flatten()(layers.Embedding(9, 4)(ids))
    hidden = layers.Dense(8, "relu")(layers.Concatenate()([pixels, words]))
    return keras.Model([pixels, ids], {"small": layers.Dense(3)(hidden), "large": 50 * layers.Dense(2)(hidden)})


@pytest.fixture
def inputs():
    random = np.random.default_rng(0)
    return random.uniform(-1, 3, (64, 6)).astype("float32"), random.integers(0, 9, (64, 2)).astype("int32")


def interpreter(path):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path))


def test_int8_only_has_8_bit_inputs_and_outputs(model, inputs, path):
    report = kp.export_tflite(
        model, path, "int8_only", x=lambda: ([p[None], i[None]] for p, i in zip(*inputs, strict=True))
    )
    run = interpreter(path).get_signature_runner()
    taken, returned = run.get_input_details(), run.get_output_details()
    dtypes = {name: np.dtype(tensor["dtype"]).name for name, tensor in {**taken, **returned}.items()}
    assert dtypes == {"pixels": "int8", "ids": "int32", "small": "int8", "large": "int8"}

    scale, zero_point = taken["pixels"]["quantization"]
    quantized = np.clip(np.rint(inputs[0][:1] / scale) + zero_point, -128, 127).astype("int8")
    expected = model([array[:1] for array in inputs])
    for name, array in run(pixels=quantized, ids=inputs[1][:1]).items():
        scale, zero_point = returned[name]["quantization"]
        numbers = (array.astype(float) - zero_point) * scale
        np.testing.assert_allclose(numbers, expected[name], atol=0.1 * np.abs(expected[name]).max())
    assert 0 < report.relative_difference < 0.1


def test_int8_only_keeps_zeros_unless_asked(path):
    model = keras.Sequential([keras.Input((64,)), layers.Dense(32, use_bias=False)])
    kp.cut(kp.prune(model, kp.TargetSparsity(0.9, kp.Blocks((16, 1)))))
    x = np.random.default_rng(0).random((32, 64), "float32")
    encodings = [
        kp.export_tflite(model, path, quantization, sparse, x).rows[0].encoding
        for quantization, sparse in (("full_int8", "auto"), ("int8_only", "auto"), ("int8_only", True))
    ]
    assert encodings == ["blocks of 16", "dense", "blocks of 16"]


def test_full_int8_has_float_inputs_and_outputs(model, inputs, path):
    kp.export_tflite(model, path, "full_int8", x=list(inputs))
    details = interpreter(path).get_input_details() + interpreter(path).get_output_details()
    assert sorted(np.dtype(tensor["dtype"]).name for tensor in details) == ["float32", "float32", "float32", "int32"]


def test_int8_only_rejects_operators_without_8_bits(path):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.ops.erf(inputs))
    with pytest.raises(ValueError, match=r"'tf.Erf' op .*'full_int8' leaves others in float\. Received: .*int8_only"):
        kp.export_tflite(model, path, "int8_only", x=np.ones((32, 4)))


def test_few_inputs_to_calibrate_with_are_a_warning(path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    x = np.random.default_rng(0).random((32, 4))
    with pytest.warns(UserWarning, match=r"Pass some hundred inputs as `x`\. Received: x=1 inputs"):
        kp.export_tflite(model, path, "int8_only", x=iter([x[:1]]))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "8-bit activations")
        kp.export_tflite(model, path, "dynamic_int8", x=x[:1])
        kp.export_tflite(model, path, "full_int8", x=x)
