"""A schedule is a pure function of time."""

import numpy as np
import pytest

import keras_prune as kp

SCHEDULES = [
    kp.OneShot(at=3),
    kp.OneShot(at=3, unit="step"),
    kp.Iterative(rounds=4, epochs_per_round=2, start=1, power=3.0),
    kp.PolynomialDecay(begin=2, end=9, every=3),
    kp.PolynomialDecay(begin=2, end=9, every=100, unit="step"),
]


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_strengths_rise_to_full_strength_at_the_last_time(schedule):
    strengths = [schedule.strength(time) for time in schedule.times]
    assert strengths == sorted(strengths)
    assert strengths[0] > 0
    assert strengths[-1] == 1.0


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nothing_is_cut_between_the_times(schedule):
    assert [time for time in range(30) if schedule.strength(time) is not None] == list(schedule.times)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_due_finds_the_last_time_in_a_stretch(schedule):
    for after in range(-1, 12):
        for until in range(after, 12):
            stretch = [time for time in range(after + 1, until + 1) if schedule.strength(time) is not None]
            assert schedule.due(after, until) == (stretch[-1] if stretch else None)


def test_iterative_cuts_once_a_round():
    assert list(kp.Iterative(rounds=3, epochs_per_round=4, start=2).times) == [2, 6, 10]


def test_iterative_power_takes_large_steps_first():
    strengths = [kp.Iterative(rounds=2, power=3.0).strength(time) for time in range(2)]
    assert strengths == [0.875, 1.0]


def test_polynomial_decay_follows_zhu_and_gupta():
    schedule = kp.PolynomialDecay(begin=10, end=50, every=15)
    assert list(schedule.times) == [25, 40, 50]
    assert schedule.strength(25) == pytest.approx(1 - (1 - 15 / 40) ** 3)


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("at", lambda: kp.OneShot(at=-1)),
        ("at", lambda: kp.OneShot(at=1.5)),
        ("rounds", lambda: kp.Iterative(rounds=0)),
        ("rounds", lambda: kp.Iterative(rounds=True)),
        ("epochs_per_round", lambda: kp.Iterative(rounds=2, epochs_per_round=0)),
        ("start", lambda: kp.Iterative(rounds=2, start=-1)),
        ("power", lambda: kp.Iterative(rounds=2, power=0)),
        ("power", lambda: kp.PolynomialDecay(0, 5, power=float("nan"))),
        ("end", lambda: kp.PolynomialDecay(begin=5, end=5)),
        ("every", lambda: kp.PolynomialDecay(begin=0, end=5, every=0)),
        ("unit", lambda: kp.OneShot(unit="batch")),
    ],
)
def test_an_argument_out_of_range_is_refused_by_name(name, make):
    with pytest.raises(ValueError, match=f"Received: {name}="):
        make()


def test_numpy_integers_are_integers_and_text_is_no_number():
    assert kp.Iterative(np.int64(2), np.int64(3)).strength(3) == 1.0
    with pytest.raises(ValueError, match="Received: power='3'"):
        kp.Iterative(2, power="3")
