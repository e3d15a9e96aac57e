import csv
import json
import os

import pytest

from keras_prune.tools import benchmark

ENGINES = "--engines=TensorFlow,JAX,PyTorch,SciPy CSR"  # One of them is installed everywhere, and they are quick.


def test_benchmark_writes_each_measurement(folder, run):
    text = run("benchmark", "dense.keras", ENGINES, "--rounds=1", "--batch_sizes=1,3", "--output_dir=out")
    values = json.loads((folder / "out/benchmark.json").read_text())
    found = {(row["workload"], row["batch_size"]) for row in values["rows"]}
    assert found >= {(f"net/{layer}", batch) for layer in ("fc1", "fc2") for batch in (1, 3)}
    rows = list(csv.DictReader((folder / "out/benchmark.csv").read_text().splitlines()))
    assert [row["engine"] for row in rows] == [row["engine"] for row in values["rows"]]
    assert [float(row["microseconds"]) for row in rows] == [row["microseconds"] for row in values["rows"]]
    assert values["machine"]["device"] == "cpu:0"
    assert all(line in " ".join(text.split()) for line in values["advice"])
    assert "fastest of each row" in text
    assert not list((folder / "out").glob("*.tmp*"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--layers=resnet"], "`name` must be one of ['alexnet', 'vgg16'] or "),
        (["--layers=alexnet", "--densities=2"], "in (0, 1]. Received: densities=[2.0]"),
        (["--layers=alexnet", "--batch_sizes=one"], "must be integers, such as 2,4. Received: --batch_sizes=one"),
        (["--layers=alexnet", "--batch_sizes=0"], "`batch_sizes` must be integers of at least 1"),
        (["--layers=alexnet", "--threads=4096"], "Received: --threads=4096"),
        (["--layers=alexnet/fc8", "--device=gpu:99"], "Received: device='gpu:99'"),
        (["--layers=alexnet", "--engines=MKL"], "Received: ['MKL']"),
        ([], "Expected a model, or --layers such as alexnet,vgg16/fc6. Received: neither"),
        (["dense.keras", "--densities=0.1"], "--layers and --densities cannot be combined with a model"),
    ],
)
def test_benchmark_rejects_invalid_flags(folder, run, arguments, message):
    assert message in run("benchmark", *arguments, "--output_dir=out", status=2)
    assert not (folder / "out").exists()


@pytest.mark.parametrize("place", ["taken", "taken/out"])
def test_benchmark_rejects_folders_before_measuring(folder, run, place):
    (folder / "taken").write_text("a file")
    error = run("benchmark", "--layers=alexnet/fc8", f"--output_dir={place}", status=2)
    assert f"taken is not a folder. Received: --output_dir={place}" in error


def test_benchmark_uses_as_many_cores_as_threads(monkeypatch):
    used = []
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {0, 2, 5}, raising=False)
    monkeypatch.setattr(os, "sched_setaffinity", lambda process, cores: used.append(cores), raising=False)
    with benchmark._cores(2):
        assert used == [[0, 2]]
    assert used[1:] == [[0, 2, 5]]
