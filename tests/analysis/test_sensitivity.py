"""A sensitivity scan measures one layer at a time, and leaves the model as it was."""

import keras
import numpy as np
import pytest
from helpers import assert_same, criteria, density, masks

import keras_prune as kp


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
    model.compile(keras.optimizers.Adam(0.02), loss, metrics=["accuracy"])
    model.fit(*data, epochs=10, verbose=0)
    return model


@pytest.mark.parametrize("pruned", [False, True])
def test_weights_masks_and_metric_come_back_exactly(model, data, pruned):
    if pruned:
        kp.cut(kp.prune(model, kp.TargetSparsity(0.3)))
    before, masks_before = model.get_weights(), masks(model)

    scan = kp.sensitivity(model, data)

    assert_same(before, model.get_weights())
    assert_same(masks_before, masks(model))
    assert model.evaluate(*data, verbose=0, return_dict=True)["accuracy"] == scan.reference


def test_weights_come_back_when_an_evaluation_fails(model, data):
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
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)


def test_a_point_is_what_cutting_that_layer_alone_measures(model, data):
    scan = kp.sensitivity(model, data, sparsities=[0.5])

    kp.cut(kp.prune(model, {"hidden": 0.5}))

    point = scan.curves["hidden"][0]
    assert point.density == 0.5
    assert point.value == model.evaluate(*data, verbose=0, return_dict=True)["accuracy"]


def test_zeros_of_a_plain_model_count_as_pruned(model, data):
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    expected = kp.sensitivity(model, data, qualities=[0.25, 1.0])

    scan = kp.sensitivity(kp.strip(model), data, qualities=[0.25, 1.0])

    assert scan.curves == expected.curves
    assert all(points[0].density <= 0.5 for points in scan.curves.values())


def test_each_point_costs_one_evaluation(model, data):
    calls = []
    evaluate = model.evaluate
    model.evaluate = lambda *args, **kwargs: calls.append(1) or evaluate(*args, **kwargs)

    kp.sensitivity(model, data, qualities=[0.5, 1.0, 1.5])

    assert len(calls) == 1 + 2 * 3


def test_density_falls_as_quality_rises(model, data):
    for points in kp.sensitivity(model, data).curves.values():
        densities = [point.density for point in points]
        assert densities == sorted(densities, reverse=True)


def test_the_most_sensitive_layer_gets_the_smallest_threshold():
    curves = {
        "tough": [kp.results.Point(0.5, 0.6, 0.90), kp.results.Point(1.0, 0.3, 0.90), kp.results.Point(2.0, 0.1, 0.70)],
        "frail": [kp.results.Point(0.5, 0.6, 0.89), kp.results.Point(1.0, 0.3, 0.60), kp.results.Point(2.0, 0.1, 0.90)],
        "glass": [kp.results.Point(0.5, 0.6, 0.20), kp.results.Point(1.0, 0.3, 0.20), kp.results.Point(2.0, 0.1, 0.10)],
    }
    criteria = kp.results.Sensitivity(curves, 0.90, "accuracy", kp.StdThreshold).criteria(max_drop=0.015)

    # What recovers beyond the first loss, as `frail` does at 2.0, does not count.
    assert criteria == {"tough": kp.StdThreshold(1.0), "frail": kp.StdThreshold(0.5), "glass": None}


def test_its_criteria_are_what_prune_takes(model, data):
    chosen = kp.sensitivity(model, data).criteria(max_drop=0.05)
    kp.prune(model, chosen)
    assert any(chosen.values())
    assert criteria(model) == {f"{name}/kernel": criterion for name, criterion in chosen.items() if criterion}


def test_a_frozen_layer_is_not_scanned(model, data):
    model.get_layer("head").trainable = False
    assert list(kp.sensitivity(model, data, sparsities=[0.5]).curves) == ["hidden"]


def test_bad_input_is_named(model, data):
    with pytest.raises(ValueError, match="either as qualities or as sparsities"):
        kp.sensitivity(model, data, qualities=[1.0], sparsities=[0.5])
    with pytest.raises(ValueError, match=r"Received: sparsity=1\.5"):
        kp.sensitivity(model, data, sparsities=[1.5])
    with pytest.raises(ValueError, match="Received: monitor='auc', measured are"):
        kp.sensitivity(model, data, monitor="auc")
    with pytest.raises(ValueError, match="not compiled"):
        kp.sensitivity(keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]), data)
    with pytest.raises(ValueError, match="Received: max_drop=-1"):
        kp.sensitivity(model, data, sparsities=[0.5]).criteria(max_drop=-1)


def test_layers_of_one_name_have_their_own_curves(model, data):
    def branch():
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="same")])

    inputs = keras.Input((6,))
    first, second = branch(), branch()
    both = keras.Model(inputs, keras.layers.Dense(2, name="head")(first(inputs) + second(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    both.compile(loss=loss, metrics=["accuracy"])
    curves = kp.sensitivity(both, data, sparsities=[0.75]).curves
    assert len(curves) == 3
    cut = next(name for name in curves if name.startswith(second.name))
    kp.cut(kp.prune(both, {cut: 0.75}))
    assert density(second) == curves[cut][0].density == 0.25
    assert curves[cut][0].value == both.evaluate(*data, verbose=0, return_dict=True)["accuracy"]
