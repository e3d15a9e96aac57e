import json

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW

import keras_prune as kp


@pytest.fixture
def compiled(folder):
    """The current folder, with a compiled model in `compiled.keras` and validation data in `data.npz`."""
    model = keras.models.load_model("dense.keras")
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=TENSORFLOW)
    model.save("compiled.keras")
    x = np.random.default_rng(0).normal(size=(64, 16)).astype("float32")
    np.savez("data.npz", x=x, y=np.argmax(model.predict(x, verbose=0), 1))
    return folder


def test_plan_prints_what_a_runtime_gains(folder, run):
    model = keras.models.load_model("dense.keras")
    assert run("plan", "dense.keras") == f"{kp.deployment_plan(model)}\n"
    values = json.loads(run("plan", "dense.keras", "--runtime=xnnpack", "--json"))
    expected = {"model": "dense.keras", **kp.deployment_plan(model, "xnnpack").to_dict()}
    assert values == json.loads(json.dumps(expected))


def test_plan_shows_what_each_layer_can_lose(compiled, run):
    text = run("plan", "compiled.keras", "--data=data.npz", "--max_drop=1")
    assert text.endswith("can lose: by this layer alone, not retrained, accuracy 1 worse at most\n")
    assert [line.split("│")[2].strip() for line in text.splitlines()[-4:-2]] == ["97%", "98%"]
    values = json.loads(run("plan", "compiled.keras", "--data=data.npz", "--json"))
    assert set(values["sensitivity"]["curves"]) == {"fc1", "fc2"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["dense.keras", "--data=data.npz"], "Expected a compiled model"),
        (["compiled.keras", "--max_drop=0.1"], "--monitor and --max_drop need --data. Received: no --data"),
        (["compiled.keras", "--data=data.npz", "--monitor=auc"], "The model does not measure 'auc'"),
    ],
)
def test_plan_rejects_invalid_flags(compiled, run, arguments, message):
    assert message in run("plan", *arguments, status=2)
