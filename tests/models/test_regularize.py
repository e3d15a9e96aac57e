"""Tests of `regularize`."""

import keras
import numpy as np
import pytest
from helpers import assert_same, assert_zeros, refill

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
    return float(sum(keras.ops.convert_to_numpy(loss) for loss in model.losses))


def kernels(model):
    return [keras.ops.convert_to_numpy(layer.kernel) for layer in model.layers if hasattr(layer, "kernel")]


@pytest.mark.parametrize("pruned", [False, True])
def test_loss_gains_the_penalty_of_connections_only(pruned):
    model = kp.prune(build()) if pruned else build()

    kp.regularize(model, l1=0.5)
    assert penalty(model) == pytest.approx(0.5 * sum(np.abs(kernel).sum() for kernel in kernels(model)), rel=1e-5)
    kp.regularize(model, l2=0.25)
    assert penalty(model) == pytest.approx(0.25 * sum((kernel**2).sum() for kernel in kernels(model)), rel=1e-5)
    kp.regularize(model)
    assert model.losses == []


def test_compiled_models_use_a_new_penalty_at_once():
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


@pytest.mark.parametrize("factors", [{"l1": 1e-2}, {"l2": 1e-2}])
def test_cut_connections_stay_zero_under_a_penalty(factors):
    model = kp.prune(build(), kp.TargetSparsity(0.5))
    model.compile("adam", "mse")
    kp.regularize(model, **factors)
    x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    model.fit(x, x[:, :3], epochs=3, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(), verbose=0)])
    assert_zeros(model, 0.5)


def test_regularize_rejects_bad_arguments():
    with pytest.raises(ValueError, match="Received: l1=-1"):
        kp.regularize(build(), l1=-1)
    with pytest.raises(ValueError, match="has no connections"):
        kp.regularize(keras.Sequential([keras.Input((5,)), keras.layers.ReLU()]), l2=0.1)


def test_penalty_is_over_the_survivors_and_outlasts_strip():
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


def test_removed_penalty_stays_off_after_strip():
    model = kp.prune(build())
    kp.regularize(model)
    outputs = model(np.ones((2, 5)))
    kp.strip(model)
    assert not model.losses
    assert_same(model(np.ones((2, 5))), outputs)
