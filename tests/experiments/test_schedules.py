"""What the script that compares schedules trains, and how it tells differences from noise."""

import numpy as np
import pytest


@pytest.fixture
def schedules(import_script):
    return import_script("schedules")


@pytest.mark.parametrize("epochs", [5, 10, 30, 100])
def test_compared_schedules_end_within_the_run(schedules, epochs):
    ends = {}
    for name, one in schedules.schedules(epochs, steps=20).items():
        if one is not None:
            ends[name] = one.times[-1] / (epochs * (20 if one.unit == "step" else 1))
            assert one(one.times[-1]) == 1
    assert max(ends.values()) < 1


def test_noise_leaves_out_schedules_and_seeds(schedules):
    assert schedules.noise(np.array([[1, 2, 4], [11, 12, 14]])) == pytest.approx(0)
    # Two schedules: the standard error of the mean of the differences 1, 2 and 3.
    assert schedules.noise(np.array([[5, 5, 5], [6, 7, 8]])) == pytest.approx(1 / 3**0.5)
