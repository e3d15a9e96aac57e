"""The scripts, run as a user runs them: as processes."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import keras_prune as kp

ROOT = pathlib.Path(__file__).resolve().parents[2]


def start(tool, *arguments, cwd):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-m", f"keras_prune.tools.{tool}", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


def run(tool, *arguments, cwd):
    done = start(tool, *arguments, cwd=cwd)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


@pytest.fixture
def folder(tmp_path):
    """A folder with a small trained-like model in `dense.keras`."""
    model = keras.Sequential(
        [keras.Input((16,)), keras.layers.Dense(12, "relu", name="fc1"), keras.layers.Dense(4, name="fc2")]
    )
    model.save(tmp_path / "dense.keras")
    return tmp_path


def test_a_model_is_pruned_in_blocks_stripped_and_inspected(folder):
    output = run("prune", "dense.keras", "pruned.keras", "--sparsity=0.75", "--block_size=4,1", cwd=folder)
    assert "60 of 240 connections: 4.0x" in output
    assert output.endswith(
        "cut 180 of 240 connections; wrote pruned.keras, with its masks, so that it can be trained further\n"
    )
    pruned = keras.models.load_model(folder / "pruned.keras")
    assert pruned.layers[0].criterion == kp.TargetSparsity(0.75, kp.Blocks((4, 1)))

    values = json.loads(run("prune", "--strip", "pruned.keras", "plain.keras", "--json", cwd=folder))
    assert values["cut"] == 0
    assert values["kept"] == 60
    plain = keras.models.load_model(folder / "plain.keras")
    assert [type(layer) for layer in plain.layers] == [keras.layers.Dense, keras.layers.Dense]
    x = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
    np.testing.assert_array_equal(plain.predict(x, verbose=0), pruned.predict(x, verbose=0))

    values = json.loads(run("inspect", "plain.keras", "--json", cwd=folder))
    assert values["compression"] == 4.0
    assert [(layer["name"], layer["kept"]) for layer in values["layers"]] == [("fc1", 48), ("fc2", 12)]


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--compression=8"], [None, None]),
        (["--compression=8", "--budget=uniform"], [24, 6]),
        (["--compression=4", "--budget=global_magnitude", "--block_size=2,1"], [None, None]),
        (["--quality=1.0", "--layers=fc1"], [None, 48]),
        (["--sparsity=0.5", "--n_of_m=2,4"], [96, 24]),
    ],
)
def test_connections_are_cut_as_the_flags_say(folder, flags, kept):
    values = json.loads(run("prune", "dense.keras", "out.keras", "--json", *flags, cwd=folder))
    found = [layer["kept"] for layer in values["layers"]]
    assert all(wanted in (None, number) for number, wanted in zip(found, kept, strict=True))
    if flags[0].startswith("--compression"):
        assert sum(found) == pytest.approx(240 / float(flags[0].partition("=")[2]), abs=2)
    assert [row.kept for row in kp.report(keras.models.load_model(folder / "out.keras")).rows] == found


@pytest.mark.parametrize(
    ("tool", "arguments", "message"),
    [
        ("inspect", ["missing.keras"], "'missing.keras', which is no file"),
        ("inspect", ["notes.keras"], "Expected a model that Keras 3 saved as .keras"),
        ("prune", ["notes.keras", "out.keras", "--sparsity=0.5"], "Expected a model that Keras 3 saved as .keras"),
        ("prune", ["dense.keras", "nowhere/out.keras", "--sparsity=0.5"], "a .keras file in a folder that exists"),
        ("prune", ["dense.keras", "out.keras", "--sparsity=90"], "sparsity is the share of a layer's connections"),
        ("prune", ["dense.keras", "out.keras"], "one of --quality, --sparsity and --compression"),
        ("prune", ["dense.keras", "out.keras", "--quality=1", "--block_size=4,x"], "Received: block_size=(4, 'x')"),
        ("prune", ["dense.keras", "out.keras", "--quality=1", "--layers=conv"], "which here are ['fc1', 'fc2']"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_exit_status_2_and_nothing_is_written(folder, tool, arguments, message):
    (folder / "notes.keras").write_text("not a model")
    before = sorted(folder.iterdir())
    done = start(tool, *arguments, cwd=folder)
    assert done.returncode == 2
    assert done.stdout == ""
    last = done.stderr.splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert "Traceback" not in done.stderr
    assert sorted(folder.iterdir()) == before


@pytest.mark.parametrize("tool", ["prune", "inspect"])
def test_help_shows_commands_to_copy_and_every_flag(folder, tool):
    text = start(tool, "--help", cwd=folder).stdout
    assert f"python -m keras_prune.tools.{tool} " in text
    assert "--[no]json" in text
