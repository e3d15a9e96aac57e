"""Schedules decide when to prune during training, and at which strength.

A schedule maps a time, which is an epoch or an optimizer step, to a strength in (0, 1], or to `None` if no cut is due.
It keeps no state. A run that resumes from a saved model therefore only needs the time at which it resumes.
"""

import bisect
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from keras.saving import register_keras_serializable

from keras_prune._arguments import is_integer, is_number, require_integer

_TWO_THIRDS = 2 / 3


class Schedule:
    """Base class of schedules: increasing times and a strength for each.

    Override `ramp` to write your own schedule, and `get_config` if its constructor takes other arguments.

    Args:
        times: Sequence of integers, the epochs (or optimizer steps) before which to prune.
        unit: `"epoch"` or `"step"`. Defaults to `"epoch"`.

    Raises:
        ValueError: If `times` does not hold increasing integers of at least 0, or `unit` is not one of the two.

    Example:

    >>> import keras_prune as kp
    >>> class Halving(kp.Schedule):
    ...     def ramp(self, index):
    ...         return 1 - 0.5 ** (index + 1)
    >>> schedule = Halving(times=[0, 3])
    >>> [schedule(epoch) for epoch in range(4)]
    [0.5, None, None, 0.75]
    """

    def __init__(self, times: Sequence[int], unit: str = "epoch"):
        if unit not in ("epoch", "step"):
            raise ValueError(f'`unit` must be "epoch" or "step". Received: unit={unit!r}')
        if isinstance(times, Iterable) and not isinstance(times, range):
            times = [*times]
        integers = isinstance(times, Sequence) and all(is_integer(time) and time >= 0 for time in times)
        if not (integers and times) or any(second <= first for first, second in itertools.pairwise(times)):
            raise ValueError(
                "`times` must be a sequence of increasing integers of at least 0, such as [0, 4, 8]. "
                f"Received: times={times!r}"
            )
        self.times = times
        self.unit = unit

    def __call__(self, time: int) -> float | None:
        """Returns the strength of the cut at `time`, or `None` if no cut is due."""
        return self.ramp(self.times.index(time)) if time in self.times else None

    def ramp(self, index: int) -> float:
        """Returns the strength of cut number `index`, counted from 0. Subclasses override it."""
        raise NotImplementedError

    def due(self, after: int, until: int) -> int | None:
        """Returns the last time of a cut in `after < time <= until`, or `None`."""
        index = bisect.bisect_right(self.times, until)  # Called before every training step, so use a binary search.
        return self.times[index - 1] if index and self.times[index - 1] > after else None

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {"times": list(self.times), "unit": self.unit}

    @classmethod
    def from_config(cls, config):
        """Builds the schedule that `get_config` described."""
        return cls(**config)

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@register_keras_serializable(package="keras_prune")
class OneShot(Schedule):
    """Prunes once, at full strength.

    Args:
        start: Integer, the epoch (or step) before which to prune. Defaults to `0`.
        unit: `"epoch"` or `"step"` (`optimizer.iterations`). Defaults to `"epoch"`.

    Raises:
        ValueError: If `start` is not an integer of at least 0, or `unit` is invalid.

    Example:

    >>> import keras_prune as kp
    >>> schedule = kp.OneShot(start=2)
    >>> [schedule(epoch) for epoch in range(4)]
    [None, None, 1.0, None]
    """

    def __init__(self, start: int = 0, unit: str = "epoch"):
        require_integer("start", start, minimum=0)
        super().__init__(range(start, start + 1), unit)
        self.start = start

    def ramp(self, index):
        return 1.0

    def get_config(self):
        return {"start": self.start, "unit": self.unit}


