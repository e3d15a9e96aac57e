"""Schedules are pure functions of time."""

import json

import keras
import numpy as np
import pytest

import keras_prune as kp
from keras_prune.rules.schedules import default_schedule

SCHEDULES = [
    kp.OneShot(start=3),
    kp.OneShot(start=3, unit="step"),
    kp.Iterative(rounds=4, epochs_per_round=2, start=1, power=3.0),
    kp.Polynomial(start=2, end=9, frequency=3),
    kp.Polynomial(start=2, end=9, frequency=100, unit="step"),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_rises_to_full_strength(schedule):
    strengths = [schedule(time) for time in schedule.times]
    assert strengths == sorted(strengths)
    assert strengths[0] > 0
    assert strengths[-1] == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_is_none_between_cuts(schedule):
    assert [time for time in range(30) if schedule(time) is not None] == list(schedule.times)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_due_returns_the_last_cut_of_a_stretch(schedule):
    for after in range(-1, 12):
        for until in range(after, 12):
            stretch = [time for time in range(after + 1, until + 1) if schedule(time) is not None]
            assert schedule.due(after, until) == (stretch[-1] if stretch else None)


def test_iterative_prunes_once_a_round():
    assert list(kp.Iterative(rounds=3, epochs_per_round=4, start=2).times) == [2, 6, 10]


def test_iterative_power_takes_large_steps_first():
    strengths = [kp.Iterative(rounds=2, power=3.0)(time) for time in range(2)]
    assert strengths == [0.875, 1.0]


def test_polynomial_follows_zhu_and_gupta():
    schedule = kp.Polynomial(start=10, end=50, frequency=15)
    assert list(schedule.times) == [25, 40, 50]
    assert schedule(25) == pytest.approx(1 - (1 - 15 / 40) ** 3)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_schedule_survives_its_config_and_repr(schedule):
    config = keras.saving.serialize_keras_object(schedule)
    copy = keras.saving.deserialize_keras_object(json.loads(json.dumps(config)))
    assert [copy(time) for time in range(12)] == [schedule(time) for time in range(12)]
    assert repr(copy) == repr(schedule)
    assert repr(eval(f"kp.{schedule!r}")) == repr(schedule)


@pytest.mark.parametrize(("epochs", "expected"), [(1, [0]), (2, [1]), (3, [1, 2]), (30, list(range(1, 21)))])
def test_default_schedule_ends_after_two_thirds(epochs, expected):
    assert list(default_schedule(epochs).times) == expected


def test_schedule_accepts_numpy_integers():
    assert kp.Iterative(np.int64(2), np.int64(3))(3) == 1.0
