"""The script that measures growth runs on tiny models, and the calls of operations grow linearly."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from helpers import calls_of, growth_of

ROOT = pathlib.Path(__file__).parents[2]
needs_linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is measured as Linux tells it")


@pytest.fixture
def growth(import_script):
    return import_script("growth")


def run(*flags):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, ROOT / "experiments/growth.py", *flags]
    return subprocess.run(command, env=environment, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


@needs_linux
def test_growth_measures_sizes_and_resumes(tmp_path):
    import keras

    flags = ["--axes=layers", "--repeats=2", f"--json={tmp_path / 'growth.json'}"]
    done = run(*flags, "--layers=2", "--operation=apply masks", "--operation=report")
    assert done.returncode == 0, done.stderr
    (results,) = json.loads((tmp_path / "growth.json").read_text()).items()
    assert results[0] == keras.backend.backend()
    (size,) = results[1]["layers"].values()
    assert (size["weights"], size["layers"], list(size["operations"])) == (8192, 2, ["apply masks", "report"])
    assert all(len(took["seconds"]) == len(took["bytes"]) == 2 for took in size["operations"].values())

    done = run(*flags, "--layers=2", "--operation=report")
    assert done.returncode == 0, done.stderr
    assert "measured" not in done.stdout
    assert "| report |" in done.stdout


def test_growth_fits_the_upper_sizes_alone(growth):
    sizes, seconds = [1, 10, 100, 200, 400], [9.0, 9.0, 0.1, 0.2, 0.4]
    assert growth.exponent(sizes, seconds) == pytest.approx(1.0)
    assert growth.exponent(sizes, [one * size for one, size in zip(seconds, sizes, strict=True)]) == pytest.approx(2.0)
    assert growth.exponent(sizes, [1e-3 * one for one in seconds]) is None


def test_table_puts_each_operation_under_its_size(growth):
    took = {"seconds": [1.0], "bytes": [0]}
    results = {
        str(size): {"layers": size, "operations": dict.fromkeys(names, took)}
        for size, names in {2: "ab", 4: "a", 8: "bc"}.items()
    }
    rows = [line.split("|")[1:5] for line in growth.table("layers", results).splitlines()[2:]]
    assert [[cell.strip() for cell in row] for row in rows] == [
        ["a", "1", "1", "-"],
        ["b", "1", "-", "1"],
        ["c", "-", "-", "1"],
    ]


@pytest.mark.slow
def test_calls_of_each_operation_grow_linearly(growth, tmp_path):
    calls = {}
    for layers in (8, 16, 32):
        (tmp_path / str(layers)).mkdir()
        subject = growth.Subject("functional", layers, tmp_path / str(layers))
        for name, prepare in subject.operations.items():
            if "(Keras)" not in name:
                prepare()()  # Imports and compilation in the first call do not count.
                calls.setdefault(name, []).append(calls_of(prepare()))
    assert {name: growth_of(counts) for name, counts in calls.items() if growth_of(counts) > 1.1} == {}
