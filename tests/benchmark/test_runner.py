import sys
import types

import keras
import numpy as np
import pytest
from keras import layers

import keras_prune as kp
from keras_prune.benchmark import runner
from keras_prune.benchmark.advice import advice
from keras_prune.benchmark.engine import Engine, UnsupportedModelError, kernel_of
from keras_prune.benchmark.runner import benchmark, full_float32
from keras_prune.benchmark.workloads import Workload, _random_layer, model_workloads


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


def test_benchmark_measures_each_engine_and_batch_size():
    found = benchmark([small()], batch_sizes=[1, 3], rounds=2, engines=[NumPy])
    assert [(m.engine, m.batch_size, m.density) for m in found.rows] == [("numpy", 1, 0.25), ("numpy", 3, 0.25)]
    for m in found.rows:
        assert 0 < m.low <= m.microseconds <= m.high
        assert m.calls >= 2
        assert m.difference < 1e-6
    assert found.machine["device"] == "cpu:0"


def test_benchmark_reports_wrong_outputs():
    found = benchmark([small()], batch_sizes=[1], rounds=1, engines=[NumPy, Wrong])
    assert [m.engine for m in found.rows] == ["numpy"]
    assert found.refused["small", "wrong"] == (
        "the outputs differ from the dense ones by 1.0e-03 of the largest at batch 1"
    )
    assert "not timed: wrong on small - the outputs differ" in str(found)


def test_benchmark_reports_why_an_engine_refuses_a_model():
    found = benchmark([small()], batch_sizes=[1], rounds=1, engines=[NumPy, Refusing])
    assert found.refused == {("small", "refusing"): "not today"}


@pytest.mark.parametrize("fails_in", ["__init__", "prepare", "call"])
def test_benchmark_continues_if_an_engine_fails(fails_in):
    class Failing(NumPy):
        name = "failing"

        def fail(self, *arguments):
            raise RuntimeError("no such operator\nand more")

        def prepare(self, inputs):
            return self.fail

    if fails_in != "call":
        setattr(Failing, fails_in, Failing.fail)
    found = benchmark([small()], batch_sizes=[1, 2], rounds=1, engines=[Failing, NumPy])
    assert [m.engine for m in found.rows] == ["numpy", "numpy"]
    assert found.refused == {("small", "failing"): "it fails with RuntimeError: no such operator"}


def test_benchmark_reports_impossible_patterns():
    class Blocks(NumPy):
        name = "blocks"
        pattern = kp.Blocks((4, 1))

    found = benchmark([small(inputs=6)], batch_sizes=[1], rounds=1, engines=[NumPy, Blocks])
    assert found.refused == {
        ("small", "blocks"): "the workload cannot be pruned in Blocks(block_size=(4, 1), reduction='mean')"
    }
    assert [m.engine for m in benchmark([small()], [1], rounds=1, engines=[NumPy, Blocks]).rows] == [
        "numpy",
        "blocks",
    ]
    assert benchmark([small(inputs=6)], batch_sizes=[1], rounds=1, engines=[Blocks]).skipped == {}


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
        (two_inputs, "must have a single input, not 2"),
        (two_outputs, "must have a single output, not 2"),
        (named_output, "must have a single output, not a dict of 1"),
        (subclassed, "only Sequential and Functional"),
    ],
)
def test_benchmark_measures_layers_if_no_engine_runs_a_model(make, reason):
    model = make()
    found = benchmark(model_workloads(model), batch_sizes=[2], rounds=1, engines=[NumPy])
    assert list(found.skipped) == [model.name]
    assert reason in found.skipped[model.name]
    assert [m.workload for m in found.rows] == [f"{model.name}/fc"]
    note = f"left out: {model.name} - {found.skipped[model.name]}"
    assert note in " ".join(str(found).split())
    assert note in str(advice(found))
    assert found.to_dict()["skipped"] == found.skipped


@pytest.mark.parametrize("dtype", ["int32", "float32", "float16"])
def test_benchmark_inputs_have_the_dtype_of_the_model(dtype):
    seen = []

    class Looking(Keras):
        def prepare(self, inputs):
            seen.append(inputs)
            return super().prepare(inputs)

    inputs = keras.Input((4,), dtype=dtype)
    outputs = layers.Embedding(2, 3)(inputs) if dtype == "int32" else layers.Dense(3)(inputs)
    found = benchmark(model_workloads(keras.Model(inputs, outputs))[:1], [2], rounds=1, engines=[Looking])
    assert [m.engine for m in found.rows] == ["numpy"]
    assert seen[0].dtype == dtype
    assert len(np.unique(seen[0])) == (2 if dtype == "int32" else 8)


def test_benchmark_skips_models_that_keras_does_not_run():
    model = keras.Sequential([keras.Input((None, None, 1)), layers.Conv2D(2, 3), layers.GlobalAveragePooling2D()])
    found = benchmark(model_workloads(model), batch_sizes=[1], rounds=1, engines=[Keras])
    assert "Keras does not run it on random inputs: it fails with" in found.skipped[model.name]


def test_benchmark_times_engines_in_turns(monkeypatch):
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
def test_benchmark_rejects_numbers_out_of_range(settings, name):
    with pytest.raises(ValueError, match=f"`{name}` must be integers of at least 1"):
        benchmark([small()], engines=[NumPy], **settings)


def test_full_float32_turns_tf32_off_on_gpus(monkeypatch):
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
