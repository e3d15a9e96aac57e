"""Statistics of the surviving weights do not depend on how a weight is split into chunks."""

import numpy as np
import pytest

from keras_prune.rules import chunks
from keras_prune.rules.statistics import largest_magnitude, surviving_std

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(3.0, 0.5, size=(37, 5)).astype("float32")
MASK = RANDOM.random(WEIGHT.shape) < 0.7


def test_surviving_std_is_that_of_all_survivors(monkeypatch):
    monkeypatch.setattr(chunks, "_ENTRIES", 16)
    assert surviving_std(WEIGHT, MASK) == pytest.approx(WEIGHT[MASK].std(dtype="float64"), rel=1e-6)
    far_off = WEIGHT * 1e-3 + 1000  # Where the sum of squares alone would lose all digits.
    assert surviving_std(far_off, MASK) == pytest.approx(far_off[MASK].astype("float64").std(), rel=1e-2)
    assert surviving_std(WEIGHT, np.zeros_like(MASK)) == 0


def test_largest_magnitude_is_that_of_survivors():
    weight = np.array([[-3.0, 2.0], [1.0, 9.0]], "float32")
    assert largest_magnitude(weight, np.array([[True, True], [True, False]])) == 3
    assert largest_magnitude(weight, np.zeros((2, 2), bool)) == 0
