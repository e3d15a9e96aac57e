"""The scripts: whole journeys as processes, as a user runs them; each flag in this process, which is quicker."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
from absl import flags
from absl.testing import flagsaver
from helpers import criteria

import keras_prune as kp
from keras_prune.tools import export, inspect, prune

ROOT = pathlib.Path(__file__).resolve().parents[2]
flags.FLAGS.mark_as_parsed()
needs_tflite = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="writes .tflite files with TensorFlow and runs them with ai-edge-litert",
)


def start(tool, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", f"keras_prune.tools.{tool}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(tool, *arguments, cwd):
    done = start(tool, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder, the current one, with a small model in `dense.keras`."""
    monkeypatch.chdir(tmp_path)
    model = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(12, name="fc1"), keras.layers.Dense(4, name="fc2")]
    )
    model.save("dense.keras")
    return tmp_path


def test_a_model_is_pruned_in_blocks_stripped_and_inspected(folder):
    output = run("prune", "dense.keras", "pruned.keras", "--sparsity=0.75", "--block_size=4,1", cwd=folder)
    assert "60 of 240 connections: 4.0x" in output
    assert "cut 180 of 240 connections; wrote pruned.keras, with its masks" in output.splitlines()[-1]
    pruned = keras.models.load_model("pruned.keras")
    assert set(criteria(pruned).values()) == {kp.TargetSparsity(0.75, kp.Blocks((4, 1)))}

    values = json.loads(run("prune", "--strip", "pruned.keras", "plain.keras", "--json", cwd=folder))
    assert (values["cut"], values["kept"]) == (0, 60)
    plain = keras.models.load_model("plain.keras")
    assert [type(layer) for layer in plain.layers] == [keras.layers.Dense, keras.layers.Dense]
    x = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
    np.testing.assert_array_equal(plain.predict(x, verbose=0), pruned.predict(x, verbose=0))

    text, values = inspect.main("plain.keras")
    assert "60 of 240 connections: 4.0x" in str(text)
    assert values == json.loads(run("inspect", "plain.keras", "--json", cwd=folder))
    assert [(layer["name"], layer["kept"]) for layer in values["layers"]] == [("fc1", 48), ("fc2", 12)]


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("inspect", ["missing.keras"]),
        ("prune", ["notes.keras", "out.keras", "--sparsity=0.5"]),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line_and_exit_status_2_and_nothing_is_written(folder, tool, arguments):
    (folder / "notes.keras").write_text("not a model")
    before = sorted(folder.iterdir())
    done = start(tool, *arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert lines == done.stderr.splitlines()[-1:]
    assert f"Received: '{arguments[0]}'" in lines[0]
    assert sorted(folder.iterdir()) == before


def test_help_shows_commands_to_copy_and_every_flag(folder):
    text = start("prune", "--help", cwd=folder).stdout
    assert "python -m keras_prune.tools.prune dense.keras pruned.keras --sparsity=0.5" in text
    assert "--[no]json" in text
    assert "--block_size" in text


def test_inspect_tells_what_a_runtime_would_make_of_the_model(folder):
    with flagsaver.flagsaver(runtime="litert"):
        text, values = inspect.main("dense.keras")
    assert str(kp.deployment_plan(keras.models.load_model("dense.keras"))) in text
    assert [row["pattern"] for row in values["plan"]["rows"]] == ["Blocks(block_size=(4, 1), reduction='mean')"] * 2
    json.dumps(values)


@pytest.mark.parametrize(
    ("asked", "kept"),
    [
        ({"compression": 8}, 30),
        ({"compression": 8, "budget": "uniform"}, 30),
        ({"compression": 4, "budget": "global_magnitude", "block_size": ["2", "1"]}, 60),
        ({"compression": 3, "budget": "erdos_renyi_kernel", "layer_names": "fc1"}, 64 + 48),
        ({"sparsity": 0.5, "layer_names": "fc2"}, 192 + 24),
        ({"sparsity": 0.5, "n_of_m": ["2", "4"]}, 120),
        ({"quality": 100.0, "block_size": ["4", "1"]}, 8),
    ],
)
def test_connections_are_cut_as_the_flags_say(folder, asked, kept):
    with flagsaver.flagsaver(**asked):
        _, values = prune.main("dense.keras", "out.keras")
    assert values["kept"] == pytest.approx(kept, abs=1 if "compression" in asked else 0)
    assert kp.report(keras.models.load_model("out.keras")).kept == values["kept"]


def test_that_layers_left_alone_do_not_count_for_a_compression_is_said(folder):
    model = keras.models.load_model("dense.keras")
    model.get_layer("fc1").trainable = False
    model.save("frozen.keras")
    with flagsaver.flagsaver(compression=3.0):
        frozen, values = prune.main("frozen.keras", "out.keras")
        whole, _ = prune.main("dense.keras", "out.keras")
    assert values["kept"] == 192 + 16
    note = "--compression counts only layers that are cut: 16 of 48, 3.0x"
    assert note in frozen.splitlines()
    assert "--compression counts" not in whole


def test_a_pruned_model_is_cut_further_in_its_own_pattern(folder):
    with flagsaver.flagsaver(sparsity=0.5, block_size=["4", "1"]):
        prune.main("dense.keras", "half.keras")
    with flagsaver.flagsaver(compression=4.0):
        prune.main("half.keras", "quarter.keras")
    model = keras.models.load_model("quarter.keras")
    assert {criterion.pattern for criterion in criteria(model).values()} == {kp.Blocks((4, 1))}
    assert kp.report(model).kept == pytest.approx(60, abs=4)


@pytest.mark.parametrize("asked", [{"sparsity": 0.5}, {"sparsity": 0.95}, {"quality": 1.0}, {"compression": 16.0}])
@pytest.mark.parametrize("strip", [False, True])
def test_what_is_zero_counts_as_cut_and_the_numbers_are_those_of_the_written_file(folder, asked, strip):
    with flagsaver.flagsaver(sparsity=0.875):
        prune.main("dense.keras", "pruned.keras")
    with flagsaver.flagsaver(strip=True):
        prune.main("pruned.keras", "plain.keras")
    with flagsaver.flagsaver(strip=strip, **asked):
        text, values = prune.main("plain.keras", "again.keras")
        _, expected = prune.main("pruned.keras", "expected.keras")
    assert values["cut"] == 30 - values["kept"] >= 0
    assert f"cut {values['cut']} of 30 connections" in text
    assert (values["cut"], values["kept"]) == (expected["cut"], expected["kept"])  # As if it had never been stripped.
    _, inspected = inspect.main("again.keras")
    assert (values["kept"], values["compression"]) == (inspected["kept"], inspected["compression"])


@pytest.mark.parametrize("strip", [False, True])
def test_a_layer_that_starts_at_zero_can_still_be_trained(folder, strip):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_initializer="zeros")])
    model.save("zeros.keras")
    with flagsaver.flagsaver(sparsity=0.5, strip=strip):
        _, values = prune.main("zeros.keras", "out.keras")
    assert values["cut"] == 8
    assert values["kept"] == inspect.main("out.keras")[1]["kept"] == (0 if strip else 8)


