import json
import math

import pytest
from benchmark_rows import measurement, results

from keras_prune.benchmark.results import Measurement


def test_speed_ups_are_over_the_fastest_dense_engine():
    found = results(
        [
            measurement("TensorFlow", 100, baseline=True),
            measurement("LiteRT", 50, baseline=True),
            measurement("MKL CSR", 10),
        ],
        [measurement("TensorFlow", 80, batch_size=64, baseline=True), measurement("MKL CSR", 160, batch_size=64)],
        [measurement("MKL CSR", 10, density=0.2)],
    )
    assert [[row.speed_up for row in group] for group in found.groups()] == [[0.5, 1.0, 5.0], [1.0, 0.5], [None]]


def test_table_marks_the_fastest_of_each_group():
    group = [measurement("LiteRT", 50, baseline=True), measurement("MKL CSR", 10)]
    lines = str(results(group, absent={"JAX": "jax not installed"})).splitlines()
    assert [line for line in lines if "*5.00x" in line and "MKL CSR" in line]
    assert [line for line in lines if " 1.00x" in line and "LiteRT" in line]
    assert "absent: JAX - jax not installed" in lines


def test_crossovers_are_where_the_curves_meet():
    groups = [  # MKL takes time in proportion to the density, and as much as dense at 0.16.
        [
            measurement("LiteRT", 100, density, baseline=True),
            measurement("MKL CSR", 100 * density / 0.16, density),
            measurement("SciPy CSR", 101, density),
            measurement("JAX BCSR", 99, density),
        ]
        for density in (0.02, 0.08, 0.32)
    ]
    found = {one.engine: one.density for one in results(*groups).crossovers()}
    assert found == {"MKL CSR": pytest.approx(0.16), "SciPy CSR": 0, "JAX BCSR": math.inf}
    text = str(results(*groups))
    assert "net/fc, batch 1: MKL CSR is faster than dense below a density of 16.0%" in text
    assert "SciPy CSR is slower than dense at all these densities" in text
    assert "JAX BCSR is faster than dense at all these densities" in text
    assert results(groups[0]).crossovers() == []


def test_results_can_be_written_as_json():
    groups = [
        [measurement("LiteRT", 50, density, baseline=True), measurement("MKL CSR", 10, density)]
        for density in (0.1, 0.2)
    ]
    found = results(*groups, refused={("net", "JAX"): "no"})
    values = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert values["refused"] == [{"workload": "net", "engine": "JAX", "reason": "no"}]
    assert [(row["engine"], row["speed_up"]) for row in values["rows"]] == [("LiteRT", 1), ("MKL CSR", 5)] * 2
    assert set(values["rows"][0]) == set(Measurement._fields)
    assert values["crossovers"][0]["density"] is None
    assert repr(found) == "<Results: 4 measurements on cpu:0>"
