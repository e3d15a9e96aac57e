"""The architectures of keras.applications go through prune, two cuts, save, load and strip with equal outputs."""

import json
import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).parent.parent
# The quickest of all, each of another family; benchmarks/prune_architectures.py takes all 40 of them.
NAMES = ["MobileNetV3Small", "MobileNetV2", "MobileNet", "VGG16", "ResNet50", "ConvNeXtTiny", "DenseNet121"]
QUICK = 3


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the backend that runs a few steps eagerly is quickest"
)
@pytest.mark.parametrize(
    "name", [*NAMES[:QUICK], *(pytest.param(name, marks=pytest.mark.slow) for name in NAMES[QUICK:])]
)
def test_an_architecture_is_pruned_saved_loaded_and_stripped(name):
    command = [sys.executable, ROOT / "benchmarks/prune_architectures.py", f"--one={name}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    measured = json.loads(process.stdout.splitlines()[-1])
    checks = ("unchanged_by_prune", "zero_where_cut", "same_after_load", "same_after_strip")
    assert all(measured[check] for check in checks), measured
    assert measured["compression"] > 1.5
    assert measured["left_out"] == {}
