"""The script for large networks runs on the smallest of the paper's networks."""

import importlib.util
import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
needs_tensorflow = pytest.mark.skipif(
    importlib.util.find_spec("tensorflow") is None or not sys.platform.startswith("linux"),
    reason="the script measures memory as Linux tells it, and exports with TensorFlow",
)


def run(*flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "KERAS_BACKEND": "tensorflow"}
    command = [sys.executable, ROOT / "experiments/large_networks.py", *flags]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, check=False)


def measure(folder, *phases):
    flags = ["--networks=lenet_300_100", f"--json={folder / 'results.json'}", f"--folder={folder / 'models'}"]
    done = run(*flags, *(f"--phase={phase}" for phase in phases))
    assert done.returncode == 0, done.stderr
    return json.loads((folder / "results.json").read_text())["lenet_300_100"], done.stdout


@needs_tensorflow
def test_large_networks_cuts_as_the_paper_and_resumes(tmp_path):
    measured, _ = measure(tmp_path, "build", "prune")
    assert list(measured["prune"])[:4] == ["prune", "cut", "strip", "save_sparse"]
    assert all(step["peak"] >= step["before"] for step in list(measured["prune"].values())[:4])

    again, output = measure(tmp_path, "build", "prune", "load")
    assert again["prune"] == measured["prune"]
    assert [(row["layer"], row["weights"], row["kept"]) for row in again["load"]["rows"]] == [
        ("fc1", 235_200, 18_816),  # 8%
        ("fc2", 30_000, 2_700),  # 9%
        ("fc3", 1_000, 260),  # 26%
    ]
    assert "| fc1 | 235,200 | 235,000 | 18,816 | 8.00% | 8% | 470,400 | 470,000 | 8.0% | 8% |" in output


@pytest.mark.slow
@needs_tensorflow
def test_large_networks_runs_every_phase(tmp_path):
    phases = ["build", "prune", "load", "to_sparse", "files", "float32", "float16", "dynamic_int8"]
    measured, output = measure(tmp_path, *phases)
    assert list(measured) == phases
    dense = 4 * measured["build"]["parameters"]
    sizes = measured["files"]["bytes"]
    assert sizes["kprune_float16"] < sizes["kprune_smallest"] <= sizes["kprune"] < 0.15 * dense
    assert sizes["kprune"] < sizes["keras_gzip"] < sizes["keras"]
    assert all(measured[weights]["bytes"]["tflite"] < dense for weights in ("float32", "float16", "dynamic_int8"))
    assert set(measured["to_sparse"]["formats"]) <= {"fc1", "fc2", "fc3"}
    assert all(text in output for text in ("`export_tflite`", "TFLite float16, as exported", "`.keras`, dense"))


@needs_tensorflow
def test_large_networks_names_the_phase_that_fails(tmp_path):
    flags = ["--networks=lenet_300_100", f"--json={tmp_path / 'results.json'}", f"--folder={tmp_path / 'models'}"]
    done = run(*flags, "--phase=load")
    assert done.returncode != 0
    assert "lenet_300_100/load ended with status 1" in done.stderr
    assert "sparse.kprune" in done.stderr
    assert not (tmp_path / "results.json").exists()


def test_large_networks_rejects_unknown_phases():
    done = run("--phase=train")
    assert done.returncode == 1
    assert "flag --phase=train" in done.stderr
