"""Limits, comparison and replacement of files, which all exports share."""

import importlib.util
import os
import time

import keras
import numpy as np
import pytest

import keras_prune as kp
from keras_prune.export import verification
from keras_prune.export.verification import Candidate, VerificationError, cause, differences, exporting, replace

JAX_OR_TENSORFLOW = keras.backend.backend() != "torch"
EXPORTS = {
    "tflite": lambda model, path, **options: kp.export_tflite(model, f"{path}.tflite", **options),
    "xla": lambda model, path, **options: kp.export_xla(model, path, "stablehlo", **options),
}
if not JAX_OR_TENSORFLOW:
    del EXPORTS["xla"]
if keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None:
    del EXPORTS["tflite"]


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
@pytest.mark.parametrize(
    ("name", "value"),
    [("tolerance", value) for value in ("small", -1, float("nan"), True)] + [("batch_size", 0), ("batch_size", 2.0)],
)
def test_export_rejects_invalid_limits(export, name, value, model, tmp_path):
    with pytest.raises(ValueError, match=rf"`{name}` must be .* at least.* Received: {name}={value!r}$"):
        export(model, tmp_path / "model", **{name: value})


@pytest.mark.parametrize("export", EXPORTS.values(), ids=EXPORTS)
def test_export_with_other_outputs_changes_nothing(export, model, tmp_path, monkeypatch):
    def differ(*args):
        raise VerificationError("its output 'output_0' differs")

    older = [tmp_path / "model", tmp_path / "model.tflite"]
    for file in older:
        file.write_text("older")
    monkeypatch.setattr(verification, "differences", differ)
    with pytest.raises(ValueError, match=r"its output 'output_0' differs\. .*Received: .*tolerance=0\.001"):
        export(model, tmp_path / "model")
    with pytest.raises(ValueError, match="its output 'output_0' differs"):
        export(model, tmp_path / "new" / "model")
    assert sorted(tmp_path.iterdir()) == older
    assert all(file.read_text() == "older" for file in older)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ({"a": [1.0, 2.5]}, "'a' differs by 0.5, and the limit is 0.1 of the largest, 2"),
        ({"a": [1.0, np.nan]}, "'a' differs by nan"),
        ({"a": [1.0]}, r"has the outputs \{'a': \(1,\)\} instead of \{'a': \(2,\)\}"),
        ({"b": [1.0, 2.0]}, "has the outputs"),
    ],
)
def test_differences_rejects_other_outputs(outputs, message):
    outputs = {name: np.array(values) for name, values in outputs.items()}
    with pytest.raises(VerificationError, match=message):
        differences(outputs, {"a": np.array([1.0, 2.0])}, 0.1)


def test_differences_are_relative_to_the_largest_output():
    expected = {"a": np.array([1.0, 2.0]), "zeros": np.zeros(2)}
    assert differences({"a": np.array([1.1, 2.0]), "zeros": np.zeros(2)}, expected, 0.1) == pytest.approx((0.1, 0.05))


def folder(path, *names):
    path.mkdir()
    for name in names:
        (path / name).write_text(str(path))
    return path


def test_replace_replaces_older_folder_as_a_whole(tmp_path):
    new, place = folder(tmp_path / "new", "a", "b"), folder(tmp_path / "place", "b")
    replace(Candidate(str(new)), place)
    assert sorted(os.listdir(place)) == ["a", "b"]
    assert (place / "b").read_text() == str(new)


def test_replace_keeps_folder_with_other_files(tmp_path):
    new, place = folder(tmp_path / "new", "a"), folder(tmp_path / "place", "a", "photos")
    with pytest.raises(ValueError, match=r"more than an earlier export: \['photos'\].*Received: filepath=.*place"):
        replace(Candidate(str(new)), place)
    assert (place / "a").read_text() == str(place)


