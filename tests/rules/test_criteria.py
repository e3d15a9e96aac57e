"""Criteria are pure functions of weight, mask and strength."""

import keras
import numpy as np
import pytest
from helpers import array, mask_of
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import ops

import keras_prune as kp

WEIGHT = np.random.default_rng(0).normal(size=(12, 10)).astype("float32")
HALF = np.random.default_rng(1).random(WEIGHT.shape) < 0.5
CRITERIA = [
    kp.StdThreshold(0.8),
    kp.TargetSparsity(0.7),
    kp.StdThreshold(1.0, kp.Blocks((4, 1))),
    kp.TargetSparsity(0.5, kp.NOfM(2, 4)),
]
FEW = settings(max_examples=25, deadline=None, derandomize=True)

# The arrays share one shape, because JAX compiles every operation for each shape.
weights = arrays.arrays("float32", (4, 6), elements=st.floats(-4, 4, width=16))
masks = arrays.arrays("bool", (4, 6)).filter(np.any)
strengths = st.floats(0.01, 1.0)
sparsities = st.floats(0.01, 0.99)
criteria = st.one_of(st.floats(0.05, 4.0).map(kp.StdThreshold), sparsities.map(kp.TargetSparsity))


def test_std_threshold_is_quality_times_std():
    cut = kp.StdThreshold(0.8)(WEIGHT)
    assert float(cut.threshold) == pytest.approx(0.8 * WEIGHT.std(), rel=1e-5)
    np.testing.assert_array_equal(array(cut.mask), np.abs(WEIGHT) >= 0.8 * WEIGHT.std())


def test_std_threshold_recomputes_the_std_of_survivors():
    criterion = kp.StdThreshold(0.8)
    first = mask_of(criterion, WEIGHT)
    # The stored zeros of cut connections must not count.
    second = criterion(np.where(first, WEIGHT, 0), first)
    assert float(second.threshold) == pytest.approx(0.8 * WEIGHT[first].std(), rel=1e-5)
    np.testing.assert_array_equal(array(second.mask), first & (np.abs(WEIGHT) >= 0.8 * WEIGHT[first].std()))


def test_std_threshold_scales_with_the_strength():
    assert float(kp.StdThreshold(2.0)(WEIGHT, strength=0.25).threshold) == pytest.approx(0.5 * WEIGHT.std(), rel=1e-5)


def test_std_threshold_keeps_weights_that_are_all_equal():
    assert mask_of(kp.StdThreshold(2.0), np.full((3, 3), 0.5, "float32")).all()


@FEW
@given(weights, masks, sparsities, strengths)
def test_target_sparsity_hits_its_count(weight, mask, sparsity, strength):
    target = weight.size - int(np.floor(weight.size * sparsity * strength + 0.5))
    smaller = mask_of(kp.TargetSparsity(sparsity), weight, mask, strength)
    assert np.count_nonzero(smaller) == max(1, min(target, np.count_nonzero(mask)))


def test_target_sparsity_rounds_halves_up():
    assert np.count_nonzero(mask_of(kp.TargetSparsity(0.5), np.arange(1.0, 6.0))) == 2
    assert np.count_nonzero(mask_of(kp.TargetSparsity(0.25), np.arange(1.0, 7.0))) == 4


def test_target_sparsity_keeps_ties_in_row_major_order():
    weight = np.array([[1.0, -1.0, 1.0], [-1.0, 2.0, 1.0]])
    expected = [[True, True, False], [False, True, False]]
    np.testing.assert_array_equal(mask_of(kp.TargetSparsity(0.5), weight), expected)


def test_target_sparsity_leaves_pruned_connections_out_of_ties():
    mask = np.array([False, True, True, True])
    np.testing.assert_array_equal(mask_of(kp.TargetSparsity(0.5), np.ones(4), mask), [False, True, True, False])


@FEW
@given(weights, masks, criteria, strengths)
def test_criterion_cuts_the_smallest_magnitudes(weight, mask, criterion, strength):
    smaller = mask_of(criterion, weight, mask, strength)
    lost = np.abs(weight[mask & ~smaller])
    assert lost.size == 0 or lost.max() <= np.abs(weight[smaller]).min()


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("mask", [None, HALF])
def test_criterion_gives_equal_results_on_every_backend(criterion, mask):
    on_numpy = criterion(WEIGHT, mask)
    on_backend = criterion(ops.convert_to_tensor(WEIGHT), None if mask is None else ops.convert_to_tensor(mask))
    np.testing.assert_array_equal(array(on_numpy.mask), array(on_backend.mask))
    assert float(on_numpy.threshold) == float(on_backend.threshold)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_criterion_cuts_half_precision_like_float32(criterion, dtype):
    weight = ops.cast(ops.convert_to_tensor(WEIGHT), dtype)
    np.testing.assert_array_equal(mask_of(criterion, weight), mask_of(criterion, array(ops.cast(weight, "float32"))))


@pytest.mark.parametrize("criterion", [kp.StdThreshold(100.0), kp.TargetSparsity(0.99)])
def test_criterion_rescues_the_largest_connection(criterion):
    cut = criterion(np.array([[1.0, -3.0], [2.0, 0.5]]))
    assert cut.rescued
    np.testing.assert_array_equal(array(cut.mask), [[False, True], [False, False]])
    assert not type(criterion)(0.5)(WEIGHT).rescued


def test_own_criterion_cannot_restore_connections():
    class All(kp.Criterion):
        def select(self, weight, mask, strength):
            return ops.ones_like(mask), 0.0

    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(mask_of(All(), np.ones((2, 2)), mask), mask)


def test_own_criterion_may_return_tensors_of_numbers():
    class Ones(kp.Criterion):
        def select(self, weight, mask, strength):
            threshold = ops.mean(ops.abs(weight))  # On PyTorch, it has a gradient.
            return ops.cast(mask, "float32") * ops.cast(ops.abs(weight) > threshold, "float32"), threshold

    model = kp.prune(keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)]), Ones())
    weight = kp.layers.pruned_weights(model)[0]
    weight.variable.assign(WEIGHT[:8, :4])
    kp.cut(model)
    magnitudes = np.abs(WEIGHT[:8, :4])
    assert float(array(weight.threshold)) == pytest.approx(magnitudes.mean())
    np.testing.assert_array_equal(array(weight.mask), magnitudes > magnitudes.mean())


@pytest.mark.parametrize("criterion", CRITERIA[:2])
def test_criterion_takes_a_variable(criterion):
    np.testing.assert_array_equal(mask_of(criterion, keras.Variable(WEIGHT)), mask_of(criterion, WEIGHT))
