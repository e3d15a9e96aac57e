"""Files are read and run here with LiteRT itself, not with the helpers that export_tflite uses."""

import importlib.util
import os
import pathlib
import subprocess

import keras
import numpy as np
import pytest
from helpers import array, assert_same, density, refill

import keras_prune as kp
from keras_prune.export import tflite

needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="the converter is TensorFlow's, and files are tried in ai-edge-litert",
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
def test_the_file_computes_what_the_model_computes_and_is_smaller_by_its_zeros(model, path):
    report = kp.export_tflite(model, path)
    inputs = np.random.default_rng(2).random((5, 64), "float32")

    (outputs,) = run(path, pixels=inputs).values()
    np.testing.assert_allclose(outputs, model(inputs), rtol=1e-5, atol=1e-5)
    assert only(path)
    assert report.bytes == path.stat().st_size < 0.6 * report.dense_bytes
    assert report.float32_bytes == 4 * (64 * 32 + 32) < report.dense_bytes
    assert report.gzip_bytes < report.dense_bytes
    assert report.relative_difference < 1e-5 < report.tolerance
    assert report.not_sparse == ""
    (row,) = report.rows
    assert (row.name, row.shape, row.encoding, row.sparse_kernel) == ("fc", (64, 32), "sparse", None)
    assert row.density == pytest.approx(np.count_nonzero(model.get_weights()[0]) / (64 * 32))
    assert "DENSIFY" in row.reason
    assert report.ops == ["DENSIFY", "FULLY_CONNECTED"]
    for text in ("fc", "FULLY_CONNECTED", f"{report.bytes:,}", f"{report.gzip_bytes:,}", row.reason[:30]):
        assert text in str(report)


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
@pytest.mark.parametrize("weights", ["float32", "float16", "dynamic_int8", "full_int8"])
def test_zeros_stay_zeros_in_every_format_of_weights(weights, path):
    mask = random_mask(128, 64)
    data = np.random.default_rng(2).random((32, 128), "float32")
    report = kp.export_tflite(dense(mask), path, weights, sparse=False, data=data)
    stored = report.rows[0].stored
    assert stored.dtype == {"float32": "float32", "float16": "float16"}.get(weights, "int8")
    assert not np.any(stored.values[~mask.T])
    assert np.count_nonzero(stored.values) > 0.95 * np.count_nonzero(mask)
    assert report.relative_difference < 0.02
    assert report.samples == 8


@needs_tensorflow
@pytest.mark.parametrize(("block", "weights"), [(4, "float32"), (16, "full_int8")])
def test_blocks_along_the_input_axis_meet_a_sparse_kernel(block, weights, path):
    data = np.random.default_rng(2).random((32, 128), "float32")
    report = kp.export_tflite(dense(random_mask(128, 64, block)), path, weights, sparse=True, data=data)
    (row,) = report.rows
    assert (row.encoding, row.sparse_kernel, row.reason) == (f"blocks of {block}", "LiteRT", "")
    assert "DENSIFY" not in report.ops


MISREAD = {
    "unstructured dynamic_int8": (random_mask(64, 32), "dynamic_int8", "the runtime refuses the file"),
    "4x1 float16": (random_mask(64, 32, 4), "float16", "differs by nan"),
    "16x1 dynamic_int8": (random_mask(64, 32, 16), "dynamic_int8", "output 'output_0' differs"),
    "4x1 with 30 inputs": (random_mask(30, 32, 4), "float32", r"no multiple of the block, here \[30\]"),
}


@needs_tensorflow
@pytest.mark.parametrize(("mask", "weights", "reason"), MISREAD.values(), ids=MISREAD)
def test_a_sparse_file_that_the_runtime_misreads_is_an_error_and_no_file(mask, weights, reason, path):
    path.write_text("what was there before")
    with pytest.raises(ValueError, match=f"(?s)sparse=False.*weights={weights!r}.*{reason}"):
        kp.export_tflite(dense(mask), path, weights, sparse=True)
    assert only(path)
    assert path.read_text() == "what was there before"


@needs_tensorflow
def test_by_default_a_sparse_file_that_the_runtime_misreads_gives_way_to_a_dense_one(path):
    report = kp.export_tflite(dense(random_mask(30, 32, 4)), path)
    assert "no multiple of the block, here [30]" in report.not_sparse
    assert report.bytes == report.dense_bytes == path.stat().st_size
    assert (report.rows[0].encoding, report.rows[0].sparse_kernel) == ("dense", None)
    assert "not sparsely encoded" in str(report)


