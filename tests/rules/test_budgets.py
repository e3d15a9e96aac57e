"""Budgets keep exact totals, never empty a weight, and split totals by their rule."""

import json

import keras
import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

import keras_prune as kp
from keras_prune.budgets import CommonQuality, ErdosRenyiKernel, GlobalMagnitude, Uniform
from keras_prune.rules.budgets import Candidate

ALL = [CommonQuality, GlobalMagnitude, Uniform, ErdosRenyiKernel]
RANKED = [CommonQuality, GlobalMagnitude]


def candidates(*shapes, seed=0):
    """Normally distributed weights, each with its own spread, and masks of ones."""
    random = np.random.default_rng(seed)
    values = [random.normal(scale=1 + index, size=shape).astype("float32") for index, shape in enumerate(shapes)]
    return [Candidate(value, np.ones(value.shape, "bool")) for value in values]


def cut(weights, budget, strength=1.0):
    """Prunes weights as `keras_prune.cut` does."""
    criteria = budget.criteria(weights, strength)
    return [one._replace(mask=rule(one.value, one.mask).mask) for rule, one in zip(criteria, weights, strict=True)]


def kept(weights):
    return [int(one.mask.sum()) for one in weights]


@pytest.mark.parametrize("budget", ALL)
@pytest.mark.parametrize("compression", [1.01, 2, 3.7, 12, 23, 100])
def test_budget_keeps_the_exact_total_and_empties_no_weight(budget, compression):
    weights = candidates((20, 30), (30, 7), (7, 1), (1, 3), (1, 1), (1, 1))
    left = kept(cut(weights, budget(compression)))
    assert sum(left) == round(822 / compression)
    assert min(left) >= 1


@pytest.mark.parametrize("budget", ALL)
@pytest.mark.parametrize("strength", [0.25, 0.5, 0.9])
def test_budget_total_is_exact_at_every_strength(budget, strength):
    weights = cut(candidates(*[(5, 7)] * 12), budget(1.5))
    assert sum(kept(cut(weights, budget(10), strength))) == min(280, round(42 + (1 - strength) * 378))


@pytest.mark.parametrize("budget", ALL)
def test_budget_approaches_its_target_with_the_strength(budget):
    weights, totals = candidates((20, 30), (30, 10)), []
    for strength in (0.25, 0.5, 0.75, 1.0):
        weights = cut(weights, budget(9), strength)
        totals.append(sum(kept(weights)))
    np.testing.assert_allclose(totals, [700, 500, 300, 100], atol=1)


def test_global_magnitude_keeps_the_largest_of_all_weights():
    weights = candidates((20, 30), (30, 7), (7, 5))
    threshold = np.sort(np.concatenate([np.abs(one.value).ravel() for one in weights]))[-round(845 / 6)]
    for before, after in zip(weights, cut(weights, GlobalMagnitude(6)), strict=True):
        np.testing.assert_array_equal(after.mask, np.abs(before.value) >= threshold)


def test_common_quality_is_one_quality_for_all_weights():
    weights = cut(candidates((20, 30), (30, 7), (7, 5)), CommonQuality(3))
    scores = [one.value / one.value[one.mask].std() for one in weights]
    lost, left = [], []
    for before, score, after in zip(weights, scores, cut(weights, CommonQuality(8)), strict=True):
        lost.append(np.abs(score[before.mask & ~after.mask]).max(initial=0))
        left.append(np.abs(score[after.mask]).min())
    assert max(lost) < min(left)


def test_ranking_ignores_values_of_pruned_connections():
    weights = cut(candidates((20, 30), (30, 7)), Uniform(2))
    refilled = [one._replace(value=np.where(one.mask, one.value, 100)) for one in weights]
    for budget in RANKED:
        assert budget(5).shares(refilled) == budget(5).shares(weights)


def test_common_quality_ranks_constant_weights_as_one_deviation():
    flat = Candidate(np.ones((10, 10), "float32"), np.ones((10, 10), "bool"))
    weights = [*candidates((10, 10)), flat]
    assert kept(cut(weights, CommonQuality(1.25))) == [60, 100]
    beyond = int((np.abs(weights[0].value) > weights[0].value.std()).sum())
    assert kept(cut(weights, CommonQuality(4))) == [beyond, 50 - beyond]


