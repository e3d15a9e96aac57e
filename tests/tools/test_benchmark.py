import csv
import json
import os
import subprocess
import sys
from pathlib import Path

import keras
import pytest
from absl import flags
from absl.testing import flagsaver

import keras_prune as kp
from keras_prune.tools import benchmark

ROOT = Path(__file__).resolve().parents[2]
flags.FLAGS.mark_as_parsed()


def start(*arguments, cwd):
    """Runs the tool in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "keras_prune.tools.benchmark", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def model_file(tmp_path):
    """A small pruned model."""
    layers = [keras.Input((16,)), keras.layers.Dense(12, "relu", name="fc1"), keras.layers.Dense(3, name="fc2")]
    model = kp.prune(keras.Sequential(layers, name="net"), kp.TargetSparsity(0.75))
    kp.cut(model)
    model.save(tmp_path / "model.keras")
    return tmp_path / "model.keras"


def test_the_files_hold_every_measurement_and_the_table_is_printed(model_file, tmp_path):
    engines = "--engines=TensorFlow,JAX,PyTorch,SciPy CSR"  # At least one of them is there, and none takes long.
    done = start(model_file, engines, "--rounds=1", "--batch_sizes=1,3", "--output_dir=out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    values = json.loads((tmp_path / "out/benchmark.json").read_text())
    found = {(m["workload"], m["batch_size"]) for m in values["measurements"]}
    assert found >= {(f"net/{layer}", batch) for layer in ("fc1", "fc2") for batch in (1, 3)}
    rows = list(csv.DictReader((tmp_path / "out/benchmark.csv").read_text().splitlines()))
    assert [row["engine"] for row in rows] == [m["engine"] for m in values["measurements"]]
    assert [float(row["microseconds"]) for row in rows] == [m["microseconds"] for m in values["measurements"]]
    assert {row["density"] for row in rows if row["workload"] == "net/fc1"} == {"0.25"}
    assert values["machine"]["device"] == "cpu:0"
    for reason in values["absent"].values():
        assert reason
    for line in values["advice"]:
        assert line in done.stdout
    assert "fastest of each row" in done.stdout
    assert not list((tmp_path / "out").glob("*.tmp*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"layers": ["resnet"]},
            r"The layers are those of \['alexnet', 'vgg16'\], or one of .*'alexnet/fc6'.* Received: 'resnet'",
        ),
        ({"layers": ["alexnet"], "densities": ["2"]}, r"in \(0, 1\]. Received: \[2.0\]"),
        ({"layers": ["alexnet"], "batch_sizes": ["one"]}, "--batch_sizes is a list of numbers such as 1,64"),
        ({"layers": ["alexnet"], "batch_sizes": ["0"]}, "batch_sizes must be integers of at least 1"),
        ({"layers": ["alexnet"], "device": "gpu:99"}, r"that an installed engine can use: \['cpu:0'"),
        ({"layers": ["alexnet"], "threads": 4096}, "--threads"),
        ({"layers": []}, "--layers names layers"),
        ({"layers": ["alexnet"], "engines": ["MKL"]}, r"--engines are some of \['TensorFlow', .* Received: \['MKL'\]"),
    ],
)
def test_what_cannot_be_used_is_named_before_anything_is_written(settings, message, tmp_path):
    with flagsaver.flagsaver(output_dir=str(tmp_path / "out"), **settings), pytest.raises(ValueError, match=message):
        benchmark.main()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("place", ["taken", "taken/out"])
def test_a_folder_that_cannot_be_made_is_refused_before_anything_is_measured(place, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark, "benchmark", None)
    (tmp_path / "taken").write_text("a file")
    with (
        flagsaver.flagsaver(output_dir=str(tmp_path / place), layers=["alexnet/fc8"]),
        pytest.raises(ValueError, match=r"--output_dir is a folder .* Received: .*taken is no folder"),
    ):
        benchmark.main()


def test_a_model_has_layers_of_its_own(model_file):
    with flagsaver.flagsaver(densities=["0.1"]), pytest.raises(ValueError, match="A model has layers and densities"):
        benchmark.main(str(model_file))


def test_a_missing_model_is_one_line_and_status_2(tmp_path):
    done = start("missing.keras", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines()[-1].startswith("error: Expected a model that Keras saved.")
    assert not list(tmp_path.rglob("benchmark.json"))


def test_a_missing_gpu_is_one_line_and_status_2(tmp_path):
    done = start("--layers=alexnet/fc8", "--device=gpu:99", cwd=tmp_path)
    assert done.returncode == 2
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: `device` must be one that an installed engine can use: ['cpu:0'")
    assert last.endswith("Received: device='gpu:99'")
    assert not list(tmp_path.rglob("benchmark.json"))


def test_threads_are_cores(monkeypatch):
    used = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: used.append(cores), raising=False)
    benchmark._use_cores(2)
    assert used == [[0, 2]]
