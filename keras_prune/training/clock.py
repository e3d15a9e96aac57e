"""Clock of a training run: which cut of a schedule is due at which batch."""

import math
import warnings

from keras_prune.rules.schedules import Schedule


class Clock:
    """Tells when the cuts of a schedule are due in one run of `fit`.

    It only calculates. The callback tells it what the training run has done so far.

    Args:
        schedule: A `Schedule`.

    Attributes:
        done: The time up to which cuts are done; `None` before the first epoch.

    Example:

    >>> from keras_prune import Polynomial
    >>> clock = Clock(Polynomial(start=0, end=6, frequency=3, unit="step"))
    >>> clock.start_epoch(0, batches=0)
    >>> [clock.due(batch) for batch in range(8)]
    [None, None, None, 3, None, None, 6, None]
    """

    def __init__(self, schedule: Schedule):
        self.schedule = schedule
        self.done: int | None = None
        self._by_step = schedule.unit == "step"
        self._epoch = self._batches = 0
        self._accumulation = 1

    def start_epoch(self, epoch: int, batches: int, accumulation: int = 1) -> None:
        """Sets the time at the start of an epoch.

        Args:
            epoch: Integer, index of the epoch.
            batches: Integer, how many batches the optimizer has seen, in earlier runs too.
            accumulation: Integer, number of batches in one optimizer step. Defaults to `1`.
        """
        self._epoch, self._batches, self._accumulation = epoch, batches, accumulation
        if self.done is None:
            self.done = self._start() - 1

    def due(self, batch: int = 0) -> int | None:
        """Returns the time of the last cut that has become due, or `None`.

        Args:
            batch: Integer, index of the next batch in the epoch, or -1 for the batch before. Defaults to `0`.
        """
        now = (self._batches + batch) // self._accumulation if self._by_step else self._epoch
        assert self.done is not None, "start_epoch comes first"
        after, self.done = self.done, max(self.done, now)
        return self.schedule.due(after, now)

    def check(self, epochs: int, steps: int | None, has_cuts: bool) -> None:
        """Checks, after `start_epoch`, that the run reaches the cuts of the schedule.

        Args:
            epochs: Integer, the epoch at which the run ends.
            steps: Integer, batches of an epoch; `None` if not known. `check_end` then sees whether there was a cut.
            has_cuts: Whether the model is pruned already. A resumed run may end before the next cut.

        Raises:
            ValueError: If the schedule does not prune in this run.
        """
        if self._by_step and steps is None:
            return
        unit, times, start = self.schedule.unit, self.schedule.times, self._start()
        batches = self._batches + (epochs - self._epoch) * (steps or 0)
        end = math.ceil(batches / self._accumulation) if self._by_step else epochs
        if self.schedule.due(start - 1, end - 1) is None and not (has_cuts and min(times) < start):
            listed = ", ".join(map(str, times)) if len(times) <= 6 else f"{times[0]}, {times[1]}, ..., {times[-1]}"
            raise ValueError(
                f"The schedule does not prune in this run: it prunes before {unit} {listed}, but `fit` trains {unit} "
                f"{start} to {end - 1}. Increase `epochs`, or start the schedule earlier. "
                f"Received: schedule={self.schedule!r}, epochs={epochs}, steps={steps}"
            )
        if max(times) >= end:
            self._warn_of_rest(end - 1, epochs)

    def check_end(self, epochs: int, steps: int | None) -> None:
        """Warns if a run has ended too early for the schedule, as a run of unknown length may."""
        unit, times = self.schedule.unit, self.schedule.times
        if self.done is None:
            return  # A backup of a finished run was restored, and no epoch began.
        if self.done < min(times):
            warnings.warn(
                f"The run ended before the first cut of the schedule, before {unit} {min(times)}: nothing was pruned.",
                stacklevel=3,
            )
        elif self._by_step and steps is None and self.done < max(times):
            self._warn_of_rest(self.done, epochs)

    def _start(self) -> int:
        # With gradient accumulation, a run may resume in the middle of a step, and the cut before it is done.
        return math.ceil(self._batches / self._accumulation) if self._by_step else self._epoch

    def _warn_of_rest(self, last: int, epochs: int) -> None:
        unit = self.schedule.unit
        warnings.warn(
            f"The schedule ends at {unit} {max(self.schedule.times)}, but this run ends after {unit} {last}: full "
            f"strength is not reached unless training continues with initial_epoch={epochs}.",
            stacklevel=4,
        )
