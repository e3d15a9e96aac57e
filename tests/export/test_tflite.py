"""Files are read and run with LiteRT itself, not with the functions that export_tflite uses."""

import importlib.util
import json
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest
from helpers import array, assert_same, density, refill

import keras_prune as kp
from keras_prune.export import litert

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="TensorFlow's converter writes the files, and ai-edge-litert runs them",
)
layers = keras.layers


def dense(mask):
    """A model of one Dense layer with the connections of a mask of shape (inputs, units)."""
    model = keras.Sequential([keras.Input((len(mask),), name="pixels"), layers.Dense(mask.shape[1], name="fc")])
    random = np.random.default_rng(0)
    model.set_weights([np.where(mask, random.standard_normal(mask.shape), 0), random.standard_normal(mask.shape[1])])
    return model


def random_mask(inputs, units, block=1, density=0.2):
    return np.repeat(np.random.default_rng(1).random((-(-inputs // block), units)) < density, block, axis=0)[:inputs]


@pytest.fixture
def model():
    return dense(random_mask(64, 32))


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.tflite"


def run(path, **inputs):
    from ai_edge_litert.interpreter import Interpreter

    return Interpreter(str(path)).get_signature_runner()(**inputs)


def only(path):
    return os.listdir(path.parent) == [path.name]


@needs_tensorflow
def test_file_has_the_outputs_of_the_model_without_its_zeros(model, path):
    report = kp.export_tflite(model, path)
    inputs = np.random.default_rng(2).random((5, 64), "float32")

    (outputs,) = run(path, pixels=inputs).values()
    np.testing.assert_allclose(outputs, model(inputs), rtol=1e-5, atol=1e-5)
    assert only(path)
    assert report.bytes == path.stat().st_size < 0.6 * report.dense_bytes
    assert report.float32_bytes == 4 * (64 * 32 + 32) < report.dense_bytes
    assert report.gzip_bytes < report.dense_bytes
    assert report.relative_difference < 1e-5 < report.tolerance
    assert report.dense_because == ""
    (row,) = report.rows
    assert (row.name, row.shape, row.encoding, row.sparse_kernel) == ("fc", (64, 32), "sparse", None)
    assert row.density == pytest.approx(np.count_nonzero(model.get_weights()[0]) / (64 * 32))
    assert "DENSIFY" in row.reason
    assert report.ops == ["DENSIFY", "FULLY_CONNECTED"]
    for text in ("fc", "FULLY_CONNECTED", f"{report.bytes:,}", f"{report.gzip_bytes:,}", row.reason[:30]):
        assert text in str(report)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["rows"] == [row.to_dict() | {"shape": [64, 32]}]
    assert {**values, "rows": report.rows} == vars(report)
    assert repr(report) == f"<TFLiteReport path={str(path)!r}, bytes={report.bytes}, dense_bytes={report.dense_bytes}>"


@needs_tensorflow
@pytest.mark.parametrize("wrap", [False, True])
def test_pruned_model_is_exported_plain_and_stays_pruned(model, path, wrap):
    if wrap:
        model = keras.Sequential([keras.Input((64,)), kp.Prune(layers.Dense(32, name="fc"), kp.TargetSparsity(0.9))])
    else:
        model = kp.prune(model, kp.TargetSparsity(0.9))
    kp.cut(model)
    inputs = np.random.default_rng(0).random((3, 64), "float32")
    expected = array(model(inputs))
    report = kp.export_tflite(model, path)
    assert report.rows[0].density == pytest.approx(0.1, abs=0.01)
    assert set(report.ops) <= {"DENSIFY", "FULLY_CONNECTED"}  # No mask is left to select by.
    assert density(model) == pytest.approx(0.1, abs=0.01)
    refill(model)  # Its hooks still hide what an optimizer writes into pruned connections.
    assert_same(model(inputs), expected)


@needs_tensorflow
@pytest.mark.parametrize(
    ("quantization", "dtype"),
    [
        (None, "float32"),
        ("float16", "float16"),
        *((name, "int8") for name in ("dynamic_int8", "full_int8", "int8_only")),
    ],
)
def test_quantization_keeps_zeros(quantization, dtype, path):
    mask = random_mask(128, 64)
    x = np.random.default_rng(2).random((32, 128), "float32")
    report = kp.export_tflite(dense(mask), path, quantization, sparse=False, x=x)
    stored = report.rows[0].stored
    assert stored.dtype == dtype
    assert not np.any(stored.values[~mask.T])
    assert np.count_nonzero(stored.values) > 0.95 * np.count_nonzero(mask)
    assert report.relative_difference < 0.02
    assert report.samples == 8


@needs_tensorflow
@pytest.mark.parametrize(("block", "quantization"), [(4, None), (16, "full_int8")])
def test_blocks_along_the_input_axis_run_in_a_sparse_kernel(block, quantization, path):
    x = np.random.default_rng(2).random((32, 128), "float32")
    report = kp.export_tflite(dense(random_mask(128, 64, block)), path, quantization, sparse=True, x=x)
    (row,) = report.rows
    assert (row.encoding, row.sparse_kernel, row.reason) == (f"blocks of {block}", "LiteRT", "")
    assert "DENSIFY" not in report.ops


MISREAD = {
    "unstructured dynamic_int8": (random_mask(64, 32), "dynamic_int8", "the runtime rejects the file"),
    "4x1 float16": (random_mask(64, 32, 4), "float16", "differs by nan"),
    "16x1 dynamic_int8": (random_mask(64, 32, 16), "dynamic_int8", "output 'output_0' differs"),
    "4x1 with 30 inputs": (random_mask(30, 32, 4), None, r"not a multiple of the block: \[30\]"),
}


@needs_tensorflow
@pytest.mark.parametrize(("mask", "quantization", "reason"), MISREAD.values(), ids=MISREAD)
def test_sparse_true_rejects_files_that_litert_misreads(mask, quantization, reason, path):
    path.write_text("older")
    with pytest.raises(ValueError, match=f"(?s)with sparse=False, but .*{reason}.*quantization={quantization!r}"):
        kp.export_tflite(dense(mask), path, quantization, sparse=True)
    assert only(path)
    assert path.read_text() == "older"


@needs_tensorflow
def test_sparse_auto_is_dense_if_litert_misreads_the_sparse_file(path):
    report = kp.export_tflite(dense(random_mask(30, 32, 4)), path)
    assert "not a multiple of the block: [30]" in report.dense_because
    assert report.bytes == report.dense_bytes == path.stat().st_size
    assert (report.rows[0].encoding, report.rows[0].sparse_kernel) == ("dense", None)
    assert "not sparsely encoded" in str(report)


@needs_tensorflow
@pytest.mark.parametrize(
    ("mask", "quantization", "reason"),
    [(np.ones((64, 32), bool), None, "30% zeros"), (random_mask(512, 32, 1, 0.6), "float16", "would take")],
)
def test_sparse_auto_is_dense_if_nothing_is_saved(mask, quantization, reason, path):
    report = kp.export_tflite(dense(mask), path, quantization)
    assert reason in report.dense_because
    assert report.bytes == report.dense_bytes


@needs_tensorflow
def test_sparse_false_stores_zeros(model, path):
    report = kp.export_tflite(model, path, sparse=False)
    assert report.bytes == report.dense_bytes
    assert report.dense_because == "sparse=False"
    assert report.ops == ["FULLY_CONNECTED"]


@needs_tensorflow
def test_tolerance_is_compared_with_the_real_outputs(model, path):
    with pytest.raises(ValueError, match=r"(?s)output_0.*differs.*Received: quantization='float16'.*tolerance=1e-07"):
        kp.export_tflite(model, path, "float16", tolerance=1e-7)
    assert not list(path.parent.iterdir())


@needs_tensorflow
def test_crash_of_litert_is_an_error(model, path, monkeypatch):
    crash = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(litert.subprocess, "run", lambda *args, **kwargs: crash)
    with pytest.raises(ValueError, match="crashes on the file \\(SIGSEGV\\)"):
        kp.export_tflite(model, path)
    assert not list(path.parent.iterdir())


@needs_tensorflow
def test_failure_of_the_converter_is_an_error(model, path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such operator\nsecond line")

    monkeypatch.setattr(keras.Sequential, "export", fail)
    with pytest.raises(ValueError, match=r"converter fails with: no such operator second line\. .*Received"):
        kp.export_tflite(model, path)
    assert not list(path.parent.iterdir())


@pytest.fixture
def no_sparse_conversion(monkeypatch):
    def export(self, *args, optimizations, **kwargs):
        import tensorflow as tf

        if tf.lite.Optimize.EXPERIMENTAL_SPARSITY in optimizations:
            raise RuntimeError("no sparse version")
        original(self, *args, optimizations=optimizations, **kwargs)

    original = keras.Sequential.export
    monkeypatch.setattr(keras.Sequential, "export", export)


@needs_tensorflow
def test_sparse_auto_is_dense_if_the_sparse_conversion_fails(model, path, no_sparse_conversion):
    report = kp.export_tflite(model, path)
    assert "does not work here: TensorFlow's converter fails with: no sparse version" in report.dense_because
    assert report.bytes == report.dense_bytes == path.stat().st_size
    with pytest.raises(ValueError, match=r"with sparse=False, but .*no sparse version.*Received: .*sparse=True"):
        kp.export_tflite(model, path, sparse=True)
    assert only(path)


@needs_tensorflow
def test_error_has_the_reason_on_later_lines_of_keras(path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="fc 1")])
    with pytest.raises(
        ValueError, match=r"fails with: .*'fc 1' is not a valid (root )?scope name.* Received: quantization=None"
    ):
        kp.export_tflite(model, path)


def several_inputs_and_outputs():
    image, ids = keras.Input((8, 8, 3), name="an image"), keras.Input((4,), dtype="int32", name="ids")
    features = layers.SeparableConv2D(6, 3, name="separable")(layers.Conv2D(8, 3, use_bias=False, name="conv")(image))
    features = layers.GlobalAveragePooling2D()(layers.BatchNormalization()(features))
    words = layers.Flatten()(layers.Embedding(9, 4, name="embedding")(ids))
    both = layers.Concatenate()([features, words])
    outputs = {"second": layers.Dense(3, name="left")(both), "first": layers.Dense(3, name="right")(both)}
    model = keras.Model({"ids": ids, "an image": image}, outputs)
    kernels = [weight for weight in model.weights if len(weight.shape) > 1]
    random = np.random.default_rng(0)
    for kernel in kernels:
        kernel.assign(random.standard_normal(kernel.shape) * (random.random(kernel.shape) < 0.4))
    return model


@needs_tensorflow
def test_several_inputs_and_outputs_keep_their_names(path):
    model = several_inputs_and_outputs()
    report = kp.export_tflite(model, path)
    random = np.random.default_rng(2)
    ids, image = random.integers(0, 9, (1, 4), "int32"), random.random((1, 8, 8, 3), "float32")
    outputs = run(path, ids=ids, an_image=image)
    expected = model({"ids": ids, "an image": image})
    assert set(outputs) == {"first", "second"}
    for name, output in outputs.items():
        np.testing.assert_allclose(output, expected[name], rtol=1e-4, atol=1e-5)
    rows = {row.name: row for row in report.rows}
    assert rows["conv"].stored.op == "CONV_2D"
    assert rows["separable/depthwise_kernel"].stored.op == "DEPTHWISE_CONV_2D"
    assert rows["embedding"].stored.op == "GATHER"
    # Both have the same shape, and zeros in other places.
    for name in ("left", "right"):
        kernel = np.asarray(model.get_layer(name).kernel)
        assert rows[name].density == np.count_nonzero(kernel) / kernel.size
        assert np.count_nonzero(rows[name].stored.values) == np.count_nonzero(kernel)


@needs_tensorflow
@pytest.mark.parametrize("name", ["file", "allow_pickle", "args"])
def test_inputs_and_outputs_can_have_any_name(name, path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, {name: layers.Dense(2)(inputs)})
    kp.export_tflite(model, path, sparse=False)
    (array,) = run(path, **{name: np.ones((1, 4), "float32")}).values()
    np.testing.assert_allclose(array, model(np.ones((1, 4)))[name], rtol=1e-5, atol=1e-6)


@needs_tensorflow
def test_x_can_be_a_dict_or_a_list(path):
    left, right = keras.Input((4,), name="left"), keras.Input((4, 2), name="right")
    model = keras.Model([left, right], layers.Dot(1)([left, right]))
    random = np.random.default_rng(2)
    arrays = random.random((3, 4)), random.random((3, 4, 2))
    for x in ({"right": arrays[1], "left": arrays[0]}, arrays, list(arrays)):
        assert kp.export_tflite(model, path, sparse=False, x=x).samples == 3


@needs_tensorflow
@pytest.mark.parametrize(
    "x",
    [np.ones((4, 63)), np.ones((0, 64)), np.ones(64), [np.ones((4, 64))] * 2, {"other": np.ones(3)}, 1.0, [["a"] * 64]],
)
def test_x_of_other_shapes_is_rejected(x, model, path):
    with pytest.raises(ValueError, match=r"`x` must hold inputs as `model.predict` takes them.*\(None, 64\)"):
        kp.export_tflite(model, path, x=x)


@needs_tensorflow
def test_recurrent_loops_require_a_batch_size(path):
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")])
    with pytest.raises(ValueError, match=r"Select TensorFlow op.*with a `batch_size`"):
        kp.export_tflite(model, path)
    report = kp.export_tflite(model, path, batch_size=1)
    assert [(row.name, row.stored.op) for row in report.rows] == [
        ("lstm/lstm_cell/kernel", "FULLY_CONNECTED"),
        ("lstm/lstm_cell/recurrent_kernel", "FULLY_CONNECTED"),
    ]


@needs_tensorflow
def test_batch_size_is_fixed_in_the_file(model, path):
    from ai_edge_litert.interpreter import Interpreter

    report = kp.export_tflite(model, path, batch_size=3)
    assert list(Interpreter(str(path)).get_input_details()[0]["shape_signature"]) == [3, 64]
    assert report.samples == 6
    with pytest.raises(ValueError, match=r"at least one batch\. Received: batch_size=3, x=2 inputs"):
        kp.export_tflite(model, path, batch_size=3, x=np.ones((2, 64)))


@needs_tensorflow
def test_inputs_of_any_size_require_x(path):
    model = keras.Sequential([keras.Input((None, 3)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"inputs of any size.*x=None.*\(None, None, 3\)"):
        kp.export_tflite(model, path)
    assert kp.export_tflite(model, path, x=np.ones((2, 5, 3))).samples == 2


class TwoBranches(keras.Model):
    def __init__(self):
        super().__init__()
        self.left, self.right = layers.Dense(8, name="left"), layers.Dense(8, name="right")

    def call(self, inputs):
        return self.left(inputs["one"]) + self.right(inputs["two"])


@needs_tensorflow
def test_subclassed_model_requires_x(path):
    random = np.random.default_rng(0)
    x = {"two": random.random((4, 64)), "one": random.random((4, 32))}
    model = TwoBranches()
    expected = model(x)
    model = kp.prune(model, kp.TargetSparsity(0.9))
    with pytest.raises(ValueError, match=r"Pass inputs as `x`.*x=None.*TwoBranches"):
        kp.export_tflite(model, path)
    report = kp.export_tflite(model, path, x=x)
    assert report.samples == 4
    assert [row.name for row in report.rows] == ["left", "right"]
    outputs = run(path, **{name: array.astype("float32") for name, array in x.items()})
    np.testing.assert_allclose(outputs["output_0"], expected, rtol=1e-4, atol=1e-5)


@needs_tensorflow
def test_outputs_that_are_not_finite_are_rejected(path):
    model = keras.Sequential([keras.Input((3,)), layers.Rescaling(-1.0), layers.Lambda(keras.ops.sqrt)])
    with pytest.raises(ValueError, match=r"must be finite.*\['output_0'\]"):
        kp.export_tflite(model, path)


@needs_tensorflow
def test_model_quantized_by_keras_is_rejected(model, path):
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"quantization='dynamic_int8'.*quantized layers \['fc'\]"):
        kp.export_tflite(model, path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"filepath": "model.lite"}, "`filepath` must end in .tflite. Received: filepath='model.lite'"),
        ({"quantization": "int4"}, "`quantization` must be one of .*'full_int8'.*quantization='int4'"),
        ({"quantization": ["float16"]}, "`quantization` must be one of"),
        ({"quantization": "full_int8"}, "Pass some hundred of them as `x`.*x=None"),
        ({"quantization": "int8_only"}, "Pass some hundred of them as `x`.*x=None"),
        ({"sparse": None}, "`sparse` must be True, False or 'auto'. Received: sparse=None"),
        ({"sparse": 1}, "`sparse` must be .*sparse=1"),
    ],
)
def test_export_tflite_rejects_invalid_arguments(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        kp.export_tflite(model, **{"filepath": "model.tflite"} | arguments)


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can export")
def test_export_tflite_requires_tensorflow(model, path):
    with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow.*backend='{keras.backend.backend()}'"):
        kp.export_tflite(model, path)


@needs_tensorflow
def test_export_tflite_requires_litert(model, path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "litert" in name else find_spec(name))
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        kp.export_tflite(model, path)


def test_litert_runner_does_not_import_the_package():
    code = (pathlib.Path(litert.__file__).parent / "litert_runner.py").read_text()
    assert "keras" not in code
