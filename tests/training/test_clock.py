"""Tests of the clock that tells when the cuts of a schedule are due."""

import warnings

import pytest

import keras_prune as kp
from keras_prune.training.clock import Clock


def clock_at(schedule, epoch=0, batches=0, accumulation=1):
    clock = Clock(schedule)
    clock.start_epoch(epoch, batches, accumulation)
    return clock


def test_clock_by_epoch_is_due_once_an_epoch():
    clock = clock_at(kp.Iterative(rounds=2, epochs_per_round=2))
    due = []
    for epoch in range(4):
        clock.start_epoch(epoch, batches=10 * epoch)
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
    clock.start_epoch(0, batches=8)
    assert clock.due(-1) == 7


def test_clock_counts_accumulated_batches_as_one_step():
    clock = clock_at(kp.OneShot(start=2, unit="step"), accumulation=3)
    assert [clock.due(batch) for batch in range(8)] == [None] * 6 + [2, None]


def test_clock_resumes_behind_a_step_that_has_begun():
    schedule = kp.Polynomial(0, 3, unit="step")
    # Batches 3 to 5 make step 1, and the cut before it was done when batch 3 came.
    assert [clock_at(schedule, batches=batches, accumulation=3).due() for batches in (3, 4, 5)] == [1, None, None]


NEVER = [
    (kp.OneShot(start=2), {}),
    (kp.Iterative(rounds=3, start=5), {}),
    (kp.OneShot(start=0), {"epoch": 1}),
    (kp.OneShot(start=8, unit="step"), {}),
    (kp.Polynomial(start=10, end=20, unit="step"), {}),
    (kp.OneShot(start=4, unit="step"), {"accumulation": 2}),
]


@pytest.mark.parametrize(("schedule", "time"), NEVER)
def test_check_rejects_schedules_that_never_prune(schedule, time):
    with pytest.raises(ValueError, match=r"does not prune in this run.*Increase `epochs`.*Received: schedule=\w+\("):
        clock_at(schedule, **time).check(epochs=2, steps=4, has_cuts=False)


def test_check_accepts_a_resumed_run_without_a_cut():
    schedule = kp.Iterative(rounds=2, epochs_per_round=3)
    with pytest.warns(UserWarning, match="initial_epoch=2"):
        clock_at(schedule, epoch=1).check(epochs=2, steps=4, has_cuts=True)


PARTLY = [kp.Iterative(rounds=5), kp.Polynomial(0, 2), kp.Polynomial(0, 8, unit="step")]


@pytest.mark.parametrize("schedule", PARTLY)
def test_check_warns_if_full_strength_is_not_reached(schedule):
    with pytest.warns(UserWarning, match="full strength is not reached unless training continues with initial_epoch=2"):
        clock_at(schedule).check(epochs=2, steps=4, has_cuts=False)


ENTIRELY = [kp.OneShot(start=1), kp.OneShot(start=7, unit="step"), kp.Polynomial(0, 7, unit="step")]


@pytest.mark.parametrize("schedule", ENTIRELY)
def test_check_is_silent_if_the_schedule_ends(schedule):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clock_at(schedule).check(epochs=2, steps=4, has_cuts=False)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (kp.OneShot(start=50, unit="step"), "ended before the first cut of the schedule, before step 50: nothing was"),
        (kp.Polynomial(0, 50, unit="step"), "ends at step 50, but this run ends after step 2.*strength is not reached"),
    ],
)
def test_check_end_warns_after_a_run_of_unknown_length(schedule, message):
    clock = clock_at(schedule)
    clock.check(epochs=1, steps=None, has_cuts=False)
    clock.due(2)
    with pytest.warns(UserWarning, match=message):
        clock.check_end(epochs=1, steps=None)
