"""Tests of the entropy bound."""

import pytest

from keras_prune.analysis.entropy import entropy_bound


def test_entropy_bound_is_values_and_entropy():
    assert entropy_bound(18816, 235200, 4) == pytest.approx(18816 * 4 + 235200 * 0.402179 / 8, rel=1e-6)
    assert entropy_bound(0, 235200, 4) == entropy_bound(0, 0, 4) == 0
    assert entropy_bound(235200, 235200, 4) == 940800
