"""The short versions of the tutorials and examples of tfmot, run as processes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
TUTORIALS = sorted(file.stem for file in (ROOT / "experiments/tfmot").glob("*.py") if file.stem != "common")


def run(name):
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, ROOT / f"experiments/tfmot/{name}.py"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return json.loads(done.stdout.splitlines()[-1])["sparsity"]


def test_comprehensive_guide_prunes_half():
    assert list(run("comprehensive_guide").values()) == [0.5]


@pytest.mark.slow
@pytest.mark.parametrize("name", TUTORIALS)
def test_tutorials_run(name):
    assert 0.4 < max(run(name).values()) < 0.9