def test_uniform_gives_every_weight_the_same_share():
    assert kept(cut(candidates((20, 40), (40, 30), (30, 10)), Uniform(5))) == [160, 240, 60]


def test_erdos_renyi_kernel_follows_the_dimensions():
    shapes = [(5, 5, 3, 16), (3, 3, 16, 32), (1152, 10)]
    found = 1 - np.array(ErdosRenyiKernel(20).shares(candidates(*shapes)))
    factors = np.array([sum(shape) / np.prod(shape) for shape in shapes])
    np.testing.assert_allclose(found / found[0], factors / factors[0], rtol=0.03)


def test_erdos_renyi_kernel_leaves_small_weights_dense():
    assert kept(cut(candidates((100, 100), (100, 2)), ErdosRenyiKernel(4))) == [2550 - 200, 200]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 60), st.integers(1, 60)), min_size=1, max_size=9), st.floats(0, 1))
def test_erdos_renyi_kernel_is_exact_within_its_limits(shapes, share):
    weights = candidates(*shapes)
    total = sum(one.mask.size for one in weights)
    wanted = len(shapes) + round(share * (total - len(shapes)))
    assume(wanted < total)
    shares = ErdosRenyiKernel(total / wanted).shares(weights)
    counts = [round((1 - lost) * one.mask.size) for lost, one in zip(shares, weights, strict=True)]
    assert sum(counts) == wanted
    assert all(1 <= count <= one.mask.size for count, one in zip(counts, weights, strict=True))
    scales = [
        ((count - 1) / sum(shape), (count + 1) / sum(shape))
        for count, shape in zip(counts, shapes, strict=True)
        if 1 < count < shape[0] * shape[1]
    ]
    if scales:  # One scale explains the count of every weight that is at neither limit.
        assert max(low for low, _ in scales) <= min(high for _, high in scales) * (1 + 1e-9)


@settings(max_examples=30)
@given(
    st.integers(0, 1000),
    st.sampled_from([kp.Blocks((4, 1)), kp.Blocks((2, 2), "max")]),
    st.floats(2, 8),
    st.sampled_from(ALL),
)
def test_budget_of_blocks_is_met_to_half_a_block_a_weight(seed, pattern, compression, budget):
    weights = cut(candidates((20, 17), (17, 10), seed=seed), budget(compression, pattern))
    for one in weights:
        chosen = pattern.units(np.abs(one.value), one.mask)[0] >= 0
        np.testing.assert_array_equal(pattern.expand(chosen, np.ones_like(one.mask)), one.mask)  # Whole blocks.
    assert abs(sum(kept(weights)) - round(510 / compression)) <= 3 * 2


@pytest.mark.parametrize("budget", ALL)
def test_budget_of_n_of_m_keeps_no_more_than_the_pattern(budget):
    assert kept(cut(candidates((20, 16), (16, 8)), budget(1.5, kp.NOfM(2, 4)))) == [160, 64]


@pytest.mark.parametrize("budget", ALL)
def test_budget_counts_frozen_weights_and_keeps_them(budget):
    frozen, trained = candidates((20, 20), (20, 20))
    weights = [frozen._replace(frozen=True), trained]
    assert budget(1.6).shares(weights) == [0, 0.75]


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("budget", ALL)
def test_budget_is_exact_beside_a_weight_with_nothing_left(budget, frozen):
    empty, *others = candidates((20, 20), (20, 10), (10, 20))
    weights = [empty._replace(mask=np.zeros_like(empty.mask), frozen=frozen), *others]
    assert sum(kept(cut(weights, budget(8)))) == 100


@pytest.mark.parametrize("budget", ALL)
def test_budget_that_is_exceeded_already_cuts_nothing(budget):
    weights = cut(candidates((20, 30), (30, 10)), Uniform(10))
    assert kept(cut(weights, budget(5))) == [60, 30]


@pytest.mark.parametrize("budget", ALL)
def test_budget_survives_its_config(budget):
    original = budget(12, kp.Blocks((4, 1)))
    config = json.loads(json.dumps(keras.saving.serialize_keras_object(original)))
    assert keras.saving.deserialize_keras_object(config) == original
    assert repr(original) == f"{budget.__name__}(compression=12.0, pattern=Blocks(block_size=(4, 1), reduction='mean'))"
