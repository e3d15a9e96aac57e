import pathlib
import zipfile

import keras
import numpy as np
import pytest
from absl import flags

import keras_prune as kp
from keras_prune.tools import benchmark, export, inspect, prune
from keras_prune.tools.command_line import load_model, save_model


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
    with pytest.raises(ValueError, match=r"\.keras file in a folder that exists"):
        save_model(load_model(str(saved)), str(saved.parent / name))


@pytest.mark.parametrize("tool", [benchmark, export, inspect, prune], ids=lambda tool: tool.__name__)
def test_tools_print_help(tool, run):
    text = run(tool, "--help")
    assert f"python -m {tool.__name__} " in text
    assert "--[no]json" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dense.keras"], "Expected the files MODEL OUTPUT"),
        (["a", "b", "c"], "Received: a b c"),
        (["a", "b", "--nope"], "Unknown command line flag 'nope'"),
        (["a", "b", "--quality=x"], "--quality=x"),
    ],
)
def test_tools_reject_wrong_command_lines(run, arguments, message):
    assert message in run(prune, *arguments, status=1)


def test_tools_print_one_line_for_a_missing_file(run, folder):
    error = run(inspect, "missing.keras", status=2)
    assert error == "error: Expected a model that Keras saved, but there is no such file. Received: 'missing.keras'"


def test_tools_do_not_touch_the_flags_of_the_process(run, folder):
    before = set(flags.FLAGS)
    run(prune, "dense.keras", "out.keras", "--sparsity=0.5")
    assert set(flags.FLAGS) == before
    assert not flags.FLAGS.is_parsed()