@pytest.mark.parametrize(
    ("asked", "output", "message"),
    [
        (
            {"sparsity": 0.5},
            "nowhere/out.keras",
            r"a .keras file in a folder that exists. Received: 'nowhere/out.keras'",
        ),
        ({"sparsity": 90.0}, "out.keras", "sparsity is the share of a layer's connections"),
        ({}, "out.keras", "one of --quality, --sparsity and --compression.* Received: none of them"),
        ({"quality": 1.0, "sparsity": 0.5}, "out.keras", "Received: --quality and --sparsity"),
        ({"quality": 1.0, "block_size": ["4", "x"]}, "out.keras", r"Received: block_size=\(4, 'x'\)"),
        ({"quality": 1.0, "n_of_m": ["2:4"]}, "out.keras", r"Received: kept=\['2:4'\], of=None"),
        ({"quality": 1.0, "n_of_m": ["2", "4"], "block_size": ["4", "1"]}, "out.keras", "Received: both"),
        ({"quality": 1.0, "layer_names": "conv"}, "out.keras", r"does not match any prunable layer.*\['fc1', 'fc2'\]"),
        ({"compression": 300.0}, "out.keras", "can be compressed 120.0x at most"),
    ],
)
def test_a_value_that_cannot_be_used_is_refused_and_nothing_is_written(folder, asked, output, message):
    with flagsaver.flagsaver(**asked), pytest.raises(ValueError, match=message):
        prune.main("dense.keras", output)
    assert [file.name for file in folder.iterdir()] == ["dense.keras"]


