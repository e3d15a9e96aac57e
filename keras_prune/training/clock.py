"""Clock of a training run, which determines the cuts that are due and the cuts that the run misses."""

import math

from keras_prune.rules.schedules import Schedule


class Clock:
    """Determines when the cuts of a schedule are due in one run of `fit`.

    It only calculates. The callback sets the epoch and the number of batches.

    Args:
        schedule: A `Schedule`.

    Attributes:
        done: The time up to which cuts are done; `None` before the first epoch.

    Example:

    >>> from keras_prune import Polynomial
    >>> clock = Clock(Polynomial(start=0, end=6, frequency=3, unit="step"))
    >>> clock.set(epoch=0, batches=0)
    >>> [clock.due(batch) for batch in range(8)]
    [None, None, None, 3, None, None, 6, None]
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.done: int | None = None
        self._by_step = schedule.unit == "step"
        self._epoch = self._batches = 0
        self._accumulation = 1

    def set(self, epoch: int, batches: int, accumulation: int = 1) -> None:
        """Sets the time.

        Args:
            epoch: Integer, index of the epoch.
            batches: Integer, how many batches the optimizer had seen when the epoch began, including earlier runs.
                Skipped batches, as of a `LossScaleOptimizer` when gradients overflow, are not counted.
            accumulation: Integer, number of batches in one optimizer step. Defaults to `1`.
        """
        self._epoch, self._batches, self._accumulation = epoch, batches, accumulation
        if self.done is None:
            self.done = self._start() - 1

    @property
    def epoch(self) -> int:
        """Index of the epoch."""
        return self._epoch

    def now(self) -> int:
        """Returns how many epochs or steps have begun."""
        return self._start() if self._by_step else self._epoch + 1

    def is_due(self, batch: int = 0) -> bool:
        """Whether `due` would return a cut, if no batch of the epoch so far was skipped."""
        return self._due(batch)[0] is not None

    def due(self, batch: int = 0) -> int | None:
        """Returns the time of the last cut that has become due, or `None`.

        Args:
            batch: Integer, index of the next batch in the epoch, or -1 for the batch before. Defaults to `0`.
        """
        due, now = self._due(batch)
        self.done = max(self.done or 0, now)
        return due

    def _due(self, batch) -> tuple[int | None, int]:
        assert self.done is not None, "`set` comes first"
        now = (self._batches + batch) // self._accumulation if self._by_step else self._epoch
        return self.schedule.due(self.done, now), now

    def end(self, epochs: int, steps: int | None) -> int | None:
        """Returns the time at which a run ends, or `None` if its steps are not known.

        Args:
            epochs: Integer, the epoch at which the run ends.
            steps: Integer, batches of an epoch, or `None`.
        """
        if not self._by_step:
            return epochs
        if steps is None:
            return None
        return math.ceil((self._batches + (epochs - self._epoch) * steps) / self._accumulation)

    def require_cuts(self, has_cuts: bool) -> None:
        """Checks, before the first epoch, that the run does not begin after the last cut.

        Args:
            has_cuts: Whether the model is pruned already, as in a run that resumes.

        Raises:
            ValueError: If the schedule can no longer prune.
        """
        unit, last, start = self.schedule.unit, self.schedule.times[-1], self._start()
        if start <= last or has_cuts:
            return
        if self._by_step:
            advice = "Steps are updates since the optimizer was made. Compile the model with a new optimizer, or pass"
        else:
            advice = "Epochs are counted from 0, not from `initial_epoch`. Pass"
        raise ValueError(
            f"The schedule does not prune in this run: its last cut comes before {unit} {last}, but the run begins at "
            f"{unit} {start}. {advice} a schedule that starts at {start} or later. Received: schedule={self.schedule!r}"
        )

    def shortfall(self, end: int, epochs: int) -> str | None:
        """Returns how far a run falls short of full strength if it ends at that time, or `None`.

        Args:
            end: Integer, the time at which the run ends.
            epochs: Integer, the epoch at which it ends.
        """
        unit, last = self.schedule.unit, self.schedule.times[-1]
        if end > last:
            return None
        counted = " (updates since the optimizer was made)" if self._by_step else ""
        return (
            f"The schedule ends at {unit} {last}, but this run ends after {unit} {end - 1}{counted}: full strength is "
            f"not reached unless training continues with initial_epoch={epochs}."
        )

    def is_last_step(self, end: int) -> bool:
        """Whether at most one step comes after the last cut if a run ends at that time."""
        return self._by_step and end - 1 == self.schedule.times[-1]

    def _start(self) -> int:
        # With gradient accumulation, a run may resume in the middle of a step, whose cut is done already.
        return math.ceil(self._batches / self._accumulation) if self._by_step else self._epoch