@pytest.mark.parametrize(("kinds", "message"), [("fd", "a folder at .* is a file"), ("df", "a file at .* is a folder")])
def test_replace_keeps_other_kinds(kinds, message, tmp_path):
    new, place = tmp_path / "new", tmp_path / "place"
    for path, kind in zip((new, place), kinds, strict=True):
        path.mkdir() if kind == "d" else path.write_text("")
    with pytest.raises(ValueError, match=rf"There is {message}\. .*Received: filepath=.*place"):
        replace(Candidate(str(new)), place)
    assert new.exists()
    assert place.exists()


def stop_between_renames(new, place, monkeypatch):
    def rename(source, target):
        if source == str(new):
            raise KeyboardInterrupt
        original(source, target)

    original = os.rename
    with monkeypatch.context() as patched:
        patched.setattr(os, "rename", rename)
        with pytest.raises(KeyboardInterrupt):
            replace(Candidate(str(new)), place)


def test_replace_restores_older_folder_after_an_error(tmp_path, monkeypatch):
    new, place = folder(tmp_path / "new", "a"), folder(tmp_path / "place", "a")
    stop_between_renames(new, place, monkeypatch)
    assert (place / "a").read_text() == str(place)


def test_replace_survives_a_kill_between_its_renames(model, tmp_path, monkeypatch):
    new, place = folder(tmp_path / "new", "a"), folder(tmp_path / "place", "a")
    with monkeypatch.context() as patched:
        patched.setattr(verification, "_restore_previous", lambda target: None)  # A killed process restores nothing.
        stop_between_renames(new, place, monkeypatch)
    assert not place.exists()
    long_ago = time.time() - 10 * 24 * 3600
    for path in tmp_path.rglob("*"):
        os.utime(path, (long_ago, long_ago))
    kp.save_sparse(model, tmp_path / "other.kprune")  # It removes what killed processes left.
    with pytest.raises(ValueError, match="tolerance"), exporting(model, place, None, 1):
        raise ValueError("tolerance")  # An export that fails.
    assert (place / "a").read_text() == str(place)
    replace(Candidate(str(new)), place)
    assert (place / "a").read_text() == str(new)
    assert sorted(os.listdir(tmp_path)) == ["other.kprune", "place"]


def test_exporting_removes_files_of_killed_exports(model, tmp_path):
    for name in (".keras_prune_export_killed", ".keras_prune_export_running", "photos"):
        path = folder(tmp_path / name, "dense.tflite")
        if "running" not in name:
            for part in (path / "dense.tflite", path):
                os.utime(part, (0, 0))
    with exporting(model, tmp_path / "model", None, 1):
        pass
    assert sorted(os.listdir(tmp_path)) == [".keras_prune_export_running", "photos"]


@pytest.mark.skipif(os.name == "nt", reason="links need a privilege on Windows")
def test_replace_keeps_a_link(tmp_path):
    new, link = tmp_path / "new", tmp_path / "link"
    new.write_text("new")
    link.symlink_to(tmp_path / "target")
    replace(Candidate(str(new)), link)
    assert link.is_symlink()
    assert (tmp_path / "target").read_text() == "new"


def test_exporting_writes_beside_the_place(model, tmp_path):
    with exporting(model, tmp_path / "one" / "two" / "file", None, 1) as (_, _, aside):
        assert os.path.dirname(aside) == str(tmp_path)  # On the same disk, so that it can be renamed.
        new = os.path.join(aside, "new")
        with open(new, "w") as file:
            file.write("new")
        replace(Candidate(new), tmp_path / "one" / "two" / "file")
    assert os.listdir(tmp_path) == ["one"]
    assert (tmp_path / "one" / "two" / "file").read_text() == "new"


def test_exporting_rejects_a_file_as_folder(model, tmp_path):
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(NotADirectoryError, match=r"file.model'$"),
        exporting(model, tmp_path / "file" / "model", None, 1),
    ):
        pass


def test_cause_is_one_line_of_bounded_length():
    assert cause(ValueError("Exception.\n\n\x1b[1mthe reason\x1b[0m.\n")) == "Exception. the reason"
    assert len(cause(ValueError("word " * 1000))) <= 1000
    assert cause(KeyError()) == "KeyError()"
