"""Every subcommand on three kinds of models."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW
from keras import layers

import keras_prune as kp

ENGINES = "--engines=TensorFlow,JAX,PyTorch,SciPy CSR"  # One of them is installed everywhere, and they are quick.


def sequential():
    return keras.Sequential(
        [keras.Input((8, 8, 1)), layers.Conv2D(4, 3, name="conv"), layers.Flatten(), layers.Dense(3, name="fc")]
    )


def branched():
    inputs = keras.Input((16,))
    left, right = layers.Dense(8, "relu", name="left")(inputs), layers.Dense(8, "tanh", name="right")(inputs)
    return keras.Model(inputs, layers.Dense(3, name="head")(layers.Add()([left, right])))


@keras.saving.register_keras_serializable(package="test_architectures")
class Attending(keras.Model):
    """A subclassed model with attention, as in KerasHub."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.attention = layers.MultiHeadAttention(2, 4, name="attention")
        self.head = layers.Dense(3, name="head")

    def build(self, shape):
        self.attention.build(shape, shape)
        self.head.build((shape[0], shape[-1]))
        self.built = True

    def call(self, x):
        return self.head(keras.ops.mean(self.attention(x, x), axis=1))


def attending():
    model = Attending()
    model.build((None, 4, 8))
    return model


@pytest.fixture(scope="module", params=[sequential, branched, attending])
def made(request, tmp_path_factory):
    """A folder with a model, its pruned version, inputs and training data."""
    folder = tmp_path_factory.mktemp(request.param.__name__)
    model = request.param()
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=TENSORFLOW)
    shape = {sequential: (8, 8, 1), branched: (16,), attending: (4, 8)}[request.param]
    x = np.random.default_rng(0).normal(size=(20, *shape)).astype("float32")
    model.save(folder / "dense.keras")
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    model.save(folder / "pruned.keras")
    np.save(folder / "x.npy", x)
    np.savez(folder / "train.npz", x=x, y=np.zeros((20, 3), "float32"))
    return folder


@pytest.fixture
def current(made, monkeypatch):
    """The folder, which is the current one."""
    monkeypatch.chdir(made)
    return made


def test_prune_and_report_take_any_model(current, run):
    values = json.loads(run("prune", "dense.keras", "out.keras", "--sparsity=0.75", "--json"))
    assert json.loads(run("report", "out.keras", "--data=x.npy", "--json"))["kept"] == values["kept"]
    rounds = ["--rounds=2", "--data=train.npz", "--monitor=mae", "--max_drop=9"]
    values = json.loads(run("prune", "dense.keras", "out.keras", *rounds, "--json"))
    assert values["compression"] == pytest.approx(2, rel=0.05)


def test_plan_takes_any_model(current, run):
    values = json.loads(run("plan", "dense.keras", "--data=train.npz", "--monitor=mae", "--json"))
    assert {row["name"] for row in values["rows"]} == set(values["sensitivity"]["curves"])


def test_export_takes_any_model(current, run):
    run("export", "pruned.keras", "model.kprune")
    assert kp.report(kp.load_sparse("model.kprune")).sparsity == pytest.approx(0.5, abs=0.02)
    if TENSORFLOW and importlib.util.find_spec("ai_edge_litert"):
        values = json.loads(run("export", "pruned.keras", "model.tflite", "--data=x.npy", "--json"))
        assert values["relative_difference"] < 1e-5


def test_benchmark_takes_any_model(current, run):
    text = run("benchmark", "pruned.keras", ENGINES, "--rounds=1", "--batch_sizes=1")
    assert "results in output/benchmark" in text
