"""Schedules that decide for each training step, counted from 1, whether to prune and at which sparsity."""

import abc
from typing import Any

import keras
import numpy as np


class PruningSchedule(abc.ABC):
    """Base class of schedules. Override `__call__`, and register the class with Keras to save it.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> class Once(tfmot.sparsity.keras.PruningSchedule):
    ...     def __call__(self, step):
    ...         return step == 2, 0.5
    >>> [step for step in range(1, 5) if Once()(step)[0]]
    [2]
    """

    def _should_prune_in_step(self, step, begin_step, end_step, frequency) -> bool:
        ended = 0 <= end_step < step
        return bool(step >= begin_step and not ended and (step - begin_step) % frequency == 0)

    def _validate_step(self, begin_step, end_step, frequency, allow_negative_1) -> None:
        ends = end_step >= max(begin_step, 0) or (end_step == -1 and allow_negative_1)
        if begin_step < 0 or not ends or frequency <= 0:
            raise ValueError(
                "`begin_step` must be at least 0, `end_step` at least `begin_step`"
                f"{' or -1, which never ends' * allow_negative_1}, and `frequency` above 0. "
                f"Received: begin_step={begin_step}, end_step={end_step}, frequency={frequency}"
            )

    def _validate_sparsity(self, sparsity, variable_name) -> None:
        if not 0 <= sparsity < 1:
            raise ValueError(f"`{variable_name}` must be in [0, 1). Received: {variable_name}={sparsity}")

    @abc.abstractmethod
    def __call__(self, step) -> tuple[Any, Any]:
        """Returns whether to prune before the training step `step`, and the sparsity. At 0 nothing is pruned."""

    def get_config(self) -> dict[str, Any]:
        """Returns `{"class_name": name of the class, "config": arguments of the constructor}`.

        The arguments are the attributes of the schedule. Override the method if these have other names.
        """
        return {"class_name": type(self).__name__, "config": dict(vars(self))}

    @classmethod
    def from_config(cls, config):
        """Creates the schedule that `get_config` described."""
        return cls(**config.get("config", config))


@keras.saving.register_keras_serializable(package="keras_prune")
class ConstantSparsity(PruningSchedule):
    """Prunes to the same sparsity again and again.

    Args:
        target_sparsity: Float in [0, 1).
        begin_step: Integer, the first step before which to prune. Step 0 never comes, since steps start at 1.
        end_step: Integer, the last such step. Defaults to `-1`, until the end of training.
        frequency: Integer, number of steps between two updates. Defaults to `100`.

    Raises:
        ValueError: If the sparsity or a step is out of range.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> schedule = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=2, frequency=3)
    >>> [step for step in range(1, 10) if schedule(step)[0]]
    [2, 5, 8]
    """

    def __init__(self, target_sparsity, begin_step, end_step=-1, frequency=100):
        self._validate_step(begin_step, end_step, frequency, True)
        self._validate_sparsity(target_sparsity, "target_sparsity")
        self.target_sparsity = float(target_sparsity)
        self.begin_step, self.end_step, self.frequency = int(begin_step), int(end_step), int(frequency)

    def __call__(self, step):
        due = self._should_prune_in_step(int(step), self.begin_step, self.end_step, self.frequency)
        return due, np.float32(self.target_sparsity)


@keras.saving.register_keras_serializable(package="keras_prune")
class PolynomialDecay(PruningSchedule):
    """Raises the sparsity from `initial_sparsity` to `final_sparsity` along a polynomial (Zhu & Gupta 2017).

    As in tfmot, the last update is at the last step of `begin_step + n * frequency`, which may be before `end_step` and
    miss `final_sparsity`. `keras_prune.Polynomial` always ends at full strength.

    Args:
        initial_sparsity: Float in [0, 1), the sparsity at `begin_step`.
        final_sparsity: Float in [0, 1), the sparsity at `end_step`.
        begin_step: Integer, the step at which the sparsity begins to rise.
        end_step: Integer, the step at which it ends.
        power: Number, the exponent. Defaults to `3`.
        frequency: Integer, number of steps between two updates. Defaults to `100`.

    Raises:
        ValueError: If a sparsity or a step is out of range.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> schedule = tfmot.sparsity.keras.PolynomialDecay(0.5, 0.8, begin_step=0, end_step=188)
    >>> [(step, round(float(schedule(step)[1]), 3)) for step in range(1, 200) if schedule(step)[0]]
    [(100, 0.769)]
    """

    def __init__(self, initial_sparsity, final_sparsity, begin_step, end_step, power=3, frequency=100):
        self._validate_step(begin_step, end_step, frequency, False)
        self._validate_sparsity(initial_sparsity, "initial_sparsity")
        self._validate_sparsity(final_sparsity, "final_sparsity")
        self.initial_sparsity, self.final_sparsity, self.power = float(initial_sparsity), float(final_sparsity), power
        self.begin_step, self.end_step, self.frequency = int(begin_step), int(end_step), int(frequency)

    def __call__(self, step):
        done, length = int(step) - self.begin_step, self.end_step - self.begin_step
        # In float32, as in tfmot, because the number of connections left depends on the last bit.
        progress = np.float32(max(done, 0)) / np.float32(max(length, 1)) if done < length else np.float32(1)
        rest = np.float32(self.initial_sparsity - self.final_sparsity)
        sparsity = rest * (np.float32(1) - progress) ** np.float32(self.power) + np.float32(self.final_sparsity)
        return self._should_prune_in_step(int(step), self.begin_step, self.end_step, self.frequency), sparsity
