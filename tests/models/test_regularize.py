"""Tests of `regularize`."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same, refill

import keras_prune as kp


def build():
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(4, kernel_regularizer="l2", name="a"),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(3, name="b"),
        ]
    )


def penalty(model):
    return float(sum(array(loss) for loss in model.losses))


def kernels(model):
    return [array(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]


@pytest.mark.parametrize("pruned", [False, True])
def test_regularize_adds_a_penalty_of_connections_only(pruned):
    model = kp.prune(build()) if pruned else build()

    kp.regularize(model, l1=0.5)
    assert penalty(model) == pytest.approx(0.5 * sum(np.abs(kernel).sum() for kernel in kernels(model)), rel=1e-5)
    kp.regularize(model, l2=0.25)
    assert penalty(model) == pytest.approx(0.25 * sum((kernel**2).sum() for kernel in kernels(model)), rel=1e-5)
    kp.regularize(model)
    assert model.losses == []


def test_regularize_changes_compiled_models_at_once():
    model = build()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    x, y = np.zeros((8, 5), "float32"), np.zeros((8, 3), "float32")
    kp.regularize(model)

    def loss():
        return model.fit(x, y, verbose=0).history["loss"][0]

    without = loss()
    kp.regularize(model, l2=1.0)
    assert loss() == pytest.approx(without + sum((kernel**2).sum() for kernel in kernels(model)), rel=1e-4)
    kp.regularize(model)
    assert loss() == pytest.approx(without, abs=1e-6)


def test_regularize_counts_survivors_and_outlasts_strip():
    model = build()
    kp.regularize(model, l2=0.5)
    before, regularizer = penalty(model), model.layers[0].kernel.regularizer
    kp.prune(model, kp.TargetSparsity(0.5))
    assert penalty(model) == pytest.approx(before)
    kp.cut(model)
    assert 0 < penalty(model) < before
    after = penalty(model)
    refill(model)
    assert penalty(model) == pytest.approx(after)
    assert penalty(kp.prune(model)) == pytest.approx(after)
    assert penalty(kp.strip(model)) == pytest.approx(after)
    assert model.layers[0].kernel.regularizer is regularizer
    kp.regularize(model)
    assert not model.losses


def test_regularize_without_factors_outlasts_strip():
    model = kp.prune(build())
    kp.regularize(model)
    outputs = model(np.ones((2, 5)))
    kp.strip(model)
    assert not model.losses
    assert_same(model(np.ones((2, 5))), outputs)
