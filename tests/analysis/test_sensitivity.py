"""Tests of `sensitivity`."""

import json

import keras
import numpy as np
import pytest
from helpers import assert_same, criteria, density, masks

import keras_prune as kp
from keras_prune.results import Point, Sensitivity

HALF = [kp.TargetSparsity(0.5)]


@pytest.fixture
def data():
    x = np.random.default_rng(0).normal(size=(200, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


@pytest.fixture
def model(data):
    model = keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(16, "relu", name="hidden"), keras.layers.Dense(2, name="head")]
    )
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.05), loss, metrics=["accuracy"])
    model.fit(*data, epochs=10, batch_size=50, verbose=0)
    return model


@pytest.mark.parametrize("pruned", [False, True])
def test_sensitivity_leaves_the_model_unchanged(model, data, pruned):
    if pruned:
        kp.cut(kp.prune(model, kp.TargetSparsity(0.3)))
    before, masks_before = model.get_weights(), masks(model)

    scan = kp.sensitivity(model, data)

    assert_same(before, model.get_weights())
    assert_same(masks_before, masks(model))
    assert model.evaluate(*data, verbose=0, return_dict=True)["accuracy"] == scan.reference


def test_sensitivity_restores_weights_after_a_failure(model, data):
    before = model.get_weights()
    calls = []

    def failing(*args, evaluate=model.evaluate, **kwargs):
        calls.append(args)
        if len(calls) == 3:
            raise RuntimeError("out of memory")
        return evaluate(*args, **kwargs)

    model.evaluate = failing
    with pytest.raises(RuntimeError, match="out of memory"):
        kp.sensitivity(model, data)
    assert_same(before, model.get_weights())


def test_points_are_those_of_pruning_one_layer(model, data):
    (point,) = kp.sensitivity(model, data, HALF).curves["hidden"]

    kp.cut(kp.prune(model, {"hidden": 0.5}))

    assert point == (HALF[0], 0.5, model.evaluate(*data, verbose=0, return_dict=True)["accuracy"])


def test_zeros_of_plain_models_count_as_pruned(model, data):
    weakest = [kp.StdThreshold(0.25), kp.StdThreshold(1.0)]
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    expected = kp.sensitivity(model, data, weakest)

    scan = kp.sensitivity(kp.strip(model), data, weakest)

    assert scan.curves == expected.curves
    assert all(points[0].density <= 0.5 for points in scan.curves.values())


def test_default_criteria_get_stronger(model, data):
    calls = []
    evaluate = model.evaluate
    model.evaluate = lambda *args, **kwargs: calls.append(1) or evaluate(*args, **kwargs)

    curves = kp.sensitivity(model, data).curves

    assert len(calls) == 1 + 2 * 10
    for points in curves.values():
        assert [point.criterion for point in points[:2]] == [kp.StdThreshold(0.25), kp.StdThreshold(0.5)]
        densities = [point.density for point in points]
        assert densities == sorted(densities, reverse=True)


def test_criteria_keep_the_pattern_of_pruned_layers(model, data):
    kp.prune(model, {"hidden": kp.StdThreshold(1.0, kp.Blocks((1, 2))), "head": kp.StdThreshold()})
    rows, blocks = kp.Blocks((2, 1)), kp.Blocks((1, 2))
    curves = kp.sensitivity(model, data, [*HALF, kp.TargetSparsity(0.75, rows)]).curves
    assert [point.criterion.pattern for point in curves["hidden"]] == [blocks, rows]
    assert [point.criterion for point in curves["head"]] == [*HALF, kp.TargetSparsity(0.75, rows)]
    assert HALF[0].pattern == kp.StdThreshold().pattern


@pytest.mark.parametrize("direction", [1, -1])
def test_criteria_stop_at_the_first_loss(direction):
    def curve(*values):
        return [Point(kp.StdThreshold(q), 0.5, direction * v) for q, v in zip((0.5, 1.0, 2.0), values, strict=True)]

    curves = {
        "tough": curve(0.90, 0.89, 0.70),
        "frail": curve(0.89, 0.60, 0.90),
        "glass": curve(0.20, 0.20, 0.10),
        "conv[1]": curve(0.90, 0.90, np.nan),
    }
    chosen = Sensitivity(curves, direction * 0.90, "some metric", direction).criteria(max_drop=0.015)

    assert chosen == {
        "tough": kp.StdThreshold(1.0),
        "frail": kp.StdThreshold(0.5),
        "glass": None,
        r"conv\[1\]": kp.StdThreshold(1.0),
    }


