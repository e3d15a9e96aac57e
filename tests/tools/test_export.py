import importlib.util
import json
import os
import pathlib

import keras
import numpy as np
import pytest

import keras_prune as kp

needs_tflite = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="writes .tflite files with TensorFlow and runs them with ai-edge-litert",
)


@pytest.fixture
def pruned(folder):
    """The current folder, with a pruned model in `pruned.keras`."""
    model = kp.prune(keras.models.load_model("dense.keras"), {".*": kp.TargetSparsity(0.75, kp.Blocks((4, 1)))})
    kp.cut(model)
    model.save("pruned.keras")
    return folder


def exported(run, *arguments):
    """Runs the tool and returns the values that it prints."""
    return json.loads(run("export", *arguments, "--json"))


def test_export_writes_sparse_files(pruned, run):
    assert exported(run, "pruned.keras", "model.kprune")["bytes"] == (pruned / "model.kprune").stat().st_size
    assert kp.report(kp.load_sparse("model.kprune")).kept == 60


@needs_tflite
def test_export_writes_tflite_files(pruned, run):
    values = exported(run, "pruned.keras", "model.tflite")
    assert values["bytes"] == (pruned / "model.tflite").stat().st_size
    assert values["relative_difference"] < 1e-5
    assert [row["name"] for row in values["rows"]] == ["fc1", "fc2"]
    np.save("inputs.npy", np.random.default_rng(0).random((32, 16)).astype("float32"))
    text = run("export", "pruned.keras", "int8.tflite", "--quantization=int8_only", "--data=inputs.npy")
    assert text.lstrip().startswith("int8.tflite")


@needs_tflite
def test_export_writes_formats_of_xla(pruned, run):
    values = exported(run, "pruned.keras", "xla", "--formats=stablehlo,saved_model")
    module, saved = values["exports"]
    assert module["relative_difference"] < 1e-5
    assert module["bytes"] == (pruned / "xla/model.stablehlo").stat().st_size
    assert (pruned / saved["path"] / "saved_model.pb").exists()


@needs_tflite
def test_export_passes_flags_on(folder, run):
    inputs = [keras.Input((6, 4), name="sequence"), keras.Input((3,), name="other")]
    x = keras.layers.LSTM(4, name="lstm")(inputs[0])
    keras.Model(inputs, keras.layers.Dense(2, name="fc")(keras.layers.Concatenate()([x, inputs[1]]))).save("lstm.keras")
    random = np.random.default_rng(0)
    np.savez("data.npz", other=random.random((8, 3), "float32"), sequence=random.random((8, 6, 4), "float32"))
    flags = ["--data=data.npz", "--batch_size=2", "--nosparse", "--tolerance=0.01"]
    values = exported(run, "lstm.keras", "lstm.tflite", *flags)
    assert (values["tolerance"], values["dense_because"], values["samples"]) == (0.01, "sparse=False", 8)


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
def test_export_rejects_unreadable_data(folder, run, write):
    write("data.npy")
    before = sorted(folder.iterdir())
    error = run("export", "dense.keras", "model.tflite", "--data=data.npy", status=2)
    assert error.startswith("error: --data must be a .npy file, or ")
    assert "Received: 'data.npy'" in error
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize(
    ("flags", "output", "message"),
    [
        (["--quantization=float16"], "out.kprune", "a .kprune file: none. Received: --quantization for 'out.kprune'"),
        (["--formats=stablehlo"], "out.tflite", "Received: --formats for 'out.tflite'"),
        (["--quantization=float16", "--sparse"], "out", "Received: --quantization and --sparse for 'out'"),
        (["--formats=stablehlo"], "typo.tflit", "Received: output='typo.tflit'"),
    ],
)
def test_export_rejects_flags_of_other_outputs(folder, run, flags, output, message):
    assert message in run("export", "dense.keras", output, *flags, status=2)
    assert [file.name for file in folder.iterdir()] == ["dense.keras"]
