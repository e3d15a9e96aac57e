"""A model file is loaded or refused in one line; an output appears whole or not at all."""

import pathlib
import zipfile

import keras
import numpy as np
import pytest
from absl import flags

import keras_prune as kp
from keras_prune.tools.command_line import load_model, written_aside

flags.FLAGS.mark_as_parsed()


@pytest.fixture
def saved(tmp_path):
    """A small model in a file."""
    path = tmp_path / "model.keras"
    keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="fc")]).save(path)
    return path


@keras.saving.register_keras_serializable(package="nobody_knows")
class Strange(keras.layers.Layer):
    pass


def test_a_model_is_loaded(saved):
    assert load_model(str(saved)).layers[0].name == "fc"


def test_a_pruned_model_is_loaded_with_its_masks(saved, tmp_path):
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
def test_a_file_that_holds_no_usable_model_is_refused_by_its_name(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match=r"^Expected a model that Keras .*Received: '.*model.keras'") as refused:
        load_model(str(saved))
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize("damage", [truncated, text, lambda path: path.write_bytes(b"")])
def test_a_file_that_is_there_is_not_said_to_be_missing(saved, damage):
    damage(saved)
    with pytest.raises(ValueError, match=r"which is no Keras file") as refused:
        load_model(str(saved))
    assert "not found" not in str(refused.value)


def test_who_trusts_a_model_with_python_code_inside_is_told_what_to_do(saved):
    python_code(saved)
    with pytest.raises(ValueError, match=r"keras.config.enable_unsafe_deserialization\(\)") as refused:
        load_model(str(saved))
    assert "--modules" not in str(refused.value)


def test_a_layer_alone_is_no_model(tmp_path):
    layer = keras.layers.Dense(3)
    layer.build((None, 2))
    keras.saving.save_model(layer, tmp_path / "layer.keras")
    with pytest.raises(ValueError, match=r"Expected a whole model.*holds a Dense"):
        load_model(str(tmp_path / "layer.keras"))


def test_a_module_that_cannot_be_imported_is_named(saved):
    flags.FLAGS.modules = ["no_such_module"]
    try:
        with pytest.raises(ValueError, match=r"--modules.*Received: 'no_such_module'"):
            load_model(str(saved))
    finally:
        flags.FLAGS.modules = []


def test_what_was_there_stays_until_the_new_file_is_whole(tmp_path):
    path = tmp_path / "out.keras"
    path.write_text("old")

    def fill_the_disk():
        with written_aside(str(path), ".keras") as aside:
            pathlib.Path(aside).write_text("half")
            raise OSError("disk is full")

    with pytest.raises(OSError, match="disk is full"):
        fill_the_disk()
    assert [file.name for file in tmp_path.iterdir()] == ["out.keras"]
    assert path.read_text() == "old"
    with written_aside(str(path), ".keras") as aside:
        np.savetxt(aside, [1.0])
        assert path.read_text() == "old"
    assert path.read_text().startswith("1.0")


@pytest.mark.parametrize("name", ["out.h5", "nowhere/out.keras", "out"])
def test_an_output_that_cannot_be_written_is_refused(tmp_path, name):
    with (
        pytest.raises(ValueError, match=r"\.keras file in a folder that exists"),
        written_aside(str(tmp_path / name), ".keras"),
    ):
        pass
