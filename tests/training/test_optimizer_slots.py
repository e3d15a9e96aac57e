"""Tests of the reset of optimizer slots, with each kind of slot in Keras."""

import keras
import numpy as np
import pytest
from keras import optimizers

from keras_prune.training.optimizer_slots import reset_slots

RANDOM = np.random.default_rng(0)
SHAPE = (4, 6)
MASK = RANDOM.random(SHAPE) < 0.5
OPTIMIZERS = {
    "sgd": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
    "adam": lambda: optimizers.Adam(0.01, amsgrad=True),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.9, centered=True),
    "ftrl": lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.01, l2_regularization_strength=0.01),
    "adagrad": lambda: optimizers.Adagrad(0.1, initial_accumulator_value=0.3),
    "adadelta": lambda: optimizers.Adadelta(1.0),
    "adafactor": lambda: optimizers.Adafactor(0.01),
    "adamax": lambda: optimizers.Adamax(0.01),
    "nadam": lambda: optimizers.Nadam(0.01),
    "lamb": lambda: optimizers.Lamb(0.01),
    "lion": lambda: optimizers.Lion(0.01),
    "moving averages": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=2),
    "gradient accumulation": lambda: optimizers.Adam(0.01, gradient_accumulation_steps=2),
}


def array(variable):
    return keras.ops.convert_to_numpy(variable.value)


def random(shape):
    return keras.ops.convert_to_tensor(RANDOM.normal(size=shape), "float32")


def trained(optimizer, steps=3):
    """Returns a kernel and a bias after some steps."""
    variables = [keras.Variable(random(SHAPE), name="kernel"), keras.Variable(random((6,)), name="bias")]
    for _ in range(steps):
        optimizer.apply([random(variable.shape) for variable in variables], variables)
    return variables


def cut(optimizer, kernel):
    mask = keras.Variable(MASK, dtype="bool", trainable=False)
    kernel.assign(array(kernel) * MASK)
    reset_slots(optimizer, [(kernel, mask)])


def slots_of(optimizer, variable):
    return [slot for slot in optimizer.variables if slot.shape == variable.shape and "float" in str(slot.dtype)]


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_cut_weights_stay_zero_in_later_steps(name):
    optimizer = OPTIMIZERS[name]()
    kernel, bias = trained(optimizer)
    cut(optimizer, kernel)
    for _ in range(4):
        gradient = keras.ops.where(MASK, random(SHAPE), 0.0)
        optimizer.apply([gradient, random((6,))], [kernel, bias])
        assert not array(kernel)[~MASK].any()
        assert np.isfinite(array(kernel)).all()
    assert array(kernel)[MASK].all()


# Adafactor keeps its second moment for rows and columns, not for single connections.
@pytest.mark.parametrize("name", [name for name in OPTIMIZERS if name != "adafactor"])
def test_reset_slots_changes_cut_positions_alone(name):
    optimizer, fresh = OPTIMIZERS[name](), OPTIMIZERS[name]()
    kernel, _ = trained(optimizer)
    fresh.build([kernel])
    before = [array(slot) for slot in slots_of(optimizer, kernel)]
    cut(optimizer, kernel)
    after = [array(slot) for slot in slots_of(optimizer, kernel)]
    initial = [array(slot) for slot in slots_of(fresh, kernel)]
    assert after
    for old, new, start in zip(before, after, initial, strict=True):
        np.testing.assert_array_equal(new, np.where(MASK, old, start))


def test_reset_slots_ignores_unbuilt_optimizers():
    optimizer = optimizers.Adam()
    cut(optimizer, keras.Variable(random(SHAPE)))
    assert not optimizer.built


def test_reset_slots_ignores_untrained_variables():
    optimizer = optimizers.Adam()
    trained(optimizer)
    cut(optimizer, keras.Variable(random(SHAPE), name="frozen"))


def test_reset_slots_works_behind_loss_scaling():
    optimizer = optimizers.LossScaleOptimizer(optimizers.Adam())
    kernel = keras.Variable(random(SHAPE))
    optimizer.build([kernel])
    for slot in slots_of(optimizer, kernel):
        slot.assign(random(SHAPE))
    cut(optimizer, kernel)
    assert not any(array(slot)[~MASK].any() for slot in slots_of(optimizer, kernel))


class UnregisteredSchedule(optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.01

    def get_config(self):
        return {}


def test_reset_slots_works_with_unregistered_schedules():
    optimizer = optimizers.Adam(UnregisteredSchedule())
    kernel, _ = trained(optimizer)
    cut(optimizer, kernel)
    assert not any(array(slot)[~MASK].any() for slot in slots_of(optimizer, kernel))


class Made(optimizers.Adagrad):
    """Counts creations from a config, and fails on request."""

    made, fails = 0, False

    @classmethod
    def from_config(cls, config, custom_objects=None):
        Made.made += 1
        if Made.fails:
            raise TypeError("no config")
        return super().from_config(config, custom_objects)


def test_initial_values_are_looked_up_once(monkeypatch):
    monkeypatch.setattr(Made, "made", 0)
    for made in (1, 2):  # Each optimizer has its own.
        optimizer = Made(0.1, initial_accumulator_value=0.3 * made)
        kernel, _ = trained(optimizer)
        for _ in range(3):
            cut(optimizer, kernel)
        assert Made.made == made


def test_optimizer_that_cannot_be_made_again_is_rejected_each_time(monkeypatch):
    optimizer = Made(0.1)
    kernel, _ = trained(optimizer)
    monkeypatch.setattr(Made, "fails", True)
    for _ in range(2):
        with pytest.raises(ValueError, match="created from its `get_config"):
            reset_slots(optimizer, [])
    assert array(kernel).all()