@needs_tensorflow
@pytest.mark.parametrize(
    ("mask", "weights", "reason"),
    [(np.ones((64, 32), bool), "float32", "30% zeros"), (random_mask(512, 32, 1, 0.6), "float16", "would take")],
)
def test_sparse_encoding_that_saves_nothing_is_not_used(mask, weights, reason, path):
    report = kp.export_tflite(dense(mask), path, weights)
    assert reason in report.not_sparse
    assert report.bytes == report.dense_bytes


@needs_tensorflow
def test_without_sparse_encoding_the_zeros_are_stored(model, path):
    report = kp.export_tflite(model, path, sparse=False)
    assert report.bytes == report.dense_bytes
    assert report.not_sparse == "sparse=False"
    assert report.ops == ["FULLY_CONNECTED"]


@needs_tensorflow
def test_outputs_that_differ_are_an_error_that_names_the_weights_and_no_file(model, path):
    with pytest.raises(ValueError, match=r"(?s)weights='float16'.*output_0.*differs.*Received: .*tolerance=1e-07"):
        kp.export_tflite(model, path, "float16", tolerance=1e-7)
    assert not list(path.parent.iterdir())


@needs_tensorflow
def test_a_runtime_that_crashes_on_the_file_is_an_error(model, path, monkeypatch):
    crash = subprocess.CompletedProcess([], -11, "", "")
    monkeypatch.setattr(tflite.subprocess, "run", lambda *args, **kwargs: crash)
    with pytest.raises(ValueError, match="crashes on the file \\(SIGSEGV\\)"):
        kp.export_tflite(model, path)
    assert not list(path.parent.iterdir())


@needs_tensorflow
def test_a_converter_that_fails_is_an_error_and_no_file(model, path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("no such operator\nsecond line")

    monkeypatch.setattr(keras.Sequential, "export", fail)
    with pytest.raises(ValueError, match=r"failed with: no such operator second line\. Received"):
        kp.export_tflite(model, path)
    assert not list(path.parent.iterdir())


@needs_tensorflow
def test_the_reason_that_keras_puts_on_a_later_line_is_in_the_message(path):
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2, name="fc 1")])
    with pytest.raises(ValueError, match=r"failed with: .*'fc 1' is not a valid (root )?scope name.* Received: model="):
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
    # Both have the same shape; where their zeros are tells them apart.
    for name in ("left", "right"):
        kernel = np.asarray(model.get_layer(name).kernel)
        assert rows[name].density == np.count_nonzero(kernel) / kernel.size
        assert np.count_nonzero(rows[name].stored.values) == np.count_nonzero(kernel)


@needs_tensorflow
@pytest.mark.parametrize("name", ["file", "allow_pickle", "args"])
def test_an_input_and_an_output_can_have_any_name(name, path):
    inputs = keras.Input((4,), name=name)
    model = keras.Model(inputs, {name: layers.Dense(2)(inputs)})
    kp.export_tflite(model, path, sparse=False)
    (array,) = run(path, **{name: np.ones((1, 4), "float32")}).values()
    np.testing.assert_allclose(array, model(np.ones((1, 4)))[name], rtol=1e-5, atol=1e-6)


@needs_tensorflow
def test_data_is_taken_by_the_names_of_inputs_and_by_their_structure(path):
    left, right = keras.Input((4,), name="left"), keras.Input((4, 2), name="right")
    model = keras.Model([left, right], layers.Dot(1)([left, right]))
    random = np.random.default_rng(2)
    arrays = random.random((3, 4)), random.random((3, 4, 2))
    for data in ({"right": arrays[1], "left": arrays[0]}, arrays, list(arrays)):
        assert kp.export_tflite(model, path, sparse=False, data=data).samples == 3


@needs_tensorflow
@pytest.mark.parametrize(
    "data", [np.ones((4, 63)), np.ones((0, 64)), np.ones(64), [np.ones((4, 64))] * 2, {"other": np.ones(3)}, 1.0]
)
def test_data_of_other_shapes_is_refused(data, model, path):
    with pytest.raises(ValueError, match=r"data must be inputs as model.predict takes them.*\(None, 64\)"):
        kp.export_tflite(model, path, data=data)


@needs_tensorflow
def test_a_recurrent_layer_takes_a_batch_size(path):
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4, name="lstm")])
    with pytest.raises(ValueError, match=r"Select TensorFlow op.*where a batch_size is given"):
        kp.export_tflite(model, path)
    report = kp.export_tflite(model, path, batch_size=1)
    assert [(row.name, row.stored.op) for row in report.rows] == [
        ("lstm/lstm_cell/kernel", "FULLY_CONNECTED"),
        ("lstm/lstm_cell/recurrent_kernel", "FULLY_CONNECTED"),
    ]


