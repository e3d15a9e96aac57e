"""Patterns cut their units as a whole, with any criterion and strength."""

import itertools
import math

import keras
import numpy as np
import pytest
from helpers import array, mask_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import keras_prune as kp

# The arrays share one shape, because JAX compiles every operation for each. It is not a multiple of the blocks.
SHAPE = (7, 5)
WEIGHT = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
FEW = settings(max_examples=25, deadline=None, derandomize=True)

weights = arrays.arrays("float32", SHAPE, elements=st.floats(-4, 4, width=16))
some_masks = arrays.arrays("bool", SHAPE).filter(np.any)
strengths = st.floats(0.01, 1.0)
sparsities = st.floats(0.01, 0.99)
blocks = st.sampled_from([kp.Blocks((4, 1)), kp.Blocks((2, 2), "max"), kp.Blocks((1, 3)), kp.Blocks((16, 8), "max")])
groups = st.sampled_from([kp.NOfM(2, 4), kp.NOfM(1, 2), kp.NOfM(1, 4), kp.NOfM(3, 16)])
patterns = st.one_of(st.none(), blocks, groups)
kinds = st.one_of(
    st.floats(0.05, 4.0).map(lambda quality: lambda pattern: kp.StdThreshold(quality, pattern)),
    sparsities.map(lambda sparsity: lambda pattern: kp.TargetSparsity(sparsity, pattern)),
    sparsities.map(lambda sparsity: lambda pattern: kp.RandomSparsity(sparsity, pattern, 3)),
)


def pieces(matrix, pattern):
    """Returns the blocks of a matrix, row by row. Those at its end are smaller."""
    inputs, outputs = pattern.block_size
    rows, columns = range(0, matrix.shape[0], inputs), range(0, matrix.shape[1], outputs)
    return [matrix[row : row + inputs, column : column + outputs] for row, column in itertools.product(rows, columns)]


def is_whole(mask, pattern):
    return all(piece.all() or not piece.any() for piece in pieces(mask, pattern))


@FEW
@given(weights, kinds, blocks, strengths)
def test_blocks_are_cut_or_kept_as_a_whole(weight, kind, pattern, strength):
    assert is_whole(mask_of(kind(pattern), weight, None, strength), pattern)


@FEW
@given(weights, some_masks, kinds, patterns, strengths)
def test_criterion_never_restores_and_never_cuts_everything(weight, mask, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, mask, strength)
    assert smaller.dtype == bool
    assert smaller.any()
    assert not np.any(smaller & ~mask)


@FEW
@given(weights, some_masks, kinds, blocks, strengths)
def test_blocks_with_gaps_are_cut_or_kept_as_a_whole(weight, mask, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, mask, strength)
    for before, after in zip(pieces(mask, pattern), pieces(smaller, pattern), strict=True):
        assert not after.any() or np.array_equal(before, after)


@FEW
@given(weights, some_masks, blocks)
def test_blocks_score_their_mean_or_largest_magnitude(weight, mask, pattern):
    score, left = pattern.units(np.abs(weight), mask)
    reduce = {"mean": np.mean, "max": np.max}[pattern.reduction]
    kept = [np.where(gap, piece, 0) for piece, gap in zip(pieces(weight, pattern), pieces(mask, pattern), strict=True)]
    count = [gap.sum() for gap in pieces(mask, pattern)]
    expected = [reduce(np.abs(piece)) if n else -1 for piece, n in zip(kept, count, strict=True)]
    np.testing.assert_array_equal(left.ravel(), count)
    np.testing.assert_allclose(score.ravel(), expected, rtol=1e-6)


@FEW
@given(weights, kinds, st.one_of(st.none(), blocks), strengths, strengths)
def test_criterion_cuts_a_superset_at_a_higher_strength(weight, kind, pattern, one, other):
    weak, strong = sorted([one, other])
    criterion = kind(pattern)
    assert not np.any(mask_of(criterion, weight, None, strong) & ~mask_of(criterion, weight, None, weak))


@FEW
@given(weights, some_masks, sparsities, blocks, strengths)
def test_target_sparsity_keeps_the_best_blocks_near_its_count(weight, mask, sparsity, pattern, strength):
    smaller = mask_of(kp.TargetSparsity(sparsity, pattern), weight, mask, strength)
    wanted = weight.size - math.floor(weight.size * sparsity * strength + 0.5)
    score, left = (part.ravel() for part in pattern.units(np.abs(weight), mask))
    best_first = sorted(np.flatnonzero(left), key=lambda unit: (-score[unit], unit))
    totals = [sum(left[best_first[:number]]) for number in range(len(best_first) + 1)]
    number = min(range(len(totals)), key=lambda number: (abs(totals[number] - wanted), number))
    assert np.count_nonzero(smaller) == totals[max(1, number)]
    kept = [unit for unit, piece in enumerate(pieces(smaller, pattern)) if piece.any()]
    assert kept == sorted(best_first[: max(1, number)])


