"""Tests of weights that other callbacks keep and restore while a model is pruned."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same, assert_zeros, masks, refill
from keras import optimizers
from small_model import X, Y, fit, pruned_model

import keras_prune as kp


def restored_early(**kwargs):
    """Returns an EarlyStopping for which the first epoch is the best."""
    return keras.callbacks.EarlyStopping("epoch", mode="min", patience=9, restore_best_weights=True, **kwargs)


class EpochAsMetric(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["epoch"] = epoch


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["Adam", "Muon"])
def test_restoring_denser_weights_warns_once(first, name):
    model = pruned_model(getattr(optimizers, name)())
    callbacks = [EpochAsMetric(), restored_early()]
    own = kp.PruningCallback(kp.Iterative(rounds=2), verbose=0)
    callbacks.insert(0 if first else 2, own)
    message = r"The restored weights are less sparse: 110 of 176 connections, previously 44\."
    with pytest.warns(UserWarning, match=message) as warnings:
        model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    assert sum("less sparse" in str(warning.message) for warning in warnings) == 1
    assert_zeros(model, 0.625)
    assert model.layers[2].pruning.current_rate == pytest.approx(0.5 * 0.625**0.5)


@pytest.mark.parametrize("first", [True, False])
def test_weights_from_before_the_first_cut_restore_all(first):
    model = pruned_model()
    callbacks = [EpochAsMetric(), restored_early()]
    callbacks.insert(0 if first else 2, kp.PruningCallback(kp.OneShot(start=2), verbose=0))
    with pytest.warns(UserWarning, match=r"less sparse: 176 of 176 connections, previously 44\."):
        model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    assert_zeros(model, 1)
    assert all(array(weight.variable).all() for weight in kp.layers.pruned_weights(model))


@pytest.mark.filterwarnings("error:The restored weights")
def test_restoring_equally_sparse_weights_does_not_warn():
    model = pruned_model()
    fit(model, EpochAsMetric(), restored_early(start_from_epoch=1))
    assert_zeros(model, 0.25)


def test_get_weights_has_zeros_where_masks_are():
    model = pruned_model()
    kp.cut(model)
    refill(model)
    assert np.count_nonzero(model.get_weights()[0]) == 32


def test_set_weights_outside_fit_keeps_the_masks():
    model = pruned_model()
    dense = model.get_weights()
    fit(model)
    before = masks(model)
    model.set_weights(dense)
    assert_same(masks(model), before)
    assert_zeros(model, 0.25)
    np.testing.assert_array_equal(array(model.get_layer("hidden").kernel), np.where(before[0], dense[0], 0))


class Interrupt(keras.callbacks.Callback):
    """Interrupts `fit` at the end of the second epoch, as Ctrl-C does."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            raise KeyboardInterrupt


def test_set_weights_after_an_interrupted_fit_warns():
    model = pruned_model()
    dense = model.get_weights()
    with pytest.raises(KeyboardInterrupt):
        fit(model, Interrupt())
    with pytest.warns(UserWarning, match="The restored weights are less sparse"):
        model.set_weights(dense)
