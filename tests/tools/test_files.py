import importlib.util
import os
import pathlib
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest

import keras_prune as kp
from keras_prune.tools.files import load_inputs, load_model, load_pairs, save_model


@pytest.fixture
def saved(tmp_path):
    """A small model in a file."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="fc")]).save(path)
    return path


@keras.saving.register_keras_serializable(package="nobody_knows")
class Strange(keras.layers.Layer):
    pass


def test_load_model_restores_masks(saved, tmp_path):
    kp.prune(keras.models.load_model(saved), kp.TargetSparsity(0.5, kp.Blocks((2, 1)))).save(tmp_path / "pruned.keras")
    (weight,) = kp.layers.pruned_weights(load_model(str(tmp_path / "pruned.keras")))
    assert weight.criterion.pattern == kp.Blocks((2, 1))


def truncated(path):
    path.write_bytes(path.read_bytes()[:-200])


def text(path):
    path.write_text("not a model")


def another_zip(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def weights_that_do_not_fit(path):
    other = path.with_name("other.keras")
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(5, name="fc")]).save(other)
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(other) as another:
        parts = {name: archive.read(name) for name in archive.namelist()}
        parts["config.json"] = another.read("config.json")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in parts.items():
            archive.writestr(name, data)


def unknown_layer(path):
    keras.Sequential([keras.Input((6,)), Strange()]).save(path)
    keras.saving.get_custom_objects().pop("nobody_knows>Strange")


def python_code(path):
    keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x + 1)]).save(path)


def a_folder(path):
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize(
    "damage", [truncated, text, another_zip, weights_that_do_not_fit, unknown_layer, python_code, a_folder]
)
def test_load_model_rejects_unusable_files_in_one_line(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match=r"^Expected a model that Keras .*Received: '.*model.keras'") as refused:
        load_model(str(saved))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("damage", [truncated, text, lambda path: path.write_bytes(b"")])
def test_load_model_names_damage(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match="the file is damaged or not a Keras file") as refused:
        load_model(str(saved))
    assert "not found" not in str(refused.value)


def test_load_model_says_how_to_load_python_code(saved):
    python_code(saved)
    with pytest.raises(ValueError, match=r"keras.config.enable_unsafe_deserialization\(\)") as refused:
        load_model(str(saved))
    assert "--modules" not in str(refused.value)


def test_load_model_rejects_single_layers(tmp_path):
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    with pytest.raises(ValueError, match=r"Expected a whole model, but the file holds a Dense"):
        load_model(str(tmp_path / "layer.keras"))


def test_load_model_names_modules_that_cannot_be_imported(saved):
    with pytest.raises(ValueError, match=r"--modules.*Received: 'no_such_module'"):
        load_model(str(saved), ["no_such_module"])


def test_save_model_replaces_files_as_a_whole(saved, monkeypatch):
    model, before = load_model(str(saved)), saved.read_bytes()

    def save_half(path):
        pathlib.Path(path).write_bytes(b"half")
        raise OSError("disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(model, "save", save_half)
        with pytest.raises(OSError, match="disk is full"):
            save_model(model, str(saved))
    assert saved.read_bytes() == before
    assert [file.name for file in saved.parent.iterdir()] == [saved.name]
    model.layers[0].kernel.assign(0 * model.layers[0].kernel)
    save_model(model, str(saved))
    assert not np.any(load_model(str(saved)).layers[0].get_weights()[0])


@pytest.mark.parametrize("name", ["out.h5", "nowhere/out.keras", "out"])
def test_save_model_rejects_outputs_that_cannot_be_written(saved, name):
    with pytest.raises(ValueError, match=r"\.keras or \.kprune file in a folder that exists"):
        save_model(load_model(str(saved)), str(saved.parent / name))


def test_load_inputs_reads_arrays_by_name(folder):
    inputs = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    left, right = np.ones((3, 4), "float32"), np.zeros((3, 2), "float32")
    np.savez("data.npz", right=right, left=left)
    data = load_inputs("data.npz", model)
    np.testing.assert_array_equal(data["left"], left)
    np.testing.assert_array_equal(data["right"], right)
    np.savez("others.npz", right, left)
    with pytest.raises(ValueError, match=r"here \['left', 'right'\]. Received: 'others.npz' with \['arr_0', 'arr_1'\]"):
        load_inputs("others.npz", model)


def test_load_inputs_reads_a_single_array_with_any_name(folder):
    np.savez("data.npz", np.ones((3, 16), "float32"))
    assert load_inputs("data.npz", keras.models.load_model("dense.keras")).shape == (3, 16)


@pytest.mark.parametrize("ending", ["h5", "kprune"])
def test_load_model_reads_other_formats(saved, ending):
    model, path = keras.models.load_model(saved), str(saved.with_suffix(f".{ending}"))
    kp.save_sparse(model, path) if ending == "kprune" else model.save(path)
    np.testing.assert_array_equal(load_model(path).get_weights()[0], model.get_weights()[0])


def test_load_model_looks_for_modules_in_the_current_folder(saved, monkeypatch):
    monkeypatch.chdir(saved.parent)
    monkeypatch.setattr(sys, "path", [path for path in sys.path if path not in ("", os.getcwd())])
    code = """