def test_criteria_judge_losses_in_their_direction():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones", name="fc")])
    model.compile(loss="mse")
    data = np.ones((8, 4)), 4 * np.ones((8, 1))
    strengths = [kp.TargetSparsity(0.25), kp.TargetSparsity(0.5)]
    scan = kp.sensitivity(model, data, strengths, monitor="loss")
    assert (scan.direction, [point.value for point in scan.curves["fc"]]) == (-1, [1.0, 4.0])
    assert [scan.criteria(drop)["fc"] for drop in (0.5, 1.0, 4.0)] == [None, *strengths]
    assert kp.sensitivity(model, data, strengths, "loss", "max").criteria(0.0)["fc"] == strengths[1]


def test_prune_takes_the_criteria(model, data):
    chosen = kp.sensitivity(model, data).criteria(max_drop=0.05)
    kp.prune(model, chosen)
    assert any(chosen.values())
    assert criteria(model) == {f"{name}/kernel": criterion for name, criterion in chosen.items() if criterion}


def test_frozen_layers_are_not_scanned(model, data):
    model.get_layer("head").trainable = False
    assert list(kp.sensitivity(model, data, HALF).curves) == ["hidden"]


def test_results_have_a_dict_a_repr_and_a_table(model, data):
    scan = kp.sensitivity(model, data, HALF)
    values = json.loads(json.dumps(scan.to_dict()))
    assert (values["monitor"], values["direction"], values["reference"]) == ("accuracy", 1, scan.reference)
    (point,) = values["curves"]["head"]
    assert keras.saving.deserialize_keras_object(point["criterion"]) == HALF[0]
    assert (point["density"], point["value"]) == scan.curves["head"][0][1:]
    assert repr(scan).startswith("<Sensitivity monitor=accuracy, direction=1, reference=")
    assert "(more is better)" in str(scan)
    assert "│ head   │ TargetSparsity(sparsity=0.5) │    50.0% │" in str(scan)


class Endless(keras.utils.PyDataset):
    """An endless dataset."""

    num_batches = None

    def __getitem__(self, index):
        return np.full((4, 6), index, "float32"), np.ones(4, "int32")


def test_endless_data_needs_steps(model):
    assert kp.sensitivity(model, Endless(), HALF, steps=2).curves["head"][0].density == 0.5
    with pytest.raises(ValueError, match=r"Pass `steps`.*Received: data=.*, steps=None"):
        kp.sensitivity(model, Endless(), HALF)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"criteria": []}, r"of one class.*Received: criteria=\[\]"),
        ({"criteria": [0.5]}, r"of one class.*Received: criteria=\[0.5\]"),
        ({"criteria": [kp.StdThreshold(), *HALF]}, "of one class"),
        ({"monitor": "auc"}, "Received: monitor='auc'"),
        ({"mode": "up"}, "Received: mode='up'"),
    ],
)
def test_sensitivity_rejects_bad_arguments(model, data, arguments, message):
    with pytest.raises(ValueError, match=message):
        kp.sensitivity(model, data, **arguments)


def test_layers_of_one_name_have_their_own_curves(model, data):
    def branch():
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="same")])

    inputs = keras.Input((6,))
    first, second = branch(), branch()
    both = keras.Model(inputs, keras.layers.Dense(2, name="head")(first(inputs) + second(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    both.compile(loss=loss, metrics=["accuracy"])
    curves = kp.sensitivity(both, data, [kp.TargetSparsity(0.75)]).curves
    assert len(curves) == 3
    cut = next(name for name in curves if name.startswith(second.name))
    kp.cut(kp.prune(both, {cut: 0.75}))
    assert density(second) == curves[cut][0].density == 0.25
    assert curves[cut][0].value == both.evaluate(*data, verbose=0, return_dict=True)["accuracy"]
