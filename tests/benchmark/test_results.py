import dataclasses
import json
import math
import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

from keras_prune.benchmark import runner
from keras_prune.benchmark.advice import advice
from keras_prune.benchmark.engine import Engine, UnsupportedModelError, kernel_of
from keras_prune.benchmark.results import Measurement, Results
from keras_prune.benchmark.runner import benchmark, full_float32
from keras_prune.benchmark.workloads import Workload, _random_layer, model_workloads


def measurement(engine, microseconds, density=0.1, batch_size=1, baseline=False, spread=0.01, workload="net/fc"):
    """What a run of 10 calls would have measured."""
    low, high = microseconds * (1 - spread), microseconds * (1 + spread)
    return Measurement(workload, density, batch_size, engine, baseline, microseconds, low, high, 10, 1_000_000, 0.0)


def results(*measurements, absent=(), refused=()):
    return Results(list(measurements), dict(absent), dict(refused), {"processor": "x86_64"})


class NumPy(Engine):
    name = "numpy"
    baseline = True
    weight_bytes = 8

    def __init__(self, model, device):
        self.kernel = kernel_of(model)

    def prepare(self, inputs):
        return lambda: inputs @ self.kernel


class Wrong(NumPy):
    name = "wrong"
    baseline = False

    def prepare(self, inputs):
        return lambda: 1.001 * (inputs @ self.kernel)


class Refusing(NumPy):
    name = "refusing"

    def __init__(self, model, device):
        raise UnsupportedModelError("not today")


def small(inputs=16):
    return Workload("small", 0.25, _random_layer((inputs, 8), 0.25))


def test_every_engine_is_measured_for_every_batch_size():
    found = benchmark([small()], batch_sizes=[1, 3], rounds=2, engines=[NumPy])
    assert [(m.engine, m.batch_size, m.density) for m in found.measurements] == [("numpy", 1, 0.25), ("numpy", 3, 0.25)]
    for m in found.measurements:
        assert 0 < m.low <= m.microseconds <= m.high
        assert m.calls >= 2
        assert m.difference < 1e-6
    assert found.machine["device"] == "cpu:0"


def test_an_engine_with_wrong_outputs_is_not_timed_but_reported():
    found = benchmark([small()], batch_sizes=[1], rounds=1, engines=[NumPy, Wrong])
    assert [m.engine for m in found.measurements] == ["numpy"]
    assert found.refused["small", "wrong"] == (
        "its outputs differ from the dense ones by 1.0e-03 of the largest at batch 1"
    )
    assert "not timed: wrong on small - its outputs differ" in str(found)


def test_an_engine_that_cannot_run_a_model_is_reported_with_its_reason():
    found = benchmark([small()], batch_sizes=[1], rounds=1, engines=[NumPy, Refusing])
    assert found.refused == {("small", "refusing"): "not today"}


@pytest.mark.parametrize("fails_in", ["__init__", "prepare", "call"])
def test_an_engine_that_fails_takes_no_other_down(fails_in):
    class Failing(NumPy):
        name = "failing"

        def fail(self, *arguments):
            raise RuntimeError("no such operator\nand more")

        def prepare(self, inputs):
            return self.fail

    if fails_in != "call":
        setattr(Failing, fails_in, Failing.fail)
    found = benchmark([small()], batch_sizes=[1, 2], rounds=1, engines=[Failing, NumPy])
    assert [m.engine for m in found.measurements] == ["numpy", "numpy"]
    assert found.refused == {("small", "failing"): "it fails with RuntimeError: no such operator"}


def test_a_pattern_that_a_shape_cannot_have_is_reported():
    class Blocks(NumPy):
        name = "blocks"
        pattern = "4x1"

    found = benchmark([small(inputs=6)], batch_sizes=[1], rounds=1, engines=[NumPy, Blocks])
    assert found.refused == {("small", "blocks"): "there is no 4x1 pattern of it to run"}
    assert [m.engine for m in benchmark([small()], [1], rounds=1, engines=[NumPy, Blocks]).measurements] == [
        "numpy",
        "blocks",
    ]
    assert benchmark([small(inputs=6)], batch_sizes=[1], rounds=1, engines=[Blocks]).left_out == {}


class Keras(NumPy):
    """Runs whole models."""

    def __init__(self, model, device):
        self.model = model

    def prepare(self, inputs):
        return lambda: keras.ops.convert_to_numpy(self.model(inputs))


