"""Exports are read as a user reads them, not with the functions that export_xla uses."""

import importlib.metadata
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import array, refill

import keras_prune as kp

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="these formats need TensorFlow")
needs_xla = pytest.mark.skipif(BACKEND == "torch", reason="XLA does not compile PyTorch here")
ROOT = Path(__file__).parents[2]


@pytest.fixture
def model():
    model = keras.Sequential(
        [
            keras.Input((16,), name="pixels"),
            keras.layers.Dense(32, "relu", name="fc1"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(4, name="fc2"),
        ]
    )
    model = kp.prune(model, kp.TargetSparsity(0.75))
    kp.cut(model)
    return model


@pytest.fixture
def inputs():
    return np.random.default_rng(0).random((3, 16), "float32")


def outputs_of(model, inputs):
    return array(model(inputs, training=False))


@needs_tensorflow
def test_saved_model_serves_any_batch_through_xla(model, inputs, tmp_path):
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    report = kp.export_xla(model, tmp_path / "saved")
    assert os.listdir(tmp_path) == ["saved"]
    loaded = tf.saved_model.load(report.path)
    np.testing.assert_allclose(loaded.serve(inputs), outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    content = saved_model_pb2.SavedModel.FromString((tmp_path / "saved/saved_model.pb").read_bytes())
    functions = content.meta_graphs[0].graph_def.library.function
    assert any(function.attr["_XlaMustCompile"].b for function in functions if "_XlaMustCompile" in function.attr)
    assert report.relative_difference < 1e-5
    assert (tmp_path / "saved/variables/variables.data-00000-of-00001").stat().st_size < 1.5 * 4 * 676
    assert report.bytes == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())


@needs_tensorflow
@pytest.mark.parametrize("wrap", [False, True])
def test_saved_model_of_pruned_model_has_no_masks(wrap, tmp_path):
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    fc = keras.layers.Dense(8, "relu", name="fc1")
    layers = [
        kp.Prune(fc, kp.TargetSparsity(0.75)) if wrap else fc,
        keras.layers.Dropout(0.5),
        keras.layers.Conv1D(4, 3, name="conv"),
    ]
    model = kp.prune(keras.Sequential([keras.Input((5, 16)), *layers]), kp.TargetSparsity(0.75))
    kp.cut(model)
    inputs = np.random.default_rng(0).random((2, 5, 16), "float32")
    # The model itself selects by its masks with `ops.where`. The exports do not.
    masked = tf.function(model).get_concrete_function(tf.constant(inputs)).graph.as_graph_def()
    assert "SelectV2" in {node.op for node in masked.node}
    expected = outputs_of(model, inputs)
    kp.export_xla(model, tmp_path / "saved")
    model.export(tmp_path / "of_keras", verbose=False)
    for folder in (tmp_path / "saved", tmp_path / "of_keras"):
        loaded = tf.saved_model.load(folder)
        np.testing.assert_allclose(loaded.serve(inputs), expected, rtol=1e-5, atol=1e-6)
        stored = tf.train.load_checkpoint(folder / "variables/variables").get_variable_to_dtype_map()
        assert tf.float32 in stored.values()
        assert tf.bool not in stored.values()
        graph = saved_model_pb2.SavedModel.FromString((folder / "saved_model.pb").read_bytes()).meta_graphs[0].graph_def
        nodes = [*graph.node, *(node for function in graph.library.function for node in function.node_def)]
        operations = {node.op for node in nodes}
        assert "MatMul" in operations
        assert "SelectV2" not in operations
    assert len(kp.layers.pruned_weights(model)) == 2  # The model is as it was.
    refill(model)
    np.testing.assert_array_equal(outputs_of(model, inputs), expected)


@needs_tensorflow
def test_stablehlo_runs_in_tensorflow(model, inputs, tmp_path):
    from tensorflow.compiler.tf2xla.python import xla as tf2xla

    report = kp.export_xla(model, tmp_path / "model.stablehlo", "stablehlo", batch_size=3)
    module = Path(report.path).read_bytes()
    (outputs,) = tf2xla.call_module(
        [inputs], version=9, module=module, Tout=["float32"], Sout=[(3, 4)], platforms=["CPU"]
    )
    np.testing.assert_allclose(outputs, outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    assert report.bytes > 4 * (16 * 32 + 32 * 4)  # All weights are inside, including zeros.
    assert report.samples == 6
    assert "model.stablehlo" in str(report)
    assert json.loads(json.dumps(report.to_dict())) == vars(report)
    assert repr(report) == f"<XLAReport path={report.path!r}, format='stablehlo', bytes={report.bytes}>"


@pytest.mark.skipif(BACKEND != "jax", reason="jax.export needs JAX")
def test_stablehlo_runs_in_jax(model, inputs, tmp_path):
    import jax

    kp.export_xla(model, tmp_path / "model.stablehlo", "stablehlo", batch_size=3)
    exported = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    np.testing.assert_allclose(exported.call(inputs)[0], outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    assert len(exported.in_avals) == 1


@needs_xla
def test_stablehlo_keeps_order_of_inputs_and_outputs(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), dtype="int32", name="right")
    words = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(right))
    outputs = {"z": keras.layers.Dense(2)(left), "a": keras.layers.Dense(3)(words)}
    report = kp.export_xla(keras.Model([left, right], outputs), tmp_path / "model", "stablehlo")
    assert report.relative_difference < 1e-5


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ compiles the program")
def test_ahead_of_time_runs_in_cpp_program(model, tmp_path):
    report = kp.export_xla(model, tmp_path / "compiled", "ahead_of_time")
    assert report.difference is None
    assert report.relative_difference is None
    assert "once it is linked" in str(report)
    folder = Path(report.path)
    assert {file.name for file in folder.iterdir()} == {"model.h", "model.o", "model_constants.o"}

    tensorflow = importlib.metadata.distribution("tensorflow").locate_file("tensorflow")
    script = ROOT / "examples/ahead_of_time/build.sh"
    program = tmp_path / "program"
    command = ["bash", str(script), str(tensorflow), str(folder), str(program)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-3000:]

    inputs = np.random.default_rng(0).random((1, 16), "float32")
    inputs.tofile(tmp_path / "inputs")
    subprocess.run([program, tmp_path / "inputs", tmp_path / "outputs"], check=True)
    outputs = np.fromfile(tmp_path / "outputs", "float32")
    np.testing.assert_allclose(outputs, outputs_of(model, inputs)[0], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@needs_tensorflow
def test_ahead_of_time_header_uses_names_alone(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    outputs = [keras.layers.Dense(2)(left), keras.layers.Dense(2)(right)]
    kp.export_xla(keras.Model([left, right], outputs), tmp_path / "compiled", "ahead_of_time")
    header = (tmp_path / "compiled/model.h").read_text()
    methods = set(re.findall(r"^  .*?((?:set_)?(?:arg|result)\w*)\(.*\{$", header, re.M))
    kinds = ("{}", "{}_data", "{}_size", "{}_count")
    names = ("arg_feed_left", "arg_feed_right", "result_fetch_output_0", "result_fetch_output_1")
    setters = {"set_arg_feed_left_data", "set_arg_feed_right_data"}
    assert methods == {kind.format(name) for kind in kinds for name in names} | setters
    assert header.count("{") == header.count("}")


@needs_tensorflow
def test_saved_model_replaces_an_earlier_one_and_nothing_else(model, tmp_path):
    (tmp_path / "folder").mkdir()
    for _ in range(2):
        kp.export_xla(model, tmp_path / "folder")
    (tmp_path / "folder" / "photos").write_text("")
    with pytest.raises(ValueError, match=r"holds more than an earlier export: \['photos'\]"):
        kp.export_xla(model, tmp_path / "folder")
    assert os.listdir(tmp_path) == ["folder"]
    assert "photos" in os.listdir(tmp_path / "folder")


@needs_tensorflow
def test_export_xla_error_has_the_reason_on_later_lines_of_keras(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc 1")])
    with pytest.raises(ValueError, match=r"does not compile.*'fc 1' is not a valid .*scope name.*Received: model="):
        kp.export_xla(model, tmp_path / "model")


@pytest.mark.parametrize("format", ["hlo", ["stablehlo"], None])
def test_export_xla_rejects_unknown_formats(format, model, tmp_path):
    with pytest.raises(ValueError, match=rf"`format` must be one of .*{BACKEND}.*Received: format="):
        kp.export_xla(model, tmp_path / "model", format)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow writes it")
def test_saved_model_requires_tensorflow(model, tmp_path):
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=tensorflow.*Received: format='saved_model'"):
        kp.export_xla(model, tmp_path / "model")
