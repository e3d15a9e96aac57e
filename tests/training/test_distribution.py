"""Tests of training on several devices or processes, which gives the masks and weights of a single one."""

import contextlib
import json
import os
import pathlib
import re
import socket
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import assert_same

import keras_prune as kp

JAX, TENSORFLOW, TORCH = (keras.backend.backend() == name for name in ("jax", "tensorflow", "torch"))
ROOT = pathlib.Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(TORCH, reason="Keras distributes on TensorFlow and JAX; PyTorch does it on its own")


def start(way, output, **environment):
    """Starts a training in its own process, because devices are set before a backend starts."""
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend(), "PYTHONPATH": str(ROOT)} | environment
    if JAX:
        environment["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    command = [sys.executable, ROOT / "tests/training/train_distributed.py", way, output]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def finish(process, output):
    try:
        log, _ = process.communicate(timeout=300)
    finally:
        process.kill()
    assert process.returncode == 0, log.decode()
    return np.load(output)


@pytest.fixture(scope="module")
def single(tmp_path_factory):
    output = tmp_path_factory.mktemp("single") / "single.npz"
    return finish(start("single", output), output)


def assert_equal_to(single, results):
    """Asserts that masks are the same on every replica at every epoch, and weights within float tolerance."""
    assert sum(name.startswith("mask") for name in single) == 4 * 2
    for name in single:
        if name.startswith("mask"):
            assert all(np.array_equal(mask, single[name][0]) for mask in results[name]), name
        else:
            np.testing.assert_allclose(results[name], single[name], atol=1e-5, err_msg=name)
    densities = [single[f"mask/{epoch}/hidden"].mean() for epoch in range(4)]
    assert densities[0] > densities[1] > densities[2] == densities[3]


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_mirrored_strategy_over_two_devices(single, tmp_path):
    results = finish(start("mirrored", tmp_path / "out.npz"), tmp_path / "out.npz")
    assert len(results["mask/0/hidden"]) == 2
    assert_equal_to(single, results)


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_multi_worker_strategy_over_two_processes(single, tmp_path):
    sockets = [socket.create_server(("localhost", 0)) for _ in range(2)]
    cluster = {"worker": [f"localhost:{one.getsockname()[1]}" for one in sockets]}
    for one in sockets:
        one.close()
    outputs = [tmp_path / f"{index}.npz" for index in range(2)]
    workers = [
        start("workers", output, TF_CONFIG=json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}}))
        for index, output in enumerate(outputs)
    ]
    try:
        found = [finish(worker, output) for worker, output in zip(workers, outputs, strict=True)]
    finally:
        for worker in workers:
            worker.kill()  # If the first one fails, the second one waits for it.
    for results in found:
        assert_equal_to(single, results)
        np.testing.assert_array_equal(results["gathered"], [[0, 2**40], [1, 2**40]])
        # Gone when Keras has mended it.
        assert re.match(
            r"Keras 3\.[\d.]+ cannot `fit` a model under MultiWorkerMirroredStrategy", str(results["error of fit"])
        )


@pytest.mark.slow
@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_parameter_servers_with_a_coordinator(single, tmp_path):
    assert_equal_to(single, finish(start("parameter_server", tmp_path / "out.npz"), tmp_path / "out.npz"))


def make_in(strategy, kind):
    inputs = keras.Input((8,))
    with strategy.scope():
        if kind == "subclassed":
            model = Subclassed()
            model(np.ones((1, 8)))
        elif kind == "functional":
            model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4)(inputs)))
        else:
            hidden = keras.layers.Dense(4)
            hidden = kp.Prune(hidden) if kind == "wrapped" else hidden
            model = keras.Sequential([inputs, hidden, keras.layers.Dense(3)])
        model.compile("sgd", "mse", run_eagerly=True)
    return model


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "outside"])
@pytest.mark.parametrize("kind", ["sequential", "functional", "subclassed", "wrapped"])
def test_prune_and_strip_keep_the_strategy(kind, inside):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    model = make_in(strategy, kind)
    with strategy.scope() if inside else contextlib.nullcontext():
        model = kp.prune(model, {".*": 0.5})
        kp.cut(model)
        assert all(is_mirrored(one.mask) and is_mirrored(one.threshold) for one in kp.layers.pruned_weights(model))
        assert model.distribute_strategy is strategy
        plain = kp.strip(model)
    assert plain.distribute_strategy is strategy
    assert all(map(is_mirrored, plain.variables))
    assert plain.evaluate(np.ones((2, 8)), np.ones((2, 3)), verbose=0) > 0


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_models_loaded_in_a_scope_have_its_strategy(tmp_path):
    import tensorflow as tf

    model = kp.prune(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]), 0.5)
    kp.cut(model)
    model.save(tmp_path / "model.keras")
    kp.save_sparse(model, tmp_path / "model.kps")
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])
    with strategy.scope():
        loaded = keras.models.load_model(tmp_path / "model.keras"), kp.load_sparse(tmp_path / "model.kps")
    for one in loaded:
        assert one.distribute_strategy is strategy
        assert all(map(is_mirrored, one.variables))
        assert_same(one.layers[0].kernel, model.layers[0].kernel)
    assert kp.report(loaded[0]).compression == 2


def is_mirrored(variable):
    return hasattr(variable.value, "values")  # Of each device.


@pytest.mark.skipif(not JAX, reason="keras.distribution is JAX's")
@pytest.mark.parametrize(("way", "replicas"), [("data", 4), ("model", 1)])
def test_keras_distribution_over_four_devices(way, replicas, single, tmp_path):
    results = finish(start(way, tmp_path / "out.npz"), tmp_path / "out.npz")
    # Under ModelParallel the mask of this layer is in pieces, as its kernel is.
    assert len(results["mask/0/hidden"]) == replicas
    assert_equal_to(single, results)


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_iterative_prune_in_the_scope_of_a_strategy():
    import tensorflow as tf

    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        layers = [keras.layers.Dense(8, name="hidden"), keras.layers.Dropout(0.5), keras.layers.Dense(1, name="head")]
        model = keras.Sequential([keras.Input((8,)), *layers])
        model.compile("sgd", "mse", metrics=["mse"])
        kp.iterative_prune(model, [4], monitor="mse", max_drop=9, x=x, y=x[:, :1], validation_data=(x, x[:, :1]))
        report = kp.report(model)
    assert report.compression == 4
    assert report.rows[0].dropout == pytest.approx(0.5 * report.rows[0].density ** 0.5)
