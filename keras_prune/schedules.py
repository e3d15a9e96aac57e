"""Schedules: when to cut, and how hard.

A schedule is a pure function of time (an epoch, or an optimizer step) to a strength in (0, 1], or to nothing. It keeps
no state, so a run that continues from a saved model needs nothing but the time it continues from.
"""

import bisect
import numbers
from collections.abc import Sequence


class Schedule:
    """Base class: a finite, increasing sequence of times and a strength for each.

    Args:
        times: Sequence of integers, when to cut: before the epoch (or the optimizer step) of that index begins.
        unit: `"epoch"` or `"step"`. Defaults to `"epoch"`.

    Example:

    >>> import keras_prune as kp
    >>> class Halving(kp.Schedule):
    ...     def ramp(self, index):
    ...         return 1 - 0.5 ** (index + 1)
    >>> [Halving(times=[0, 3]).strength(epoch) for epoch in range(4)]
    [0.5, None, None, 0.75]
    """

    def __init__(self, times: Sequence[int], unit: str = "epoch"):
        if unit not in ("epoch", "step"):
            raise ValueError(f'A schedule counts in "epoch" or in "step". Received: unit={unit!r}')
        self.times = times
        self.unit = unit

    def strength(self, time: int) -> float | None:
        """Returns the strength of the cut at `time`, or `None` if nothing is cut then."""
        return self.ramp(self.times.index(time)) if time in self.times else None

    def ramp(self, index: int) -> float:
        """Returns the strength of the cut number `index`, the first being 0. To be overridden."""
        raise NotImplementedError

    def due(self, after: int, until: int) -> int | None:
        """Returns the last time to cut in `after < time <= until`, or `None`."""
        index = bisect.bisect_right(self.times, until)  # Asked before every training step, so not one by one.
        return self.times[index - 1] if index and self.times[index - 1] > after else None


class OneShot(Schedule):
    """Cuts once, at full strength.

    Args:
        at: Integer, the epoch (or step) before which to cut. Defaults to `0`, before training goes on.
        unit: `"epoch"` or `"step"`. Defaults to `"epoch"`.

    Example:

    >>> import keras_prune as kp
    >>> [kp.OneShot(at=2).strength(epoch) for epoch in range(4)]
    [None, None, 1.0, None]
    """

    def __init__(self, at: int = 0, unit: str = "epoch"):
        _require_integer("at", at, minimum=0)
        super().__init__(range(at, at + 1), unit)

    def ramp(self, index):
        return 1.0


class Iterative(Schedule):
    """Cuts in rounds and lets the survivors retrain between them (Han et al. 2015, section 3.4).

    Round `r` of `n` cuts at strength `1 - (1 - r / n) ** power`: evenly growing thresholds for a power of 1, large
    steps first and small ones last for a higher one.

    Args:
        rounds: Integer, how many cuts.
        epochs_per_round: Integer, how many epochs of training follow each cut. Defaults to `1`.
        start: Integer, the epoch before which the first cut happens. Defaults to `0`, for a model already trained.
        power: Float above 0. Defaults to `1.0`, right for `StdThreshold`; 3 suits `TargetSparsity`.

    Example:

    >>> import keras_prune as kp
    >>> schedule = kp.Iterative(rounds=4, epochs_per_round=2)
    >>> [schedule.strength(epoch) for epoch in range(8)]
    [0.25, None, 0.5, None, 0.75, None, 1.0, None]
    """

    def __init__(self, rounds: int, epochs_per_round: int = 1, start: int = 0, power: float = 1.0):
        _require_integer("rounds", rounds, minimum=1)
        _require_integer("epochs_per_round", epochs_per_round, minimum=1)
        _require_integer("start", start, minimum=0)
        _require_positive("power", power)
        super().__init__(range(start, start + rounds * epochs_per_round, epochs_per_round))
        self.power = power

    def ramp(self, index):
        return 1.0 - (1.0 - (index + 1) / len(self.times)) ** self.power


class PolynomialDecay(Schedule):
    """Raises the strength along a polynomial from 0 at `begin` to 1 at `end` (Zhu & Gupta 2017).

    At time `t` the strength is `1 - (1 - (t - begin) / (end - begin)) ** power`. The first cut comes at
    `begin + every`, the last one always at `end`.

    Args:
        begin: Integer, the epoch (or step) from which the strength rises.
        end: Integer above `begin`, the epoch (or step) of the last cut, at full strength.
        every: Integer, how many epochs (or steps) lie between two cuts. Defaults to `1`.
        power: Float above 0. Defaults to `3.0`.
        unit: `"epoch"` or `"step"` (`optimizer.iterations`). Defaults to `"epoch"`.

    Example:

    >>> import keras_prune as kp
    >>> schedule = kp.PolynomialDecay(begin=0, end=4)
    >>> [schedule.strength(epoch) for epoch in range(6)]
    [None, 0.578125, 0.875, 0.984375, 1.0, None]
    """

    def __init__(self, begin: int, end: int, every: int = 1, power: float = 3.0, unit: str = "epoch"):
        _require_integer("begin", begin, minimum=0)
        _require_integer("end", end, minimum=begin + 1)
        _require_integer("every", every, minimum=1)
        _require_positive("power", power)
        super().__init__([*range(begin + every, end, every), end], unit)
        self.begin, self.end, self.power = begin, end, power

    def ramp(self, index):
        progress = (self.times[index] - self.begin) / (self.end - self.begin)
        return 1.0 - (1.0 - progress) ** self.power


def _require_integer(name, value, minimum):
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < minimum:
        raise ValueError(f"{name} must be an integer of at least {minimum}. Received: {name}={value!r}")


def _require_positive(name, value):
    if not (isinstance(value, numbers.Real) and value > 0):
        raise ValueError(f"{name} must be a number above 0. Received: {name}={value!r}")