import keras

@keras.saving.register_keras_serializable(package="mine")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x
"""
    (saved.parent / "my_layers_of_a_test.py").write_text(code)
    namespace = {}
    exec(code, namespace)
    keras.Sequential([keras.Input((6,)), namespace["Twice"](), keras.layers.Dense(2)]).save(saved)
    keras.saving.get_custom_objects().pop("mine>Twice")
    with pytest.raises(ValueError, match=r"add --modules=their.module"):
        load_model(str(saved))
    assert type(load_model(str(saved), ["my_layers_of_a_test"]).layers[0]).__name__ == "Twice"


def test_load_model_asks_for_compile_settings(saved):
    with pytest.raises(ValueError, match=r"Expected a compiled model.*Received: '.*model.keras'"):
        load_model(str(saved), compiled=True)
    model = keras.models.load_model(saved)
    model.compile("sgd", "mse")
    model.save(saved)
    assert load_model(str(saved), compiled=True).loss == "mse"


def test_load_model_names_the_package_of_a_preset(saved, monkeypatch):
    (saved.parent / "config.json").write_text("{}")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"is a KerasHub preset, and KerasHub is missing: pip install keras-hub"):
        load_model(str(saved.parent))


def test_save_model_writes_sparse_files_without_masks(saved):
    model = kp.prune(load_model(str(saved)), kp.TargetSparsity(0.5))
    kp.cut(model)
    save_model(model, str(saved.with_suffix(".kprune")))
    assert kp.report(load_model(str(saved.with_suffix(".kprune")))).kept == 12


def test_load_pairs_reads_targets_and_inputs_by_name(folder):
    inputs = [keras.Input((4,), name="left"), keras.Input((2,), name="right")]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    np.savez("data.npz", right=np.zeros((3, 2)), left=np.ones((3, 4)), y=np.ones(3))
    x, y = load_pairs("data.npz", model)
    assert ({name: array.shape for name, array in x.items()}, y.shape) == ({"left": (3, 4), "right": (3, 2)}, (3,))


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.ones((3, 16))}, r"arrays x and y\. Received: 'data.npz' without \['y'\]"),
        ({"y": np.ones(3)}, r"without \['x'\]"),
        ({"x": np.ones((3, 16)), "y": np.ones(2)}, "each with one entry for each sample"),
        ({"x": np.float32(1), "y": np.float32(1)}, "each with one entry for each sample"),
    ],
)
def test_load_pairs_rejects_other_arrays(folder, arrays, message):
    np.savez("data.npz", **arrays)
    with pytest.raises(ValueError, match=message):
        load_pairs("data.npz", keras.models.load_model("dense.keras"))


@pytest.mark.parametrize("task", [True, False])
def test_load_model_reads_presets(tmp_path, task):
    keras_hub = pytest.importorskip("keras_hub")
    model = keras_hub.models.BertBackbone(20, 1, 1, 4, 8, max_sequence_length=8)
    if task:
        tokenizer = keras_hub.models.BertTokenizer(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"])
        preprocessor = keras_hub.models.BertTextClassifierPreprocessor(tokenizer, sequence_length=8)
        model = keras_hub.models.BertTextClassifier(model, num_classes=3, preprocessor=preprocessor)
    model.save_to_preset(str(tmp_path / "preset"))
    loaded = load_model(str(tmp_path / "preset"))
    assert bool(getattr(loaded, "preprocessor", None)) == task
    # A sparse file holds a task without its preprocessor.
    save_model(load_model(str(tmp_path / "preset"), preprocessor=False), str(tmp_path / "model.kprune"))
    for one in (loaded, load_model(str(tmp_path / "model.kprune"))):
        assert type(one) is type(model)
        np.testing.assert_array_equal(one.get_weights()[0], model.get_weights()[0])


@pytest.mark.slow
def test_load_model_imports_keras_hub_for_its_layers(tmp_path):
    keras_hub = pytest.importorskip("keras_hub")
    inputs = keras.Input((4, 8))
    keras.Model(inputs, keras_hub.layers.TransformerEncoder(8, 2)(inputs)).save(tmp_path / "model.keras")
    code = f"""
from keras_prune.tools.files import load_model
print(type(load_model({str(tmp_path / "model.keras")!r}).layers[1]).__name__)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout == "TransformerEncoder\n", done.stderr
