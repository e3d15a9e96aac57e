import json
import pathlib
import statistics

import pytest

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.parametrize("page", ["README.md", "docs/results/mnist.md"])
def test_table_of_mnist_shows_its_measurements(page):
    text = (ROOT / page).read_text()
    runs = [json.loads((ROOT / f"docs/data/mnist_{seed}.json").read_text()) for seed in range(5)]
    means = {name: statistics.mean(run[name] for run in runs) for name in ("reference_error", "test_error")}
    for run in [*runs, runs[0] | means | {"seed": "mean"}]:
        row = "| {seed} | {reference_error:.2f}% | {test_error:.2f}% | {compression:.1f}x |"
        assert row.format(**run) in text