@FEW
@given(weights, kinds, patterns, st.lists(strengths, min_size=1, max_size=3))
def test_criterion_cuts_nothing_more_at_the_same_strength(weight, kind, pattern, rounds):
    criterion = kind(pattern)
    if isinstance(criterion, kp.StdThreshold):
        return  # The standard deviation is recomputed at each cut.
    mask = np.ones(SHAPE, bool)
    for strength in sorted(rounds):
        mask = mask_of(criterion, weight, mask, strength)
    np.testing.assert_array_equal(mask_of(criterion, weight, mask, max(rounds)), mask)


@FEW
@given(weights, kinds, groups, strengths)
def test_n_of_m_keeps_at_most_n(weight, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, None, strength)
    most = pattern.of - math.ceil((pattern.of - pattern.kept) * strength)
    assert all(piece.sum() <= most for piece in pieces(smaller, kp.Blocks((pattern.of, 1))))


@FEW
@given(arrays.arrays("float32", (8, 5), elements=st.floats(-4, 4, width=16)), st.lists(strengths, max_size=3))
def test_n_of_m_keeps_the_two_largest_of_every_four(weight, rounds):
    criterion, mask = kp.TargetSparsity(0.5, kp.NOfM(kept=2, of=4)), np.ones(weight.shape, bool)
    for strength in [*sorted(rounds), 1.0]:
        mask = mask_of(criterion, weight, mask, strength)
    for magnitude, kept in zip(pieces(np.abs(weight), kp.Blocks((4, 1))), pieces(mask, kp.Blocks((4, 1))), strict=True):
        assert kept.sum() == 2
        assert magnitude[kept].min() >= magnitude[~kept].max()


@FEW
@given(kinds, patterns)
def test_criterion_survives_its_config(kind, pattern):
    criterion = kind(pattern)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert copy == criterion
    assert copy.pattern == pattern or copy.pattern == kp.Pattern()
    assert hash(copy) == hash(criterion)
    assert repr(copy) == repr(criterion)
    assert repr(copy.pattern) in repr(copy) or pattern is None
    assert copy != kind(kp.Blocks((9, 9)))


def test_blocks_take_the_patch_of_a_convolution_as_inputs():
    weight = np.ones((2, 2, 3, 4), "float32")
    weight[0, 0, 2, 1] = weight[0, 1, 0, 1] = 9.0  # The inputs 2 and 3 of twelve.
    weight[0, 1, 1, 1] = weight[1, 1, 2, 3] = 9.0  # The inputs 4 and 11.
    mask = mask_of(kp.TargetSparsity(1 - 4 / weight.size, kp.Blocks((4, 1))), weight)
    expected = np.zeros((12, 4), bool)
    expected[:4, 1] = True
    np.testing.assert_array_equal(mask.reshape(12, 4), expected)


def test_blocks_of_outputs_are_neighbouring_channels():
    weight = np.ones((1, 1, 3, 8), "float32")
    weight[..., 1, 4:] = 2.0
    mask = mask_of(kp.TargetSparsity(0.8, kp.Blocks((1, 4))), weight)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(12, 16))


def test_blocks_keep_ties_in_row_major_order():
    mask = mask_of(kp.TargetSparsity(0.5, kp.Blocks((2, 1))), np.ones((4, 3), "float32"))
    np.testing.assert_array_equal(mask, [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])


def test_n_of_m_keeps_ties_in_input_order():
    mask = mask_of(kp.TargetSparsity(0.5, kp.NOfM(2, 4)), np.zeros((8, 1), "float32"))
    np.testing.assert_array_equal(np.flatnonzero(mask), [0, 1, 4, 5])


@pytest.mark.parametrize("criterion", [kp.StdThreshold, kp.TargetSparsity, kp.RandomSparsity])
def test_criterion_rescues_the_best_block(criterion):
    weight = np.ones((8, 4), "float32")
    weight[4:, 2] = 3.0
    weight[0, 0] = 6.0  # The largest connection, but not the largest mean.
    found = criterion(50.0 if criterion is kp.StdThreshold else 0.99, pattern=kp.Blocks((4, 1)))(weight)
    assert found.rescued
    np.testing.assert_array_equal(np.argwhere(array(found.mask)), [[4, 2], [5, 2], [6, 2], [7, 2]])


def test_threshold_of_blocks_is_the_lowest_score_kept():
    found = kp.TargetSparsity(0.5, kp.Blocks((2, 1)))(np.array([[1.0, 4.0], [2.0, 8.0]], "float32"))
    assert found.threshold == 6.0


def test_blocks_of_one_by_one_are_single_connections():
    for kind in (kp.StdThreshold(0.8), kp.TargetSparsity(0.7), kp.RandomSparsity(0.7)):
        config = kind.get_config()
        blocked = type(kind)(**config, pattern=kp.Blocks((1, 1)))
        np.testing.assert_array_equal(mask_of(blocked, WEIGHT), mask_of(kind, WEIGHT))
