"""Properties of the sensitivity scan."""

import keras
import numpy as np
import pytest

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


@pytest.mark.parametrize("wrapped", [False, True])
def test_weights_masks_and_metric_come_back_exactly(model, data, wrapped):
    if wrapped:
        model = kp.prune(model, kp.TargetSparsity(0.3))
        for layer in model.layers:
            layer.cut()
    before = [np.copy(weight) for weight in model.get_weights()]

    scan = kp.sensitivity(model, data)

    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(old, new)
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

    pruned = kp.prune(model, {"hidden": kp.TargetSparsity(0.5)})
    pruned.get_layer("hidden").cut()

    point = scan.curves["hidden"][0]
    assert point.density == 0.5
    assert point.value == pruned.evaluate(*data, verbose=0, return_dict=True)["accuracy"]


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
        "tough": [kp.Point(0.5, 0.6, 0.90), kp.Point(1.0, 0.3, 0.90), kp.Point(2.0, 0.1, 0.70)],
        "frail": [kp.Point(0.5, 0.6, 0.89), kp.Point(1.0, 0.3, 0.60), kp.Point(2.0, 0.1, 0.90)],
        "glass": [kp.Point(0.5, 0.6, 0.20), kp.Point(1.0, 0.3, 0.20), kp.Point(2.0, 0.1, 0.10)],
    }
    criteria = kp.Sensitivity(curves, 0.90, "accuracy", kp.StdThreshold).criteria(max_drop=0.015)

    # What recovers beyond the first loss, as `frail` does at 2.0, does not count.
    assert criteria == {"tough": kp.StdThreshold(1.0), "frail": kp.StdThreshold(0.5), "glass": None}


def test_its_criteria_are_what_prune_takes(model, data):
    pruned = kp.prune(model, kp.sensitivity(model, data).criteria(max_drop=0.05))
    assert any(isinstance(layer, kp.Prune) for layer in pruned.layers)


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


def test_layers_of_one_name_are_cut_together(model, data):
    def branch():
        return keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, name="same")])

    inputs = keras.Input((6,))
    both = keras.Model(inputs, keras.layers.Dense(2, name="head")(branch()(inputs) + branch()(inputs)))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    both.compile(loss=loss, metrics=["accuracy"])
    (point,) = kp.sensitivity(both, data, sparsities=[0.75]).curves["same"]
    for nested in both.layers[1:3]:
        kernel = nested.layers[0].kernel
        kernel.assign(kernel * keras.ops.cast(kp.TargetSparsity(0.75)(kernel.value).mask, "float32"))
    assert point.density == 0.25
    assert point.value == both.evaluate(*data, verbose=0, return_dict=True)["accuracy"]
