import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from keras_prune.benchmark.engine import Engine, UnsupportedModelError, weight_bytes
from keras_prune.benchmark.engines import ENGINES, available
from keras_prune.benchmark.workloads import layer_workloads, model_workloads

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
    """A model of one dense layer without bias, a fifth of whose connections is left."""
    model = keras.Sequential([keras.Input((inputs,)), keras.layers.Dense(units, use_bias=False)], name="single")
    random = np.random.default_rng(0)
    kept = random.random((inputs // block, units)).repeat(block, axis=0) < 0.2
    model.layers[0].kernel.assign(random.normal(size=(inputs, units)) * kept)
    return model


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
@pytest.mark.parametrize("batch", [1, 5])
def test_an_engine_computes_the_dense_result(engine, batch):
    reason = engine.missing()
    if reason:
        pytest.skip(reason)
    model = single_layer(block=4 if engine.pattern == "4x1" else 1)
    inputs = np.random.default_rng(1).normal(size=(batch, 24)).astype("float32")
    expected = keras.ops.convert_to_numpy(model(inputs))
    loaded = engine(model, "cpu:0")
    outputs = loaded.to_numpy(loaded.prepare(inputs)())
    assert outputs.shape == expected.shape
    assert np.abs(outputs - expected).max() <= engine.tolerance * np.abs(expected).max()
    assert loaded.weight_bytes > 0


@pytest.mark.parametrize("engine", ENGINES, ids=lambda engine: engine.name)
def test_an_engine_runs_a_whole_model_or_says_that_it_cannot(engine):
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


def test_sparse_formats_take_what_their_arrays_take():
    model = single_layer()
    kept = int(np.count_nonzero(model.get_weights()[0]))
    for engine in ENGINES:
        if engine.missing() is None and engine.name.endswith("CSR"):
            assert engine(model, "cpu:0").weight_bytes == 8 * kept + 4 * 11
    assert weight_bytes(model) == 4 * 240


def test_an_engine_whose_packages_are_not_installed_is_absent_with_the_reason():
    class Elsewhere(Engine):
        name = "elsewhere"
        packages = ("keras", "no_such_runtime", "nor_this_one")

    present, absent = available("cpu:0", (*ENGINES, Elsewhere))
    assert absent["elsewhere"] == "no_such_runtime and nor_this_one not installed"
    assert len(present) + len(absent) == len(ENGINES) + 1


def test_an_engine_without_the_device_is_absent_with_the_reason():
    class OnGPU(Engine):
        name = "on GPU"

        @classmethod
        def devices(cls):
            return ["cpu:0", "gpu:0"]

    class OnCPU(Engine):
        name = "on CPU"

    present, absent = available("gpu:0", (OnGPU, OnCPU))
    assert present == [OnGPU]
    assert absent == {"on CPU": "it runs on cpu:0, not on gpu:0"}


def test_a_device_that_is_not_there_is_an_error_that_lists_those_that_are():
    with pytest.raises(ValueError, match=r"an installed engine can use: \['cpu:0'.*\]. Received: device='tpu:7'"):
        available("tpu:7")


def test_engines_of_tensorflow_name_the_backend_that_they_need(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "torch")
    _, absent = available("cpu:0")
    for name in ("TensorFlow", "TensorFlow CSR", "LiteRT"):
        assert "KERAS_BACKEND=tensorflow" in absent[name] or "not installed" in absent[name]


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="it needs a backend other than TensorFlow")
def test_engines_of_jax_and_pytorch_run_where_there_is_no_tensorflow():
    run = subprocess.run([sys.executable, "-c", ALONE], cwd=ROOT, capture_output=True, text=True, check=False)
    assert "(2, 4)" in run.stdout, run.stderr


def test_tf_sparse_is_an_engine_by_its_name():
    (engine,) = [engine for engine in ENGINES if engine.name == "tf.sparse (COO)"]
    assert engine.runtime() == "TensorFlow"


def test_the_layers_of_the_paper_have_its_densities():
    workloads = layer_workloads("vgg16")
    assert [(w.name, w.density) for w in workloads] == [("vgg16/fc6", 0.04), ("vgg16/fc7", 0.04), ("vgg16/fc8", 0.23)]
    assert [(w.name, w.density) for w in layer_workloads("alexnet/fc8")] == [("alexnet/fc8", 0.25)]


@pytest.mark.parametrize("pattern", [None, "4x1"])
def test_a_random_layer_has_the_density_and_the_pattern_asked_for(pattern):
    kernel = layer_workloads("alexnet", [0.1])[2].build(pattern).get_weights()[0]
    assert kernel.shape == (4096, 1000)
    assert np.count_nonzero(kernel) / kernel.size == pytest.approx(0.1, rel=0.02)
    whole_blocks = (kernel.reshape(1024, 4, 1000) != 0).sum(axis=1)
    assert (set(np.unique(whole_blocks)) == {0, 4}) == (pattern == "4x1")


def test_a_model_comes_whole_and_layer_by_layer():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(2, name="b")])
    whole, first, second = model_workloads(model)
    assert whole.build(None) is model
    assert whole.build("4x1") is None
    assert (first.name, second.name) == (f"{model.name}/a", f"{model.name}/b")
    np.testing.assert_array_equal(first.build(None).get_weights()[0], model.get_weights()[0])
    assert first.build("4x1").get_weights()[0].shape == (8, 6)
    assert second.build("4x1") is None  # Six inputs are no blocks of four.


def test_the_density_of_a_frozen_model_is_that_of_its_weights():
    model = single_layer()
    density = np.count_nonzero(model.get_weights()[0]) / 240
    for model.trainable in (True, False):
        assert [workload.density for workload in model_workloads(model)] == [density, density]


@pytest.mark.parametrize(("network", "densities"), [("resnet", []), ("alexnet", [0.0]), ("alexnet", [1.5])])
def test_layers_and_densities_that_are_none_are_refused(network, densities):
    with pytest.raises(ValueError, match="Received:"):
        layer_workloads(network, densities)
