"""The script that measures on a GPU, run on the CPU with small shapes, and the tables in the documents."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
needs_an_engine = pytest.mark.skipif(
    not any(importlib.util.find_spec(module) for module in ("jax", "torch", "tensorflow")), reason="no backend"
)


def run(*arguments):
    command = [sys.executable, ROOT / "experiments/gpu.py", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture
def results():
    return json.loads((ROOT / "docs/results/gpu.json").read_text(encoding="utf-8"))


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


def test_documented_tables_are_those_of_the_results(results, monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gpu_tables

    page = (ROOT / "docs/gpu.md").read_text(encoding="utf-8")
    for title, table in gpu_tables.blocks(results).items():
        assert f"<!-- {title} -->\n\n{table}\n\n<!-- end -->" in page
    assert gpu_tables.document(page, results) == page


def test_what_was_not_measured_says_so(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "experiments")
    import gpu_tables

    for table in gpu_tables.blocks({}).values():
        cells = [cell for line in table.splitlines()[2:] if "published" not in line for cell in line.split(" | ")[1:]]
        assert {cell.strip(" |") for cell in cells} <= {"not measured", *gpu_tables.BACKENDS}
