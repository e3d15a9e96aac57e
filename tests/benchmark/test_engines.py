import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_prune.benchmark.engine import Engine, UnsupportedModelError, weight_bytes
from keras_prune.benchmark.engines import ENGINES, available

ROOT = Path(__file__).resolve().parents[2]
ALONE = """
import sys

sys.modules["tensorflow"] = None  # Importing it fails from here on.
import keras
import numpy as np
from keras_prune.benchmark.jax_engines import JaxCSR, JaxDense
from keras_prune.benchmark.pytorch_engines import PyTorchCSR, PyTorchDense
model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, use_bias=False)])
inputs = np.ones((2, 8), "float32")
for engine in (JaxDense, JaxCSR, PyTorchDense, PyTorchCSR):
    if engine.missing() is None:
        loaded = engine(model, "cpu:0")
        print(engine.name, loaded.to_numpy(loaded.prepare(inputs)()).shape)
"""


def single_layer(inputs=24, units=10, block=1):
    """A model of one dense layer without bias, of density 0.2."""
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units, use_bias=False)], name="single")
    random = np.random.default_rng(0)
    kept = random.random((inputs // block, units)).repeat(block, axis=0) < 0.2
    model.layers[0].kernel.assign(random.normal(size=(inputs, units)) * kept)
    return model


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("batch", [1, 5])
def test_engine_computes_the_dense_result(engine, batch):
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    model = single_layer(block=engine.pattern.rows)
    inputs = np.random.default_rng(1).normal(size=(batch, 24)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(inputs))
    loaded = engine(model, "cpu:0")
    outputs = loaded.to_numpy(loaded.prepare(inputs)())
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() <= engine.tolerance * np.abs(expected).max()
    assert loaded.weight_bytes > 0


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_engine_runs_whole_models_or_refuses_them(engine):
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    model = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(4, 3), keras.layers.Flatten(), keras.layers.Dense(3)]
    )
    inputs = np.random.default_rng(1).normal(size=(2, 6, 6, 1)).astype("float32")
    try:
        loaded = engine(model, "cpu:0")
    except UnsupportedModelError as error:
        assert "single dense layers" in str(error)  # noqa: PT017
        return
    expected = keras.ops.convert_to_numpy(model(inputs))
    outputs = loaded.to_numpy(loaded.prepare(inputs)())
    assert np.abs(outputs - expected).max() <= engine.tolerance * np.abs(expected).max()


def test_weight_bytes_are_the_size_of_the_arrays():
    model = single_layer()
    kept = int(np.count_nonzero(model.get_weights()[0]))
    for engine in ENGINES:
        if engine.missing() is None and engine.name.endswith("CSR"):
            assert engine(model, "cpu:0").weight_bytes == 8 * kept + 4 * 11
    assert weight_bytes(model) == 4 * 240


def test_available_names_missing_packages():
    class Elsewhere(Engine):
        name = "elsewhere"
        packages = ("keras", "no_such_runtime", "nor_this_one")

    present, absent = available("cpu:0", (*ENGINES, Elsewhere))
    assert absent["elsewhere"] == (
        "no_such_runtime and nor_this_one not installed (pip install no_such_runtime nor_this_one)"
    )
    assert len(present) + len(absent) == len(ENGINES) + 1


def test_available_names_engines_without_the_device():
    class OnGPU(Engine):
        name = "on GPU"

        @classmethod
        def devices(cls):
            return ["cpu:0", "gpu:0"]

    class OnCPU(Engine):
        name = "on CPU"

    present, absent = available("gpu:0", (OnGPU, OnCPU))
    assert present == [OnGPU]
    assert absent == {"on CPU": "the engine runs on cpu:0, not on gpu:0"}


def test_available_rejects_unknown_devices():
    with pytest.raises(ValueError, match=r"a device of an installed engine: \['cpu:0'.*\]. Received: device='tpu:7'"):
        available("tpu:7")


def test_tensorflow_engines_name_the_backend_they_need(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    _, absent = available("cpu:0")
    for name in ("TensorFlow", "TensorFlow CSR", "LiteRT"):
        assert "KERAS_BACKEND=tensorflow" in absent[name] or "not installed" in absent[name]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="needs a backend other than TensorFlow")
def test_jax_and_pytorch_engines_run_without_tensorflow():
    run = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "(2, 4)" in run.stdout, run.stderr


def test_engines_name_runtimes():
    assert {engine.runtime for engine in ENGINES} == {"TensorFlow", "LiteRT", "JAX", "PyTorch", "SciPy", "MKL"}
