"""What holds for every weight, criterion and schedule, tried on random ones."""

import itertools

import keras
import numpy as np
from helpers import array
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

import keras_prune as kp

# The arrays share one shape: JAX compiles every operation anew for each.
SHAPE = (4, 6)
FEW = settings(max_examples=25, deadline=None, derandomize=True)

weights = arrays.arrays("float32", SHAPE, elements=st.floats(-4, 4, width=16))
masks = arrays.arrays("bool", SHAPE).filter(np.any)
strengths = st.floats(0.01, 1.0)
criteria = st.one_of(
    st.floats(0.05, 4.0).map(kp.StdThreshold),
    st.floats(0.01, 0.99).map(kp.TargetSparsity),
)
powers = st.sampled_from([0.5, 1.0, 2.0, 3.0])
schedules = st.one_of(
    st.builds(kp.OneShot, st.integers(0, 20), st.sampled_from(["epoch", "step"])),
    st.builds(kp.Iterative, st.integers(1, 6), st.integers(1, 4), st.integers(0, 5), powers),
    st.builds(
        lambda begin, length, *rest: kp.Polynomial(begin, begin + length, *rest),
        st.integers(0, 5),
        st.integers(1, 20),
        st.integers(1, 7),
        powers,
    ),
)


@FEW
@given(weights, masks, criteria, strengths)
def test_a_cut_takes_only_and_never_everything(weight, mask, criterion, strength):
    smaller = array(criterion(weight, mask, strength).mask)
    assert smaller.dtype == bool
    assert smaller.any()
    assert not np.any(smaller & ~mask)


@FEW
@given(weights, masks, criteria, strengths)
def test_no_survivor_is_smaller_than_a_connection_that_was_cut(weight, mask, criterion, strength):
    smaller = array(criterion(weight, mask, strength).mask)
    lost = np.abs(weight[mask & ~smaller])
    assert lost.size == 0 or lost.max() <= np.abs(weight[smaller]).min()


@FEW
@given(weights, criteria, strengths, strengths)
def test_a_stronger_cut_takes_a_superset(weight, criterion, one, other):
    weak, strong = sorted([one, other])
    assert not np.any(array(criterion(weight, None, strong).mask) & ~array(criterion(weight, None, weak).mask))


@FEW
@given(weights, masks, st.floats(0.01, 0.99), strengths)
def test_target_sparsity_hits_its_count(weight, mask, sparsity, strength):
    target = weight.size - int(np.floor(weight.size * sparsity * strength + 0.5))
    smaller = array(kp.TargetSparsity(sparsity)(weight, mask, strength).mask)
    assert np.count_nonzero(smaller) == max(1, min(target, np.count_nonzero(mask)))


@FEW
@given(criteria)
def test_a_criterion_survives_being_saved(criterion):
    config = keras.saving.serialize_keras_object(criterion)
    assert keras.saving.deserialize_keras_object(config) == criterion


@FEW
@given(schedules)
def test_a_schedule_ends_at_full_strength_and_never_weakens(schedule):
    strengths = [schedule(time) for time in schedule.times]
    assert all(0 < weak <= strong for weak, strong in itertools.pairwise(strengths))
    assert strengths[-1] == 1.0
    assert list(schedule.times) == sorted(set(schedule.times))


@FEW
@given(schedules, st.lists(st.integers(1, 9), max_size=8))
def test_however_a_run_is_split_it_cuts_up_to_the_same_strength(schedule, pieces):
    end = max(schedule.times)
    now, last = -1, None
    for until in [*np.minimum(np.cumsum(pieces), end).tolist(), end]:
        due = schedule.due(now, until)
        now = max(now, until)
        last = last if due is None else due
    assert schedule(last) == 1.0


@settings(FEW, max_examples=10)
@given(weights, criteria, st.lists(strengths, min_size=1, max_size=3))
def test_a_layer_computes_with_the_stored_zeros(weight, criterion, rounds):
    layer = kp.Prune(keras.layers.Dense(SHAPE[1]), criterion)
    layer.build((None, SHAPE[0]))
    layer.layer.kernel.assign(weight)
    for strength in sorted(rounds):
        kp.cut(layer, strength)
    (pruned,) = kp.layers.pruned_weights(layer)
    mask = array(pruned.mask)
    np.testing.assert_array_equal(array(pruned.variable), np.where(mask, weight, 0))
    np.testing.assert_array_equal(array(pruned.masked()), array(pruned.variable))
    assert (pruned.kept, pruned.size) == (np.count_nonzero(mask), mask.size)