def two_inputs():
    inputs = [keras.Input((3,), name="one"), keras.Input((3,), name="two")]
    return keras.Model(inputs, layers.Dense(2, name="fc")(layers.Add()(inputs)))


def two_outputs():
    inputs = keras.Input((3,))
    return keras.Model(inputs, [layers.Dense(2, name="fc")(inputs), inputs])


def named_output():
    inputs = keras.Input((3,))
    return keras.Model(inputs, {"answer": layers.Dense(2, name="fc")(inputs)})


@keras.saving.register_keras_serializable(package="test_results")
class OfItsOwn(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.fc = layers.Dense(2, name="fc")

    def call(self, inputs):
        return self.fc(inputs)


def subclassed():
    model = OfItsOwn()
    model(np.zeros((1, 3), "float32"))
    return model


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (two_inputs, "with one input, and it has 2"),
        (two_outputs, "with one output, and it has 2"),
        (named_output, "one output that is no dict"),
        (subclassed, "only Sequential and Functional"),
    ],
)
def test_of_a_model_that_no_engine_runs_the_layers_are_measured(make, reason):
    model = make()
    found = benchmark(model_workloads(model), batch_sizes=[2], rounds=1, engines=[NumPy])
    assert list(found.left_out) == [model.name]
    assert reason in found.left_out[model.name]
    assert [m.workload for m in found.measurements] == [f"{model.name}/fc"]
    note = f"left out: {model.name} - {found.left_out[model.name]}"
    assert note in " ".join(str(found).split())
    assert note in str(advice(found))
    assert found.as_dict()["left_out"] == found.left_out


@pytest.mark.parametrize("dtype", ["int32", "float32", "float16"])
def test_inputs_are_of_the_dtype_that_a_model_takes(dtype):
    seen = []

    class Looking(Keras):
        def prepare(self, inputs):
            seen.append(inputs)
            return super().prepare(inputs)

    inputs = keras.Input((4,), dtype=dtype)
    outputs = layers.Embedding(2, 3)(inputs) if dtype == "int32" else layers.Dense(3)(inputs)
    found = benchmark(model_workloads(keras.Model(inputs, outputs))[:1], [2], rounds=1, engines=[Looking])
    assert [m.engine for m in found.measurements] == ["numpy"]
    assert seen[0].dtype == dtype
    assert len(np.unique(seen[0])) == (2 if dtype == "int32" else 8)


def test_a_model_that_keras_does_not_run_on_such_inputs_is_left_out():
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])
    found = benchmark(model_workloads(model), batch_sizes=[1], rounds=1, engines=[Keras])
    assert "Keras does not run it on random inputs: it fails with" in found.left_out[model.name]


def test_all_engines_of_a_row_are_timed_in_turns(monkeypatch):
    seen = []

    def interleave(calls, rounds, seconds, after_turn):
        seen.append((list(calls), rounds))
        return {name: np.array([1e-6]) for name in calls}

    monkeypatch.setattr(runner, "interleave", interleave)

    class Other(NumPy):
        name = "other"

    benchmark([small()], batch_sizes=[1, 2], rounds=7, engines=[NumPy, Other])
    assert seen == [(["numpy", "other"], 7)] * 2


@pytest.mark.parametrize(
    ("settings", "name"),
    [({"batch_sizes": []}, "batch_sizes"), ({"batch_sizes": [0]}, "batch_sizes"), ({"rounds": 0}, "rounds")],
)
def test_numbers_out_of_range_are_named(settings, name):
    with pytest.raises(ValueError, match=f"{name} must be integers of at least 1"):
        benchmark([small()], engines=[NumPy], **settings)


def test_gpu_products_are_not_rounded_to_tf32(monkeypatch):
    calls = []
    experimental = types.SimpleNamespace(
        enable_tensor_float_32_execution=calls.append, tensor_float_32_execution_enabled=lambda: True
    )
    config = types.SimpleNamespace(experimental=experimental)
    monkeypatch.setitem(sys.modules, "tensorflow", types.SimpleNamespace(config=config))
    with full_float32("cpu:0"):
        assert calls == []
    with full_float32("gpu:0"):
        assert calls == [False]
        if jax := sys.modules.get("jax"):
            assert jax.config.jax_default_matmul_precision == "highest"
    assert calls == [False, True]


