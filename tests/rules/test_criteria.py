"""A criterion is pure: which connections it cuts follows from the weight, the mask and the strength alone."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_prune as kp

WEIGHT = np.random.default_rng(0).normal(size=(12, 10)).astype("float32")
HALF = np.random.default_rng(1).random(WEIGHT.shape) < 0.5
CRITERIA = [kp.StdThreshold(0.8), kp.TargetSparsity(0.7)]


def array(tensor):
    return ops.convert_to_numpy(tensor)


def mask_of(criterion, *args, **kwargs):
    return array(criterion(*args, **kwargs).mask)


def test_the_std_threshold_is_quality_times_the_standard_deviation():
    cut = kp.StdThreshold(0.8)(WEIGHT)
    assert float(cut.threshold) == pytest.approx(0.8 * WEIGHT.std(), rel=1e-5)
    np.testing.assert_array_equal(array(cut.mask), np.abs(WEIGHT) >= 0.8 * WEIGHT.std())


def test_the_standard_deviation_is_taken_anew_over_the_survivors():
    criterion = kp.StdThreshold(0.8)
    first = array(criterion(WEIGHT).mask)
    # The stored zeros of cut connections must not count.
    second = criterion(np.where(first, WEIGHT, 0), first)
    assert float(second.threshold) == pytest.approx(0.8 * WEIGHT[first].std(), rel=1e-5)
    np.testing.assert_array_equal(array(second.mask), first & (np.abs(WEIGHT) >= 0.8 * WEIGHT[first].std()))


def test_strength_scales_the_std_threshold():
    assert float(kp.StdThreshold(2.0)(WEIGHT, strength=0.25).threshold) == pytest.approx(0.5 * WEIGHT.std(), rel=1e-5)


@pytest.mark.parametrize(("sparsity", "strength", "cut"), [(0.9, 1.0, 108), (0.5, 0.5, 30), (0.1, 0.25, 3)])
def test_target_sparsity_cuts_an_exact_number(sparsity, strength, cut):
    assert np.count_nonzero(~mask_of(kp.TargetSparsity(sparsity), WEIGHT, strength=strength)) == cut


def test_target_sparsity_cuts_the_smallest_magnitudes():
    mask = mask_of(kp.TargetSparsity(0.6), WEIGHT)
    assert np.abs(WEIGHT[~mask]).max() < np.abs(WEIGHT[mask]).min()


def test_the_count_is_rounded_with_halves_upwards():
    assert np.count_nonzero(mask_of(kp.TargetSparsity(0.5), np.arange(1.0, 6.0))) == 2
    assert np.count_nonzero(mask_of(kp.TargetSparsity(0.25), np.arange(1.0, 7.0))) == 4


def test_ties_survive_in_row_major_order():
    weight = np.array([[1.0, -1.0, 1.0], [-1.0, 2.0, 1.0]])
    expected = [[True, True, False], [False, True, False]]
    np.testing.assert_array_equal(mask_of(kp.TargetSparsity(0.5), weight), expected)


def test_connections_that_are_gone_do_not_take_part_in_a_tie():
    mask = np.array([False, True, True, True])
    np.testing.assert_array_equal(mask_of(kp.TargetSparsity(0.5), np.ones(4), mask), [False, True, True, False])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_mask_only_shrinks(criterion):
    mask = HALF
    for strength in (0.2, 0.6, 1.0):
        smaller = mask_of(criterion, WEIGHT, mask, strength)
        assert not np.any(smaller & ~mask)
        mask = smaller


def test_target_sparsity_counts_the_connections_that_are_already_gone():
    assert np.count_nonzero(mask_of(kp.TargetSparsity(0.8), WEIGHT, HALF)) == 24
    np.testing.assert_array_equal(mask_of(kp.TargetSparsity(0.1), WEIGHT, HALF), HALF)


def test_cutting_to_the_same_sparsity_again_changes_nothing():
    criterion = kp.TargetSparsity(0.7)
    mask = mask_of(criterion, WEIGHT)
    np.testing.assert_array_equal(mask_of(criterion, WEIGHT, mask), mask)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("mask", [None, HALF])
def test_numpy_arrays_and_backend_tensors_give_equal_results(criterion, mask):
    on_numpy = criterion(WEIGHT, mask)
    on_backend = criterion(ops.convert_to_tensor(WEIGHT), None if mask is None else ops.convert_to_tensor(mask))
    np.testing.assert_array_equal(array(on_numpy.mask), array(on_backend.mask))
    assert float(on_numpy.threshold) == float(on_backend.threshold)


@pytest.mark.parametrize("criterion", CRITERIA)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_cut_as_their_float32_values(criterion, dtype):
    weight = ops.cast(ops.convert_to_tensor(WEIGHT), dtype)
    np.testing.assert_array_equal(mask_of(criterion, weight), mask_of(criterion, array(ops.cast(weight, "float32"))))


@pytest.mark.parametrize(
    ("criterion", "weight"),
    [
        (kp.StdThreshold(100.0), np.array([[1.0, -3.0], [2.0, 0.5]])),
        (kp.TargetSparsity(0.99), np.array([[1.0, -3.0], [2.0, 0.5]])),
    ],
)
def test_the_largest_connection_is_rescued_from_a_cut_that_would_leave_none(criterion, weight):
    cut = criterion(weight)
    assert cut.rescued
    np.testing.assert_array_equal(array(cut.mask), [[False, True], [False, False]])


@pytest.mark.parametrize("criterion", CRITERIA)
def test_an_ordinary_cut_rescues_nothing(criterion):
    assert not criterion(WEIGHT).rescued


def test_weights_that_are_all_the_same_are_kept_by_a_std_threshold():
    assert mask_of(kp.StdThreshold(2.0), np.full((3, 3), 0.5, "float32")).all()


@pytest.mark.parametrize("strength", [0.0, -0.1, 1.1, float("nan")])
def test_a_strength_out_of_range_is_refused(strength):
    with pytest.raises(ValueError, match=r"strength in \(0, 1\].*Received: strength="):
        kp.StdThreshold()(WEIGHT, strength=strength)


@pytest.mark.parametrize("quality", [0, -1.0, float("nan"), float("inf")])
def test_a_quality_out_of_range_is_refused(quality):
    with pytest.raises(ValueError, match=r"finite number above 0.*Received: quality="):
        kp.StdThreshold(quality)


@pytest.mark.parametrize("sparsity", [1, -0.5, 90, float("nan")])
def test_a_sparsity_out_of_range_is_refused(sparsity):
    with pytest.raises(ValueError, match=r"at least 0 and below 1.*Received: sparsity="):
        kp.TargetSparsity(sparsity)


@pytest.mark.parametrize("criterion", CRITERIA)
def test_a_criterion_is_known_by_its_configuration(criterion):
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert copy == criterion
    assert hash(copy) == hash(criterion)
    assert repr(copy) == repr(criterion)
    assert copy != type(criterion)(0.123)


@pytest.mark.parametrize("value", ["1", None, [0.5]])
@pytest.mark.parametrize("kind", [kp.StdThreshold, kp.TargetSparsity])
def test_what_is_no_number_is_named(kind, value):
    with pytest.raises(ValueError, match=r"Received: (quality|sparsity)="):
        kind(value)


def test_a_criterion_of_ones_own_cannot_bring_connections_back():
    class All(kp.Criterion):
        def select(self, weight, mask, strength):
            return keras.ops.ones_like(mask), 0.0

    mask = np.array([[True, False], [False, True]])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(All()(np.ones((2, 2)), mask).mask), mask)
