"""Training with `UpdatePruningStep` and `PruningSummaries`."""

import importlib.util

import keras
import numpy as np
import pytest
from helpers import JAX, TENSORFLOW, array, assert_zeros, density
from keras import layers

import keras_prune as kp
from keras_prune.compat import tfmot

s = tfmot.sparsity.keras
X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 2)).astype("float32")


def schedule(sparsity=0.5, begin_step=1, **arguments):
    return s.ConstantSparsity(sparsity, begin_step, frequency=1, **arguments)


def compile(model, optimizer="adam", **settings):
    model.compile(optimizer, "mse", **{"jit_compile": JAX, "run_eagerly": TENSORFLOW} | settings)
    return model


def dense_model(*schedules, **arguments):
    """Returns a model with a layer for each schedule."""
    wrapped = [s.prune_low_magnitude(layers.Dense(2, name=f"fc{i}"), one) for i, one in enumerate(schedules)]
    return compile(keras.Sequential([keras.Input((8,)), *wrapped]), **arguments)


def fit(model, *callbacks, **arguments):
    settings = {"batch_size": 4, "verbose": 0, "shuffle": False, "callbacks": [s.UpdatePruningStep(), *callbacks]}
    model.fit(X, Y, **settings | arguments)


class Densities(keras.callbacks.Callback):
    """Notes the density of each layer when batches end."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def on_train_batch_end(self, batch, logs=None):
        self.seen.append([weight.density for weight in kp.layers.pruned_weights(self.model)])


def test_each_layer_follows_its_own_schedule():
    seen = Densities()
    fit(dense_model(schedule(0.75, begin_step=2), schedule(0.5, begin_step=4)), seen)
    assert seen.seen == [[1, 1], [0.25, 1], [0.25, 1], [0.25, 0.5]]


def test_layers_are_pruned_before_the_batch():
    model = dense_model(schedule(0.75), optimizer=keras.optimizers.SGD(0.0))
    kernel = array(model.layers[0].layer.kernel.value)
    fit(model, steps_per_epoch=1)
    lowest = np.sort(np.abs(kernel).ravel())[12]
    np.testing.assert_array_equal(
        array(model.layers[0].layer.kernel.value), np.where(np.abs(kernel) < lowest, 0, kernel)
    )


def test_polynomial_decay_raises_the_sparsity():
    seen = Densities()
    decay = s.PolynomialDecay(0.25, 0.75, begin_step=1, end_step=3, power=1, frequency=1)
    fit(dense_model(decay), seen)
    assert seen.seen == [[0.75], [0.5], [0.25], [0.25]]


def test_a_sparsity_of_zero_prunes_nothing():
    model = dense_model(schedule(0.0))
    fit(model)
    assert density(model) == 1


def test_m_by_n_prunes_at_the_first_step_only():
    model = s.prune_low_magnitude(keras.Sequential([keras.Input((8,)), layers.Dense(2)]), sparsity_m_by_n=(2, 4))
    fit(compile(model), steps_per_epoch=1)
    assert density(model) == 0.5
    late = s.prune_low_magnitude(keras.Sequential([keras.Input((8,)), layers.Dense(2)]), sparsity_m_by_n=(2, 4))
    late.layers[0].pruning_step = 1
    fit(compile(late))
    assert density(late) == 1


def test_frozen_layers_are_pruned():
    model = s.prune_low_magnitude(
        keras.Sequential([keras.Input((8,)), layers.Dense(4, trainable=False), layers.Dense(2)]), schedule()
    )
    fit(compile(model))
    assert [weight.density for weight in kp.layers.pruned_weights(model)] == [0.5, 0.5]
    assert_zeros(model, 0.5)


def test_the_callback_is_required_at_the_first_step():
    model = dense_model(schedule())
    model.evaluate(X, Y, verbose=0)
    with pytest.raises(RuntimeError, match="UpdatePruningStep"):
        fit(model, callbacks=[])


def test_later_runs_without_the_callback_keep_the_masks():
    model = dense_model(schedule(0.75, end_step=1))
    fit(model)
    fit(model, callbacks=[])
    kernel = array(model.layers[0].layer.kernel.value)
    assert np.mean(kernel == 0) == 0.75


def test_steps_continue_after_compile_and_loading(tmp_path):
    model = dense_model(schedule(begin_step=10))
    fit(model)
    fit(compile(model))
    assert (model.layers[0].pruning_step, density(model)) == (8, 1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(compile(loaded))
    assert (loaded.layers[0].pruning_step, density(loaded)) == (12, 0.5)


@pytest.mark.filterwarnings("ignore:.*HDF5")
def test_zeros_of_an_h5_file_stay(tmp_path):
    model = dense_model(schedule(0.75, end_step=1))
    fit(model)
    model.save(str(tmp_path / "model.h5"), include_optimizer=False)
    loaded = keras.models.load_model(str(tmp_path / "model.h5"))
    loaded.layers[0].pruning_step = 4
    fit(compile(loaded))
    assert density(loaded) == 0.25


def test_pruned_weights_are_zero_at_the_end_of_an_epoch():
    model = dense_model(schedule(begin_step=3), optimizer=keras.optimizers.SGD(0.1, momentum=0.9))
    fit(model)
    assert_zeros(model, 0.5)


def test_nothing_is_pruned_if_a_weight_is_not_finite():
    model = dense_model(schedule(), schedule())
    model.layers[1].layer.kernel.assign(np.full((2, 2), np.nan))
    with pytest.raises(ValueError, match="fc1"):
        fit(model)
    assert kp.layers.pruned_weights(model)[0].density == 1


def test_a_custom_loop_counts_calls():
    model = dense_model(schedule(begin_step=2))
    model.optimizer = keras.optimizers.SGD(0.1)
    callback = s.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    for expected in (1, 0.5):
        callback.on_train_batch_begin(batch=-1)
        model(X, training=True)
        callback.on_epoch_end(batch=-1)
        assert density(model) == expected


def test_summaries_name_what_is_not_installed(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "tensorboard" else find(name))
    with pytest.raises(ImportError, match=r"pip install .*tensorboard"):
        s.PruningSummaries("logs")


def test_summaries_hold_sparsity_and_threshold(tmp_path):
    tf = pytest.importorskip("tensorflow")
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_file_loader")
    model = dense_model(schedule(begin_step=5))
    fit(model, s.PruningSummaries(str(tmp_path)), epochs=3)
    (file,) = (tmp_path / "metrics").iterdir()
    events = loader.EventFileLoader(str(file)).Load()
    seen = {
        (one.step, value.tag): float(tf.make_ndarray(value.tensor)) for one in events for value in one.summary.value
    }
    sparsity, threshold = (f"{model.layers[0].name}/{name}" for name in ("mask/sparsity", "threshold/threshold"))
    assert [seen[step, sparsity] for step in (0, 4, 8)] == [0, 0, 0.5]
    assert seen[8, threshold] > seen[0, threshold] == 0
