"""The script that measures on a GPU, run on the CPU with small shapes, and the tables in the documents."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
needs_an_engine = pytest.mark.skipif(
    not any(importlib.util.find_spec(module) for module in ("jax", "torch", "tensorflow")), reason="no backend"
)


def run(*arguments):
    command = [sys.executable, ROOT / "experiments/gpu.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def results():
    return json.loads((ROOT / "docs/data/gpu.json").read_text(encoding="utf-8"))


@needs_an_engine
def test_small_layers_are_measured_on_the_cpu(tmp_path):
    done = run("--small", "--device=cpu", "--sections=layers", f"--output={tmp_path / 'gpu.json'}")
    assert done.returncode == 0, done.stderr
    found = json.loads((tmp_path / "gpu.json").read_text())["layers"]
    assert found["ends"] == []
    assert [(row["layer"], row["batch"]) for row in found["rows"]] == [
        (layer, batch) for batch in (1, 8) for layer in ("alexnet/fc6", "alexnet/fc8")
    ]
    for row in found["rows"]:
        assert row["entries"], row["refused"]
        assert all(entry["error"] <= 2e-2 and entry["microseconds"] > 0 for entry in row["entries"])
    names = {entry["engine"] for row in found["rows"] for entry in row["entries"]}
    assert "tf.sparse (COO)" in names | set(found["absent"])


@pytest.mark.slow
@needs_an_engine
def test_small_training_and_checks_run_on_the_cpu(tmp_path):
    done = run("--small", "--device=cpu", "--sections=training,smoke", f"--output={tmp_path / 'gpu.json'}")
    assert done.returncode == 0, done.stderr
    results = json.loads((tmp_path / "gpu.json").read_text())
    ran = [backend for backend in ("jax", "torch", "tensorflow") if importlib.util.find_spec(backend)]
    for backend in ran:
        assert all("plain_ms" in entry for entry in results["training"][backend]["entries"]), results["training"]
        assert all(entry["passed"] for entry in results["smoke"][backend]["entries"]), results["smoke"]


def test_full_run_without_a_gpu_is_refused(tmp_path):
    done = run("--device=cpu", f"--output={tmp_path / 'gpu.json'}")
    assert done.returncode == 1
    assert done.stderr.strip() == "The full run needs a GPU. Use --small to try the script on a CPU."
    assert not (tmp_path / "gpu.json").exists()


def test_missing_measurements_are_named(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gpu_tables

    for table in gpu_tables.blocks({}).values():
        cells = [cell for line in table.splitlines()[2:] if "published" not in line for cell in line.split(" | ")[1:]]
        assert {cell.strip(" |") for cell in cells} <= {"not measured", *gpu_tables.BACKENDS}


def section(layer, engine, microseconds, copies=2, products=2):
    entry = {"engine": engine, "microseconds": microseconds, "copies": copies, "products": products}
    row = {"layer": layer, "batch": 1, "entries": [entry], "refused": {}}
    return {"layers": {"machine": {"driver": "1"}, "rows": [row], "ends": ["no time was left"]}}


def test_newer_rows_replace_older_ones(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gpu_merge

    first = section("a/fc", "PyTorch float32", 2.0)["layers"]
    other = section("b/fc", "PyTorch float32", 3.0)["layers"]
    first["rows"] += other["rows"]
    found = gpu_merge.merge({}, {"layers": first, "smoke": {"jax": 1}}, "old script")
    found = gpu_merge.merge(found, section("a/fc", "PyTorch float32", 1.0), "new script")
    rows = [(row["layer"], row["run"], row["entries"][0]["microseconds"]) for row in found["layers"]["rows"]]
    assert rows == [("a/fc", 2, 1.0), ("b/fc", 1, 3.0)]
    assert [(run["run"], run["remark"], run["driver"]) for run in found["layers"]["runs"]] == [
        (1, "old script", "1"),
        (2, "new script", "1"),
    ]
    assert found["smoke"] == {"jax": 1}


def test_times_of_joined_products_are_not_taken(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gpu_merge

    found = gpu_merge.merge({}, section("a/fc", "JAX float32", 9.0))
    found = gpu_merge.merge(found, section("a/fc", "JAX float32", 1.0, products=32))
    (row,) = found["layers"]["rows"]
    assert row["run"] == 2
    assert [(entry["run"], entry["microseconds"]) for entry in row["entries"]] == [(1, 9.0)]
    assert row["refused"]["JAX float32"].startswith("run 2: 1 us for each of 32 products with 2 copies")
    assert gpu_merge.merge({}, section("a/fc", "JAX float32", 1.0, products=32))["layers"]["rows"][0]["entries"] == []


def test_documented_times_do_not_exceed_the_memory(results):
    copy = results["layers"]["machine"]["copy_gb_per_s"]
    for row in results["layers"]["rows"]:
        assert row["run"] in [run["run"] for run in results["layers"]["runs"]]
        for entry in row["entries"]:
            assert entry["weight_bytes"] / entry["microseconds"] / 1e3 < copy, (row["layer"], row["batch"], entry)
