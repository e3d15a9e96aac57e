"""Tests of the clock that determines when the cuts of a schedule are due."""

import re

import pytest

import keras_prune as kp
from keras_prune.training.clock import Clock


def clock_at(schedule, epoch=0, batches=0, accumulation=1):
    clock = Clock(schedule)
    clock.set(epoch, batches, accumulation)
    return clock


def test_clock_by_epoch_is_due_once_an_epoch():
    clock = clock_at(kp.Iterative(rounds=2, epochs_per_round=2))
    due = []
    for epoch in range(4):
        clock.set(epoch, batches=10 * epoch)
        due.append([clock.due(batch) for batch in range(2)])
    assert due == [[0, None], [None, None], [2, None], [None, None]]


def test_clock_by_step_counts_batches_of_earlier_epochs():
    clock = clock_at(kp.Polynomial(0, 8, frequency=4, unit="step"), epoch=1, batches=3)
    assert [clock.due(batch) for batch in range(6)] == [None, 4, None, None, None, 8]


def test_clock_catches_up_after_steps_executed_together():
    clock = clock_at(kp.OneShot(start=5, unit="step"))
    assert [clock.due(batch) for batch in (0, 4, 8)] == [None, None, 5]
    clock = clock_at(kp.OneShot(start=7, unit="step"))
    assert clock.due(4) is None
    clock.set(0, batches=8)
    assert clock.due(-1) == 7


def test_clock_counts_accumulated_batches_as_one_step():
    clock = clock_at(kp.OneShot(start=2, unit="step"), accumulation=3)
    assert [clock.due(batch) for batch in range(8)] == [None] * 6 + [2, None]


def test_clock_resumes_behind_a_step_that_has_begun():
    schedule = kp.Polynomial(0, 3, unit="step")
    # Batches 3 to 5 make step 1, and the cut before it was done when batch 3 came.
    assert [clock_at(schedule, batches=batches, accumulation=3).due() for batches in (3, 4, 5)] == [1, None, None]


def test_clock_does_not_count_skipped_batches():
    clock = clock_at(kp.OneShot(start=3, unit="step"))
    assert [clock.is_due(batch) for batch in range(4)] == [False, False, False, True]
    clock.set(0, batches=-1)  # Of the three batches before this one, the optimizer skipped one.
    assert [clock.due(batch) for batch in (3, 4)] == [None, 3]


BEHIND = [
    (kp.OneShot(start=0), {"epoch": 1}, "counted from 0, not from `initial_epoch`.*that starts at 1 or later"),
    (
        kp.Polynomial(0, 3, unit="step"),
        {"batches": 40},
        "at step 40.*since the optimizer was made.*starts at 40",
    ),
]


@pytest.mark.parametrize(("schedule", "time", "advice"), BEHIND)
def test_clock_rejects_runs_behind_the_last_cut(schedule, time, advice):
    clock = clock_at(schedule, **time)
    with pytest.raises(ValueError, match=rf"does not prune in this run.*{advice}.*Received: schedule=\w+\("):
        clock.require_cuts(has_cuts=False)
    clock.require_cuts(has_cuts=True)  # A run that resumes.


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (kp.Iterative(rounds=5), "ends at epoch 4, but this run ends after epoch 1:.*with initial_epoch=2"),
        (kp.Polynomial(0, 2), "ends at epoch 2, but"),
        (kp.Polynomial(0, 8, unit="step"), r"ends at step 8, but.*after step 7 \(updates since.*with initial_epoch=2"),
        (kp.OneShot(start=7, unit="step"), None),
        (kp.OneShot(start=1), None),
    ],
)
def test_clock_reports_missed_cuts(schedule, message):
    clock = clock_at(schedule)
    shortfall = clock.shortfall(clock.end(epochs=2, steps=4), epochs=2)
    assert (shortfall is None) if message is None else re.search(message, shortfall)


def test_clock_knows_the_last_step():
    schedules = [kp.OneShot(start=start, unit=unit) for start, unit in ((7, "step"), (6, "step"), (1, "epoch"))]
    ends = [(clock_at(schedule), clock_at(schedule).end(epochs=2, steps=4)) for schedule in schedules]
    assert [clock.is_last_step(end) for clock, end in ends] == [True, False, False]


def test_clock_does_not_know_the_end_without_steps():
    clock = clock_at(kp.OneShot(start=50, unit="step"))
    assert clock.end(epochs=1, steps=None) is None
    clock.set(0, batches=3)
    assert clock.now() == 3
