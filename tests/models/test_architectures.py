"""The architectures of keras.applications go through prune, two cuts, save, load and strip with equal outputs."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parents[2]
SMALLER_HALF = list(runpy.run_path(str(ROOT / "experiments/architectures.py"))["architectures"]())[:20]
QUICK = {"tensorflow": 3, "torch": 20}.get(keras.backend.backend(), 0)


@pytest.mark.skipif(QUICK == 0, reason="JAX compiles every operation of every shape, which takes minutes a network")
@pytest.mark.parametrize(
    "name", [*SMALLER_HALF[:QUICK], *(pytest.param(name, marks=pytest.mark.slow) for name in SMALLER_HALF[QUICK:])]
)
def test_an_architecture_is_pruned_saved_loaded_and_stripped(name):
    if name.startswith("NASNet") and keras.backend.backend() == "torch":
        pytest.skip("Keras has no NASNet on PyTorch")
    command = [sys.executable, ROOT / "experiments/prune_architectures.py", f"--one={name}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    measured = json.loads(process.stdout.splitlines()[-1])
    checks = ("unchanged_by_prune", "zero_where_cut", "same_after_load", "same_after_strip")
    assert all(measured[check] for check in checks), measured
    assert measured["compression"] > 1.5
    assert measured["left_out"] == {}