@register_keras_serializable(package="keras_prune")
class Iterative(Schedule):
    """Prunes in rounds, with retraining between them (Han et al. 2015, section 3.4).

    Round `r` of `n` prunes at strength `1 - (1 - r / n) ** power`. With a power of 1, all steps of the strength are
    equal. With a higher power, the first steps are larger than the last.

    Args:
        rounds: Integer, number of cuts.
        epochs_per_round: Integer, number of epochs after each cut. Defaults to `1`.
        start: Integer, the epoch before which the first cut happens. Defaults to `0`, for a trained model.
        power: Float above 0. Defaults to `1.0`, which suits `StdThreshold`. For `TargetSparsity`, use 3.

    Raises:
        ValueError: If an integer is out of range, or `power` is not a finite number above 0.

    Example:

    >>> import keras_prune as kp
    >>> schedule = kp.Iterative(rounds=4, epochs_per_round=2)
    >>> [schedule(epoch) for epoch in range(8)]
    [0.25, None, 0.5, None, 0.75, None, 1.0, None]
    """

    def __init__(self, rounds: int, epochs_per_round: int = 1, start: int = 0, power: float = 1.0):
        require_integer("rounds", rounds, minimum=1)
        require_integer("epochs_per_round", epochs_per_round, minimum=1)
        require_integer("start", start, minimum=0)
        _require_positive("power", power)
        super().__init__(range(start, start + rounds * epochs_per_round, epochs_per_round))
        self.rounds, self.epochs_per_round, self.start, self.power = rounds, epochs_per_round, start, power

    def ramp(self, index):
        return 1.0 - (1.0 - (index + 1) / self.rounds) ** self.power

    def get_config(self):
        names = ("rounds", "epochs_per_round", "start", "power")
        return {name: getattr(self, name) for name in names}


@register_keras_serializable(package="keras_prune")
class Polynomial(Schedule):
    """Raises the strength along a polynomial, from 0 at `start` to 1 at `end` (Zhu & Gupta 2017).

    At time `t` the strength is `1 - (1 - (t - start) / (end - start)) ** power`. The first cut is at
    `start + frequency` and the last one always at `end`.

    Args:
        start: Integer, the epoch (or step) at which the strength begins to rise.
        end: Integer above `start`, the epoch (or step) of the last cut, at full strength.
        frequency: Integer, number of epochs (or steps) from one cut to the next. Defaults to `1`.
        power: Float above 0. Defaults to `3.0`.
        unit: `"epoch"` or `"step"` (`optimizer.iterations`). Defaults to `"epoch"`.

    Raises:
        ValueError: If an integer is out of range, `power` is not a finite number above 0, or `unit` is invalid.

    Example:

    >>> import keras_prune as kp
    >>> schedule = kp.Polynomial(start=0, end=4)
    >>> [schedule(epoch) for epoch in range(6)]
    [None, 0.578125, 0.875, 0.984375, 1.0, None]
    """

    def __init__(self, start: int, end: int, frequency: int = 1, power: float = 3.0, unit: str = "epoch"):
        require_integer("start", start, minimum=0)
        require_integer("end", end, minimum=start + 1)
        require_integer("frequency", frequency, minimum=1)
        _require_positive("power", power)
        super().__init__([*range(start + frequency, end, frequency), end], unit)
        self.start, self.end, self.frequency, self.power = start, end, frequency, power

    def ramp(self, index):
        progress = (self.times[index] - self.start) / (self.end - self.start)
        return 1.0 - (1.0 - progress) ** self.power

    def get_config(self):
        names = ("start", "end", "frequency", "power", "unit")
        return {name: getattr(self, name) for name in names}


def default_schedule(epochs: int) -> Schedule:
    """Returns the schedule of `PruningCallback()`: a cubic rise over the first two thirds of the epochs of `fit`.

    It counts from epoch 0, whatever `initial_epoch` is, so that a run that resumes follows the same schedule.
    """
    return Polynomial(start=0, end=max(1, round(_TWO_THIRDS * epochs))) if epochs > 1 else OneShot()


def _require_positive(name, value):
    if not (is_number(value) and 0 < value < math.inf):
        raise ValueError(f"`{name}` must be a finite number above 0. Received: {name}={value!r}")
