"""Architectures of keras.applications keep their outputs through prune, save, load and strip."""

import json
import os
import pathlib
import runpy
import subprocess
import sys

import pytest
from helpers import JAX, TORCH

ROOT = pathlib.Path(__file__).parents[2]
SMALLER_HALF = list(runpy.run_path(str(ROOT / "experiments/architectures.py"))["architectures"]())[:20]
# JAX compiles every operation of every shape, which takes minutes a network.
QUICK = [] if JAX else SMALLER_HALF[:3]


@pytest.mark.parametrize(
    "name", [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SMALLER_HALF[len(QUICK) :])]
)
def test_prune_takes_architectures_of_keras(name):
    if name.startswith("NASNet") and TORCH:
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
