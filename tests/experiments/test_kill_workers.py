"""Workers that are killed and restarted end like an unbroken run, in real processes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from helpers import TORCH

EXPERIMENTS = pathlib.Path(__file__).parents[2] / "experiments"


@pytest.mark.slow
@pytest.mark.skipif(TORCH, reason="the experiment starts workers of TensorFlow and processes of JAX")
@pytest.mark.parametrize("workers", [2, 3])
def test_killed_workers_end_as_an_unbroken_run(workers, tmp_path):
    flags = [f"--workers={workers}", "--kills=3", "--epochs=20", f"--results={tmp_path / 'results.json'}"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, str(EXPERIMENTS / "kill_workers.py"), *flags]
    experiment = subprocess.Popen(command, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    try:
        log, _ = experiment.communicate(timeout=1500)
    finally:
        experiment.terminate()  # It ends its workers then.
    assert experiment.returncode == 0, log
    [[row]] = [list(kind.values()) for kind in json.loads((tmp_path / "results.json").read_text()).values()]
    assert row["equal"]
    assert row["kills"] == {"one": 1, "all": 1, "between saves": 1}
    assert row["arrays"] > 15