@needs_tensorflow
def test_a_batch_size_is_fixed_in_the_file(model, path):
    from ai_edge_litert.interpreter import Interpreter

    report = kp.export_tflite(model, path, batch_size=3)
    assert list(Interpreter(str(path)).get_input_details()[0]["shape_signature"]) == [3, 64]
    assert report.samples == 6
    with pytest.raises(ValueError, match=r"hold a batch at least\. Received: batch_size=3 and 2 inputs"):
        kp.export_tflite(model, path, batch_size=3, data=np.ones((2, 64)))


@needs_tensorflow
def test_inputs_of_any_size_take_data(path):
    model = keras.Sequential([keras.Input((None, 3)), layers.Dense(4)])
    with pytest.raises(ValueError, match=r"inputs of any size; data=inputs.*\(None, None, 3\)"):
        kp.export_tflite(model, path)
    assert kp.export_tflite(model, path, data=np.ones((2, 5, 3))).samples == 2


class TwoBranches(keras.Model):
    def __init__(self):
        super().__init__()
        self.left, self.right = layers.Dense(8, name="left"), layers.Dense(8, name="right")

    def call(self, inputs):
        return self.left(inputs["one"]) + self.right(inputs["two"])


@needs_tensorflow
def test_a_subclassed_model_takes_data(path):
    random = np.random.default_rng(0)
    data = {"two": random.random((4, 64)), "one": random.random((4, 32))}
    model = TwoBranches()
    expected = model(data)
    model = kp.prune(model, kp.TargetSparsity(0.9))
    with pytest.raises(ValueError, match=r"data=inputs shows it.*TwoBranches"):
        kp.export_tflite(model, path)
    report = kp.export_tflite(model, path, data=data)
    assert report.samples == 4
    assert [row.name for row in report.rows] == ["left", "right"]
    outputs = run(path, **{name: array.astype("float32") for name, array in data.items()})
    np.testing.assert_allclose(outputs["output_0"], expected, rtol=1e-4, atol=1e-5)


@needs_tensorflow
def test_a_model_whose_own_outputs_are_not_finite_takes_data(path):
    model = keras.Sequential([keras.Input((3,)), layers.Rescaling(-1.0), layers.Lambda(keras.ops.sqrt)])
    with pytest.raises(ValueError, match=r"own outputs must be finite.*\['output_0'\]"):
        kp.export_tflite(model, path)


@needs_tensorflow
def test_a_model_that_keras_has_quantized_is_refused_with_the_way_to_go(model, path):
    model.quantize("int8")
    with pytest.raises(ValueError, match=r"weights='dynamic_int8'.*quantized layers \['fc'\]"):
        kp.export_tflite(model, path)


@needs_tensorflow
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "model.lite"}, "must end in .tflite. Received: path='model.lite'"),
        ({"weights": "int4"}, "weights must be one of .*'full_int8'.*weights='int4'"),
        ({"sparse": "auto"}, "sparse must be True, False, or None.*sparse='auto'"),
        ({"weights": "full_int8"}, "pass some hundred of them as data.*data=None"),
        ({"weights": ["float16"]}, "weights must be one of"),
        ({"tolerance": "small"}, "tolerance must be .*tolerance='small'"),
        ({"tolerance": -1}, "tolerance must be .*tolerance=-1"),
        ({"tolerance": float("nan")}, "tolerance must be .*tolerance=nan"),
        ({"batch_size": 0}, "batch_size must be an integer of at least 1.*batch_size=0"),
        ({"batch_size": 2.0}, "batch_size must be .*batch_size=2.0"),
    ],
)
def test_arguments_out_of_range_are_named(arguments, message, model):
    with pytest.raises(ValueError, match=message):
        kp.export_tflite(model, **{"path": "model.tflite"} | arguments)


@needs_tensorflow
@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_a_link_stays_a_link(model, path):
    link = path.with_name("link.tflite")
    link.symlink_to(path)
    kp.export_tflite(model, link, sparse=False)
    assert link.is_symlink()
    assert path.stat().st_size > 0


@needs_tensorflow
def test_a_missing_folder_is_a_file_not_found(model, path):
    with pytest.raises(FileNotFoundError):
        kp.export_tflite(model, path.parent / "none" / "model.tflite")


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow can export")
def test_another_backend_is_told_how_to_export(model, path):
    with pytest.raises(ValueError, match=f"KERAS_BACKEND=tensorflow.*backend='{keras.backend.backend()}'"):
        kp.export_tflite(model, path)


@needs_tensorflow
def test_a_missing_runtime_is_named(model, path, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if "litert" in name else find_spec(name))
    with pytest.raises(ImportError, match="pip install ai-edge-litert"):
        kp.export_tflite(model, path)


def test_the_runner_is_a_script_that_does_not_import_the_package():
    code = (pathlib.Path(tflite.__file__).parent / "litert_runner.py").read_text()
    assert "keras" not in code
