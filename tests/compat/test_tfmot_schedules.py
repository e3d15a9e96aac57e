"""The schedules of tfmot 0.8.1. Expected values were printed by it."""

import keras
import numpy as np
import pytest
from helpers import array, density

from keras_prune.compat import tfmot

s = tfmot.sparsity.keras


def due(schedule, end):
    return [step for step in range(end + 1) if schedule(step)[0]]


def test_constant_sparsity_is_due_from_begin_to_end():
    assert due(s.ConstantSparsity(0.5, begin_step=2, end_step=9, frequency=3), 20) == [2, 5, 8]


def test_an_end_step_of_minus_one_never_ends():
    schedule = s.ConstantSparsity(0.5, begin_step=0)
    assert due(schedule, 1000) == list(range(0, 1001, 100))
    assert schedule(100)[1] == 0.5


def test_polynomial_decay_stops_at_the_last_multiple():
    schedule = s.PolynomialDecay(0.5, 0.8, begin_step=0, end_step=188)
    assert due(schedule, 1000) == [0, 100]
    assert float(schedule(100)[1]) == 0.7692322731018066


@pytest.mark.parametrize(("step", "sparsity"), [(0, 0.10000002384185791), (1234, 0.20753175020217896), (6000, 0.75)])
def test_polynomial_decay_is_that_of_tfmot_to_the_bit(step, sparsity):
    schedule = s.PolynomialDecay(0.1, 0.75, begin_step=1000, end_step=5000, frequency=100)
    assert float(schedule(step)[1]) == sparsity


@pytest.mark.parametrize("step", [np.int64(4), keras.Variable(4, dtype="int32", trainable=False)])
def test_schedules_take_steps_of_several_kinds(step):
    assert s.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=2)(step) == (True, 0.5)


def test_polynomial_decay_of_a_single_step_has_a_sparsity():
    assert s.PolynomialDecay(0.1, 0.9, begin_step=5, end_step=5, frequency=1)(6)[1] == np.float32(0.9)


@pytest.mark.parametrize(
    "arguments",
    [
        {"begin_step": -1},
        {"end_step": -1},
        {"end_step": -2},
        {"begin_step": 9, "end_step": 8},
        {"frequency": 0},
        {"initial_sparsity": 1.0},
        {"final_sparsity": -0.1},
    ],
)
def test_invalid_schedules_are_refused(arguments):
    valid = {"initial_sparsity": 0.1, "final_sparsity": 0.8, "begin_step": 0, "end_step": 8}
    name = next(iter(arguments))
    with pytest.raises(ValueError, match=f"Received: .*{name}={arguments[name]}"):
        s.PolynomialDecay(**valid | arguments)


class EveryStep(s.PruningSchedule):
    """A schedule of a user of tfmot, with a nested config, checks of the base class, and tensors as results."""

    def __init__(self, sparsity):
        self._validate_sparsity(sparsity, "sparsity")
        self.sparsity = sparsity

    def __call__(self, step):
        return keras.ops.convert_to_tensor(self._should_prune_in_step(step, 1, -1, 1)), keras.ops.add(self.sparsity, 0)

    def get_config(self):
        return {"class_name": type(self).__name__, "config": {"sparsity": self.sparsity}}


def test_own_schedules_prune_and_are_saved(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model = s.prune_low_magnitude(model, EveryStep(0.5))
    callback = s.UpdatePruningStep()
    callback.set_model(model)
    callback.on_train_begin()
    callback.on_train_batch_begin(batch=-1)
    assert density(model) == 0.5
    model.save(tmp_path / "model.keras")
    with keras.saving.custom_object_scope({"EveryStep": EveryStep}), s.prune_scope():
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert array(loaded.layers[0].pruning_schedule(1)[1]) == 0.5
