"""Ranking keeps what sorting would keep, with the scores in one chunk or in several."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_prune.rules.top_k import bound_of, keep_largest, kept_units, lowest_kept

UNITS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 4)), min_size=1, max_size=60)


def by_sorting(score, size, kept):
    """Takes units from the highest score down until their sizes come nearest to `kept`."""
    alive = np.flatnonzero(size)
    order = alive[np.argsort(-score[alive], kind="stable")]
    totals = np.concatenate([[0], np.cumsum(size[order])])
    mask = np.zeros(len(score), bool)
    mask[order[: np.argmin(np.abs(totals - kept))]] = True
    return mask


@given(
    UNITS, st.integers(0, 150), st.integers(1, 7), st.sampled_from(["float32", "float64"]), st.sampled_from([1, 10**6])
)
def test_chunks_keep_what_sorting_keeps(units, kept, each, dtype, number):
    score, size = np.array(units).T
    score = np.where(size > 0, score / 3, -1).astype(dtype)
    expected = by_sorting(score, size, kept)

    def chunks():
        return ((score[at : at + each], size[at : at + each]) for at in range(0, len(score), each))

    bound = bound_of(chunks, kept, units=number)
    np.testing.assert_array_equal(np.concatenate(list(kept_units(chunks(), bound))), expected)
    assert lowest_kept(chunks(), bound) == (score[expected].min() if expected.any() else max(score.max(), 0))


def test_keep_largest_separates_scores_by_their_last_bit():
    for dtype in ("float32", "float64"):
        score = np.array([1, np.nextafter(1, 2, dtype=dtype), np.nextafter(1, 0, dtype=dtype)], dtype)
        assert keep_largest(score, np.ones(3, bool), 1).tolist() == [False, True, False]


def test_keep_largest_ranks_infinity_first():
    score = np.array([3.0, np.inf, 1e-40, 0.0], "float32")
    assert keep_largest(score, np.ones(4, bool), 3).tolist() == [True, True, True, False]


def test_keep_largest_keeps_fewer_survivors():
    mask = np.array([True, False, False])
    np.testing.assert_array_equal(keep_largest(np.array([0.0, -1.0, -1.0]), mask, 2), mask)


def test_keep_largest_keeps_the_nearest_total():
    score, size = np.array([5.0, 4.0, 3.0, -1.0]), np.array([4, 1, 4, 0])
    for kept, expected in [(1, 0), (4, 1), (6, 2), (7, 2), (99, 3)]:  # 7 is as near to 5 as to 9: the smaller wins.
        assert keep_largest(score, size, kept).tolist() == [place < expected for place in range(4)]


@pytest.mark.parametrize("kept", [0, 3])
def test_keep_largest_keeps_nothing_of_nothing(kept):
    assert not keep_largest(np.full(4, -1.0), np.zeros(4, bool), kept).any()
