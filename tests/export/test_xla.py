"""What is written is read here as a user reads it, not with the helpers that export_xla uses."""

import importlib.metadata
import os
import re
import shutil
import subprocess
from pathlib import Path

import keras
import numpy as np
import pytest
from helpers import refill

import keras_prune as kp
from keras_prune.export import xla
from keras_prune.export.verification import VerificationError

BACKEND = keras.backend.backend()
needs_tensorflow = pytest.mark.skipif(BACKEND != "tensorflow", reason="TensorFlow's own formats")
needs_xla = pytest.mark.skipif(BACKEND == "torch", reason="Keras runs on PyTorch, which XLA does not compile here")
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
    return keras.ops.convert_to_numpy(model(inputs, training=False))


@needs_tensorflow
def test_a_saved_model_serves_any_batch_through_xla(model, inputs, tmp_path):
    import tensorflow as tf
    from tensorflow.core.protobuf import saved_model_pb2

    report = kp.export_xla(model, tmp_path, ["saved_model"])
    assert os.listdir(tmp_path) == ["saved_model"]
    loaded = tf.saved_model.load(report.paths["saved_model"])
    np.testing.assert_allclose(loaded.serve(inputs), outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    content = saved_model_pb2.SavedModel.FromString((tmp_path / "saved_model/saved_model.pb").read_bytes())
    functions = content.meta_graphs[0].graph_def.library.function
    assert any(function.attr["_XlaMustCompile"].b for function in functions if "_XlaMustCompile" in function.attr)
    assert report.differences["saved_model"] < 1e-5
    assert (tmp_path / "saved_model/variables/variables.data-00000-of-00001").stat().st_size < 1.5 * 4 * 676
    assert report.bytes["saved_model"] == sum(f.stat().st_size for f in tmp_path.rglob("*") if f.is_file())


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
    # What selects by the masks in the model itself, as `ops.where` does, is in no file.
    masked = tf.function(model).get_concrete_function(tf.constant(inputs)).graph.as_graph_def()
    assert "SelectV2" in {node.op for node in masked.node}
    expected = outputs_of(model, inputs)
    kp.export_xla(model, tmp_path, ["saved_model"])
    model.export(tmp_path / "of_keras", verbose=False)
    for folder in (tmp_path / "saved_model", tmp_path / "of_keras"):
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
def test_stablehlo_takes_inputs_alone_and_computes_what_the_model_computes(model, inputs, tmp_path):
    from tensorflow.compiler.tf2xla.python import xla as tf2xla

    report = kp.export_xla(model, tmp_path, ["stablehlo"], batch_size=3)
    module = Path(report.paths["stablehlo"]).read_bytes()
    (outputs,) = tf2xla.call_module(
        [inputs], version=9, module=module, Tout=["float32"], Sout=[(3, 4)], platforms=["CPU"]
    )
    np.testing.assert_allclose(outputs, outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    assert report.bytes["stablehlo"] > 4 * (16 * 32 + 32 * 4)  # The weights are inside, zeros and all.
    assert report.samples == 6
    assert "model.stablehlo" in str(report)


@pytest.mark.skipif(BACKEND != "jax", reason="jax.export belongs to JAX")
def test_with_jax_stablehlo_is_what_jax_export_reads(model, inputs, tmp_path):
    import jax

    report = kp.export_xla(model, tmp_path, batch_size=3)
    assert list(report.paths) == ["stablehlo"]
    exported = jax.export.deserialize(bytearray((tmp_path / "model.stablehlo").read_bytes()))
    np.testing.assert_allclose(exported.call(inputs)[0], outputs_of(model, inputs), rtol=1e-5, atol=1e-6)
    assert len(exported.in_avals) == 1


@needs_xla
def test_several_inputs_and_outputs_are_taken_in_the_order_of_the_model(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), dtype="int32", name="right")
    words = keras.layers.Flatten()(keras.layers.Embedding(9, 3)(right))
    outputs = {"z": keras.layers.Dense(2)(left), "a": keras.layers.Dense(3)(words)}
    report = kp.export_xla(keras.Model([left, right], outputs), tmp_path, ["stablehlo"])
    assert report.differences["stablehlo"] < 1e-5


@pytest.mark.slow
@needs_tensorflow
@pytest.mark.skipif(shutil.which("g++") is None, reason="the program is compiled with g++")
def test_an_object_compiled_ahead_of_time_runs_in_a_cpp_program(model, tmp_path):
    report = kp.export_xla(model, tmp_path, ["ahead_of_time"])
    assert report.differences == {"ahead_of_time": None}
    assert "once it is linked" in str(report)
    folder = Path(report.paths["ahead_of_time"])
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
def test_several_inputs_and_outputs_of_an_object_go_by_their_names_alone(tmp_path):
    left, right = keras.Input((4,), name="left"), keras.Input((4,), name="right")
    outputs = [keras.layers.Dense(2)(left), keras.layers.Dense(2)(right)]
    kp.export_xla(keras.Model([left, right], outputs), tmp_path, ["ahead_of_time"])
    header = (tmp_path / "ahead_of_time/model.h").read_text()
    methods = set(re.findall(r"^  .*?((?:set_)?(?:arg|result)\w*)\(.*\{$", header, re.M))
    kinds = ("{}", "{}_data", "{}_size", "{}_count")
    names = ("arg_feed_left", "arg_feed_right", "result_fetch_output_0", "result_fetch_output_1")
    setters = {"set_arg_feed_left_data", "set_arg_feed_right_data"}
    assert methods == {kind.format(name) for kind in kinds for name in names} | setters
    assert header.count("{") == header.count("}")


@needs_xla
def test_what_else_the_directory_holds_stays_and_an_older_export_is_replaced(model, tmp_path):
    (tmp_path / "other").write_text("other")
    (tmp_path / "model.stablehlo").write_text("older")
    formats = ["saved_model", "stablehlo"] if BACKEND == "tensorflow" else ["stablehlo"]
    for _ in range(2):
        kp.export_xla(model, tmp_path, formats)
    assert sorted(os.listdir(tmp_path)) == sorted(["other", "model.stablehlo", *formats[:-1]])
    assert (tmp_path / "other").read_text() == "other"
    assert (tmp_path / "model.stablehlo").read_bytes() != b"older"


@needs_xla
def test_outputs_that_differ_are_an_error_and_nothing_is_written(model, tmp_path, monkeypatch):
    def differ(*args):
        raise VerificationError("its output 'output_0' differs")

    monkeypatch.setattr(xla, "largest_difference", differ)
    (tmp_path / "model.stablehlo").write_text("older")
    with pytest.raises(ValueError, match=r"'stablehlo' it does not: its output.*Received: model='sequential"):
        kp.export_xla(model, tmp_path, ["stablehlo"])
    assert os.listdir(tmp_path) == ["model.stablehlo"]
    assert (tmp_path / "model.stablehlo").read_text() == "older"
    with pytest.raises(ValueError, match="'stablehlo' it does not"):
        kp.export_xla(model, tmp_path / "new", ["stablehlo"])
    assert os.listdir(tmp_path) == ["model.stablehlo"]


@needs_tensorflow
def test_the_reason_that_keras_puts_on_a_later_line_is_in_the_message(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc 1")])
    with pytest.raises(ValueError, match=r"it does not: .*'fc 1' is not a valid (root )?scope name.* Received: model="):
        kp.export_xla(model, tmp_path, ["saved_model"])


@needs_xla
def test_a_directory_is_made_with_its_parents(model, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    report = kp.export_xla(model, os.path.join("one", "two"), ["stablehlo"])
    assert report.paths == {"stablehlo": os.path.join("one", "two", "model.stablehlo")}
    assert os.listdir(tmp_path) == ["one"]
    assert os.listdir(tmp_path / "one/two") == ["model.stablehlo"]


@needs_xla
def test_what_is_written_aside_is_on_the_disk_of_the_directory(model, tmp_path, monkeypatch):
    def same_disk(source, target):
        if Path(source).parents[1] != Path(target).parent:
            raise OSError(18, "Invalid cross-device link")
        rename(source, target)

    rename = os.replace
    monkeypatch.setattr(os, "replace", same_disk)
    kp.export_xla(model, tmp_path, ["stablehlo"])
    assert os.listdir(tmp_path) == ["model.stablehlo"]


@pytest.mark.parametrize("formats", ["stablehlo", ["hlo"], [], ["saved_model", "onnx"]])
def test_unknown_formats_are_named_with_those_that_the_backend_can_write(formats, model, tmp_path):
    with pytest.raises(ValueError, match=rf"formats must be a list of some of .*{BACKEND}.*Received: formats="):
        kp.export_xla(model, tmp_path, formats)


@pytest.mark.skipif(BACKEND == "tensorflow", reason="TensorFlow writes it")
def test_a_format_that_takes_tensorflow_is_refused_with_the_way_to_go(model, tmp_path):
    with pytest.raises(ValueError, match=r"KERAS_BACKEND=tensorflow for all three.*saved_model"):
        kp.export_xla(model, tmp_path, ["saved_model"])


@needs_xla
def test_other_arguments_out_of_range_are_named(model, tmp_path):
    with pytest.raises(ValueError, match=r"batch_size must be an integer of at least 1.*batch_size=0"):
        kp.export_xla(model, tmp_path, batch_size=0)
    with pytest.raises(ValueError, match=r"tolerance must be a number of at least 0.*tolerance=None"):
        kp.export_xla(model, tmp_path, tolerance=None)
    (tmp_path / "file").write_text("")
    with pytest.raises(ValueError, match=r"directory must be a directory.*file"):
        kp.export_xla(model, tmp_path / "file")
    with pytest.raises(ValueError, match=r"directory must be a directory.*file.*folder"):
        kp.export_xla(model, tmp_path / "file" / "folder")