def test_the_speed_up_is_over_the_fastest_dense_engine_of_the_same_row():
    found = results(
        measurement("TensorFlow", 100, baseline=True),
        measurement("LiteRT", 50, baseline=True),
        measurement("MKL CSR", 10),
        measurement("TensorFlow", 80, batch_size=64, baseline=True),
        measurement("MKL CSR", 160, batch_size=64),
    )
    assert [found.speed_ups(row) for row in found.rows()] == [[0.5, 1.0, 5.0], [1.0, 0.5]]
    assert [row["speed_up"] for row in found.as_rows()] == [0.5, 1.0, 5.0, 1.0, 0.5]
    assert found.speed_ups([measurement("MKL CSR", 10)]) == [None]


def test_the_table_marks_the_fastest_of_every_row():
    found = results(
        measurement("LiteRT", 50, baseline=True), measurement("MKL CSR", 10), absent={"JAX": "jax not installed"}
    )
    lines = str(found).splitlines()
    assert [line for line in lines if "*5.00x" in line and "MKL CSR" in line]
    assert [line for line in lines if " 1.00x" in line and "LiteRT" in line]
    assert "absent: JAX - jax not installed" in lines


def test_the_crossover_density_lies_where_the_curves_meet():
    measurements = []
    for density in (0.02, 0.08, 0.32):  # Time proportional to density, as fast as dense at 0.16.
        measurements += [
            measurement("LiteRT", 100, density, baseline=True),
            measurement("MKL CSR", 100 * density / 0.16, density),
        ]
        measurements += [measurement("SciPy CSR", 101, density), measurement("JAX BCSR", 99, density)]
    found = {entry["engine"]: entry["density"] for entry in results(*measurements).crossovers()}
    assert found["MKL CSR"] == pytest.approx(0.16)
    assert found["SciPy CSR"] == 0
    assert found["JAX BCSR"] == math.inf
    text = str(results(*measurements))
    assert "net/fc, batch 1: MKL CSR is faster than dense below a density of 16.0%" in text
    assert "SciPy CSR is slower than dense at all these densities" in text
    assert "JAX BCSR is faster than dense at all these densities" in text


def test_one_density_has_no_crossover():
    assert results(measurement("LiteRT", 50, baseline=True), measurement("MKL CSR", 10)).crossovers() == []


def test_everything_can_be_written_as_json():
    found = results(
        *(measurement("LiteRT", 50, density, baseline=True) for density in (0.1, 0.2)),
        *(measurement("MKL CSR", 10, density) for density in (0.1, 0.2)),
        refused={("net", "JAX"): "no"},
    )
    values = json.loads(json.dumps(found.as_dict(), allow_nan=False))
    assert values["refused"] == [{"workload": "net", "engine": "JAX", "reason": "no"}]
    assert set(values["measurements"][0]) == {f.name for f in dataclasses.fields(Measurement)} | {"speed_up"}


def test_the_advice_names_the_fastest_engine_of_every_runtime_that_is_faster_than_dense():
    told = advice(
        results(
            measurement("TensorFlow", 100, baseline=True),
            measurement("LiteRT", 50, baseline=True),
            measurement("MKL CSR", 10),
            measurement("TensorFlow CSR", 25),
            measurement("tf.sparse (COO)", 30),
            measurement("LiteRT sparse 4x1", 8),
            measurement("LiteRT int8", 4),
        )
    )
    (choice,) = told.choices
    assert choice.dense.engine == "LiteRT"
    assert [m.engine for m in choice.sparse] == ["LiteRT sparse 4x1", "MKL CSR", "TensorFlow CSR"]
    assert choice.quantized.engine == "LiteRT int8"
    assert str(told) == (
        "net/fc at 10.0%, batch 1: LiteRT sparse 4x1, if pruned in blocks of 4x1, is 6.2x as fast (1.00 MB); "
        "MKL CSR is 5.0x as fast (1.00 MB); TensorFlow CSR is 2.0x as fast (1.00 MB); the fastest dense engine is "
        "LiteRT (50 us, 1.00 MB). With weights rounded to 8 bits, zeros or not, LiteRT int8 is 12.5x as fast (1.00 MB)."
    )


def test_the_advice_is_to_stay_dense_where_nothing_is_faster_beyond_the_spread():
    told = advice(results(measurement("LiteRT", 50, baseline=True, spread=0.2), measurement("MKL CSR", 45, spread=0.2)))
    assert told.choices[0].sparse == []
    assert (
        str(told)
        == "net/fc at 10.0%, batch 1: stay dense, with LiteRT (50 us, 1.00 MB); no sparse engine is clearly faster."
    )


def test_without_a_dense_engine_there_is_no_advice():
    assert advice(results(measurement("MKL CSR", 10))).choices == []