@needs_tflite
def test_a_pruned_model_is_exported_in_every_format(folder):
    with flagsaver.flagsaver(sparsity=0.75, block_size=["4", "1"]):
        prune.main("dense.keras", "pruned.keras")
    values = json.loads(run("export", "pruned.keras", "model.tflite", "--json", cwd=folder))
    assert values["bytes"] == (folder / "model.tflite").stat().st_size
    assert values["relative_difference"] < 1e-5
    assert [row["name"] for row in values["rows"]] == ["fc1", "fc2"]

    np.save("inputs.npy", np.random.default_rng(0).random((20, 16)).astype("float32"))
    with flagsaver.flagsaver(quantization="full_int8", data="inputs.npy"):
        text, values = export.main("pruned.keras", "int8.tflite")
    assert str(text).lstrip().startswith("int8.tflite")
    assert values["samples"] == 8

    with flagsaver.flagsaver(formats=["stablehlo", "saved_model"]):
        text, values = export.main("pruned.keras", "xla")
    module, saved = values["exports"]
    assert module["relative_difference"] < 1e-5
    assert module["bytes"] == (folder / "xla/model.stablehlo").stat().st_size
    assert (folder / saved["path"] / "saved_model.pb").exists()
    assert len(str(text).splitlines()) == 2


def test_a_model_is_exported_as_a_sparse_file_that_loads_again(folder):
    with flagsaver.flagsaver(sparsity=0.75):
        prune.main("dense.keras", "pruned.keras")
    _, values = export.main("pruned.keras", "model.kprune")
    assert values["bytes"] == (folder / "model.kprune").stat().st_size
    assert kp.report(kp.load_sparse("model.kprune")).kept == 60


def empty(path):
    pathlib.Path(path).write_bytes(b"")


def no_zip(path):
    pathlib.Path(path).write_bytes(b"PK\x03\x04 and then something else")


def python_objects(path):
    with open(path, "wb") as file:
        np.save(file, np.array([{}]), allow_pickle=True)


@pytest.mark.parametrize(
    "write", [lambda path: None, empty, no_zip, python_objects, lambda path: os.link("dense.keras", path)]
)
def test_data_that_cannot_be_read_is_refused_and_nothing_is_written(folder, write):
    write("data.npy")
    before = sorted(folder.iterdir())
    with (
        flagsaver.flagsaver(data="data.npy"),
        pytest.raises(ValueError, match=r"^--data must be a .npy file, or .* Received: 'data.npy'"),
    ):
        export.main("dense.keras", "model.tflite")
    assert sorted(folder.iterdir()) == before


def test_arrays_for_several_inputs_are_read_by_their_names(folder):
    inputs = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    left, right = np.ones((3, 4), "float32"), np.zeros((3, 2), "float32")
    np.savez("data.npz", right=right, left=left)
    data = export.load_data("data.npz", model)
    np.testing.assert_array_equal(data["left"], left)
    np.testing.assert_array_equal(data["right"], right)
    np.savez("others.npz", right, left)
    with pytest.raises(ValueError, match=r"here \['left', 'right'\]. Received: 'others.npz' with \['arr_0', 'arr_1'\]"):
        export.load_data("others.npz", model)


def test_an_array_that_is_alone_needs_no_name(folder):
    np.savez("data.npz", np.ones((3, 16), "float32"))
    assert export.load_data("data.npz", keras.models.load_model("dense.keras")).shape == (3, 16)


@needs_tflite
def test_the_flags_of_an_export_are_its_arguments(folder):
    inputs = [keras.Input((6, 4), name="sequence"), keras.Input((3,), name="other")]
    x = keras.layers.LSTM(4, name="lstm")(inputs[0])
    keras.Model(inputs, keras.layers.Dense(2, name="fc")(keras.layers.Concatenate()([x, inputs[1]]))).save("lstm.keras")
    random = np.random.default_rng(0)
    np.savez("data.npz", other=random.random((8, 3), "float32"), sequence=random.random((8, 6, 4), "float32"))
    with flagsaver.flagsaver(data="data.npz", batch_size=2, sparse=False, tolerance=0.01):
        report, values = export.main("lstm.keras", "lstm.tflite")
    assert (report.tolerance, values["dense_because"], values["samples"]) == (0.01, "sparse=False", 8)


@pytest.mark.parametrize(
    ("asked", "output", "message"),
    [
        (
            {"quantization": "float16"},
            "out.kprune",
            r"a .kprune file are \[\]. Received: --quantization for 'out.kprune'",
        ),
        ({"formats": ["stablehlo"]}, "out.tflite", "Received: --formats for 'out.tflite'"),
        (
            {"quantization": "float16", "sparse": True},
            "out",
            "a folder for XLA are .* Received: --quantization and --sparse for",
        ),
        (
            {"quantization": "float16", "formats": ["stablehlo"]},
            "typo.tflit",
            r"or a folder .* Received: output='typo.tflit'",
        ),
    ],
)
def test_flags_and_endings_that_mean_nothing_are_refused(folder, asked, output, message):
    with flagsaver.flagsaver(**asked), pytest.raises(ValueError, match=message):
        export.main("dense.keras", output)
    assert [file.name for file in folder.iterdir()] == ["dense.keras"]
