import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_prune as kp

ROOT = Path(__file__).resolve().parents[2]


def start(*arguments, cwd):
    """Runs the tool in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "keras_prune.tools.benchmark", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def model_file(tmp_path):
    """A small wrapped model that was cut."""
    layers = [keras.Input((16,)), keras.layers.Dense(12, "relu", name="fc1"), keras.layers.Dense(3, name="fc2")]
    model = kp.prune(keras.Sequential(layers, name="net"), kp.TargetSparsity(0.75))
    for layer in model.layers:
        layer.cut()
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_the_files_hold_every_measurement_and_the_table_is_printed(model_file, tmp_path):
    done = start(model_file, "--rounds=1", "--batch_sizes=1,3", "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "out/benchmark.json").read_text())
    found = {(m["workload"], m["batch_size"]) for m in values["measurements"]}
    assert found >= {(f"net/{layer}", batch) for layer in ("fc1", "fc2") for batch in (1, 3)}
    rows = list(csv.DictReader((tmp_path / "out/benchmark.csv").read_text().splitlines()))
    assert [row["engine"] for row in rows] == [m["engine"] for m in values["measurements"]]
    assert [float(row["microseconds"]) for row in rows] == [m["microseconds"] for m in values["measurements"]]
    assert {row["density"] for row in rows if row["workload"] == "net/fc1"} == {"0.25"}
    assert values["machine"]["device"] == "/CPU:0"
    for reason in values["absent"].values():
        assert reason
    for line in values["advice"]:
        assert line in done.stdout
    assert "fastest of each row" in done.stdout
    assert not list((tmp_path / "out").glob("*.tmp*"))


def test_json_is_all_that_goes_to_standard_output(model_file, tmp_path):
    done = start(model_file, "--json", "--rounds=1", "--batch_sizes=1", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == json.loads((tmp_path / "output/benchmark/benchmark.json").read_text())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing.keras"], "missing.keras"),
        (["--layers=resnet"], "The layers are those of ['alexnet', 'vgg16']. Received: 'resnet'"),
        (["--layers=alexnet", "--densities=2"], "in (0, 1]. Received: [2.0]"),
        (["--layers=alexnet", "--batch_sizes=one"], "--batch_sizes is a list of numbers"),
        (["--layers=alexnet", "--batch_sizes=0"], "batch_sizes must be integers of at least 1"),
        (["--layers=alexnet", "--device=/GPU:99"], "device must be one that an installed engine has: ['/CPU:0'"),
        (["--layers=alexnet", "--threads=4096"], "--threads"),
    ],
)
def test_what_cannot_be_used_is_one_line_and_status_2(arguments, message, tmp_path):
    done = start(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert message in last
    assert not list(tmp_path.rglob("benchmark.json"))


def test_a_model_and_layers_together_are_refused(model_file, tmp_path):
    done = start(model_file, "--layers=alexnet", cwd=tmp_path)
    assert done.returncode != 0
    assert "Expected the files" in done.stdout + done.stderr
