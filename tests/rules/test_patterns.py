"""A pattern's units stand or fall together, whatever the criterion, the schedule and the budget."""

import itertools
import math

import keras
import numpy as np
import pytest
from helpers import array, masks
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from keras import layers, ops

import keras_prune as kp

# The arrays share one shape, no multiple of the blocks: JAX compiles every operation anew for each.
SHAPE = (7, 5)
WEIGHT = np.random.default_rng(0).normal(size=SHAPE).astype("float32")
FEW = settings(max_examples=25, deadline=None, derandomize=True)

weights = arrays.arrays("float32", SHAPE, elements=st.floats(-4, 4, width=16))
some_masks = arrays.arrays("bool", SHAPE).filter(np.any)
strengths = st.floats(0.01, 1.0)
sparsities = st.floats(0.01, 0.99)
blocks = st.sampled_from([kp.Blocks((4, 1)), kp.Blocks((2, 2), "max"), kp.Blocks((1, 3)), kp.Blocks((16, 8), "max")])
groups = st.sampled_from([kp.NOfM(2, 4), kp.NOfM(1, 2), kp.NOfM(1, 4), kp.NOfM(3, 16)])
kinds = st.one_of(
    st.floats(0.05, 4.0).map(lambda quality: lambda pattern: kp.StdThreshold(quality, pattern)),
    sparsities.map(lambda sparsity: lambda pattern: kp.TargetSparsity(sparsity, pattern)),
    sparsities.map(lambda sparsity: lambda pattern: kp.RandomSparsity(sparsity, pattern, 3)),
)


def mask_of(criterion, *args, **kwargs):
    return array(criterion(*args, **kwargs).mask)


def pieces(matrix, pattern):
    """The blocks of a matrix, row by row, those at its end smaller."""
    inputs, outputs = pattern.block_size
    rows, columns = range(0, matrix.shape[0], inputs), range(0, matrix.shape[1], outputs)
    return [matrix[row : row + inputs, column : column + outputs] for row, column in itertools.product(rows, columns)]


def dense_chain(*units, seed=0, pattern=None):
    """Returns a pruned model whose kernels are normally distributed, each layer with its own spread."""
    random = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((units[0],)), *(layers.Dense(n, use_bias=False) for n in units[1:])])
    for index, layer in enumerate(model.layers):
        layer.kernel.assign(random.normal(scale=1 + index, size=layer.kernel.shape).astype("float32"))
    return kp.prune(model, kp.StdThreshold(1.0, pattern))


def cut(model, criteria=None):
    if criteria is not None:
        kp.prune(model, criteria)
    kp.cut(model)
    return model


def criteria_of(model):
    return [weight.criterion for weight in kp.layers.pruned_weights(model)]


def is_whole(mask, pattern):
    return all(piece.all() or not piece.any() for piece in pieces(mask, pattern))


@FEW
@given(weights, kinds, blocks, strengths)
def test_a_block_is_cut_or_kept_as_a_whole(weight, kind, pattern, strength):
    assert is_whole(mask_of(kind(pattern), weight, None, strength), pattern)


@FEW
@given(weights, some_masks, kinds, st.one_of(blocks, groups), strengths)
def test_a_cut_takes_only_and_never_everything(weight, mask, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, mask, strength)
    assert smaller.any()
    assert not np.any(smaller & ~mask)


@FEW
@given(weights, some_masks, kinds, blocks, strengths)
def test_of_a_block_with_gaps_all_that_is_left_is_cut_or_kept(weight, mask, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, mask, strength)
    for before, after in zip(pieces(mask, pattern), pieces(smaller, pattern), strict=True):
        assert not after.any() or np.array_equal(before, after)


@FEW
@given(weights, some_masks, blocks)
def test_the_score_of_a_block_is_its_mean_or_largest_magnitude(weight, mask, pattern):
    score, left = pattern.units(np.abs(weight), mask)
    reduce = {"mean": np.mean, "max": np.max}[pattern.reduction]
    kept = [np.where(gap, piece, 0) for piece, gap in zip(pieces(weight, pattern), pieces(mask, pattern), strict=True)]
    count = [gap.sum() for gap in pieces(mask, pattern)]
    expected = [reduce(np.abs(piece)) if n else -1 for piece, n in zip(kept, count, strict=True)]
    np.testing.assert_array_equal(left.ravel(), count)
    np.testing.assert_allclose(score.ravel(), expected, rtol=1e-6)


@FEW
@given(weights, kinds, blocks, strengths, strengths)
def test_a_stronger_cut_takes_a_superset_of_the_blocks(weight, kind, pattern, one, other):
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
@given(weights, kinds, st.one_of(blocks, groups), st.lists(strengths, min_size=1, max_size=3))
def test_a_cut_at_the_same_strength_again_changes_nothing(weight, kind, pattern, rounds):
    criterion = kind(pattern)
    if isinstance(criterion, kp.StdThreshold):
        return  # Its standard deviation is taken anew.
    mask = np.ones(SHAPE, bool)
    for strength in sorted(rounds):
        mask = mask_of(criterion, weight, mask, strength)
    np.testing.assert_array_equal(mask_of(criterion, weight, mask, max(rounds)), mask)


@FEW
@given(weights, kinds, groups, strengths)
def test_no_more_than_n_of_m_inputs_stay(weight, kind, pattern, strength):
    smaller = mask_of(kind(pattern), weight, None, strength)
    most = pattern.of - math.ceil((pattern.of - pattern.kept) * strength)
    assert all(piece.sum() <= most for piece in pieces(smaller, kp.Blocks((pattern.of, 1))))


@FEW
@given(arrays.arrays("float32", (8, 5), elements=st.floats(-4, 4, width=16)), st.lists(strengths, max_size=3))
def test_two_of_four_keeps_the_two_largest_of_every_four(weight, rounds):
    criterion, mask = kp.TargetSparsity(0.5, kp.NOfM(kept=2, of=4)), np.ones(weight.shape, bool)
    for strength in [*sorted(rounds), 1.0]:
        mask = mask_of(criterion, weight, mask, strength)
    for magnitude, kept in zip(pieces(np.abs(weight), kp.Blocks((4, 1))), pieces(mask, kp.Blocks((4, 1))), strict=True):
        assert kept.sum() == 2
        assert magnitude[kept].min() >= magnitude[~kept].max()


@FEW
@given(weights, some_masks, st.one_of(blocks, groups))
def test_arrays_of_numpy_and_of_the_backend_have_equal_units(weight, mask, pattern):
    on_host = pattern.units(np.abs(weight), mask)
    on_backend = pattern.units(ops.convert_to_tensor(np.abs(weight)), ops.convert_to_tensor(mask))
    np.testing.assert_allclose(on_host[0], array(on_backend[0]), rtol=1e-6)
    np.testing.assert_array_equal(on_host[1], array(on_backend[1]))
    chosen = on_host[0] > np.median(on_host[0])
    on_device = pattern.expand(ops.convert_to_tensor(chosen), ops.convert_to_tensor(mask))
    np.testing.assert_array_equal(pattern.expand(chosen, mask), array(on_device))


@FEW
@given(kinds, st.one_of(blocks, groups))
def test_a_criterion_is_saved_with_its_pattern(kind, pattern):
    criterion = kind(pattern)
    copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(criterion))
    assert copy == criterion
    assert copy.pattern == pattern
    assert hash(copy) == hash(criterion)
    assert repr(pattern) in repr(copy)
    assert copy != kind(None)


def test_a_criterion_saved_before_there_were_patterns_is_loaded():
    assert kp.TargetSparsity.from_config({"sparsity": 0.7}) == kp.TargetSparsity(0.7)
    assert kp.TargetSparsity(0.7).get_config() == {"sparsity": 0.7}


def test_a_pruned_model_is_saved_with_its_patterns(tmp_path):
    model = cut(dense_chain(9, 6, pattern=kp.Blocks((4, 1), "max")))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert criteria_of(loaded) == [kp.StdThreshold(1.0, kp.Blocks((4, 1), "max"))]
    np.testing.assert_array_equal(masks(loaded)[0], masks(model)[0])


def test_inputs_of_a_convolution_are_its_patch_channels_fastest():
    weight = np.ones((2, 2, 3, 4), "float32")
    weight[0, 0, 2, 1] = weight[0, 1, 0, 1] = 9.0  # The inputs 2 and 3 of twelve.
    weight[0, 1, 1, 1] = weight[1, 1, 2, 3] = 9.0  # The inputs 4 and 11.
    mask = mask_of(kp.TargetSparsity(1 - 4 / weight.size, kp.Blocks((4, 1))), weight)
    expected = np.zeros((12, 4), bool)
    expected[:4, 1] = True
    np.testing.assert_array_equal(mask.reshape(12, 4), expected)


def test_blocks_of_outputs_cut_neighbouring_output_channels():
    weight = np.ones((1, 1, 3, 8), "float32")
    weight[..., 1, 4:] = 2.0
    mask = mask_of(kp.TargetSparsity(0.8, kp.Blocks((1, 4))), weight)
    np.testing.assert_array_equal(np.flatnonzero(mask), np.arange(12, 16))


def test_equal_blocks_survive_in_row_major_order():
    mask = mask_of(kp.TargetSparsity(0.5, kp.Blocks((2, 1))), np.ones((4, 3), "float32"))
    np.testing.assert_array_equal(mask, [[1, 1, 1], [1, 1, 1], [0, 0, 0], [0, 0, 0]])


def test_equal_connections_of_a_group_survive_in_input_order():
    mask = mask_of(kp.TargetSparsity(0.5, kp.NOfM(2, 4)), np.zeros((8, 1), "float32"))
    np.testing.assert_array_equal(np.flatnonzero(mask), [0, 1, 4, 5])


@pytest.mark.parametrize("criterion", [kp.StdThreshold, kp.TargetSparsity, kp.RandomSparsity])
def test_the_best_block_is_kept_by_a_cut_that_would_leave_none(criterion):
    weight = np.ones((8, 4), "float32")
    weight[4:, 2] = 3.0
    weight[0, 0] = 6.0  # The largest connection, but not the largest mean.
    found = criterion(50.0 if criterion is kp.StdThreshold else 0.99, pattern=kp.Blocks((4, 1)))(weight)
    assert found.rescued
    np.testing.assert_array_equal(np.argwhere(array(found.mask)), [[4, 2], [5, 2], [6, 2], [7, 2]])


def test_the_threshold_of_blocks_is_the_lowest_score_that_stays():
    found = kp.TargetSparsity(0.5, kp.Blocks((2, 1)))(np.array([[1.0, 4.0], [2.0, 8.0]], "float32"))
    assert found.threshold == 6.0


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_weights_are_cut_as_their_float32_values(dtype):
    weight = ops.cast(ops.convert_to_tensor(WEIGHT), dtype)
    for criterion in (kp.StdThreshold(1.0, kp.Blocks((4, 1))), kp.TargetSparsity(0.5, kp.NOfM(2, 4))):
        np.testing.assert_array_equal(
            mask_of(criterion, weight), mask_of(criterion, array(ops.cast(weight, "float32")))
        )


def test_one_by_one_blocks_are_single_connections():
    for kind in (kp.StdThreshold(0.8), kp.TargetSparsity(0.7), kp.RandomSparsity(0.7)):
        config = kind.get_config()
        blocked = type(kind)(**config, pattern=kp.Blocks((1, 1)))
        np.testing.assert_array_equal(mask_of(blocked, WEIGHT), mask_of(kind, WEIGHT))


def test_a_schedule_cuts_whole_blocks_at_every_strength():
    model = dense_chain(10, 6)
    pattern = kp.Blocks((4, 1))
    cut_at = []

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            (mask,) = masks(self.model)
            assert is_whole(mask, pattern)
            cut_at.append(int(mask.sum()))

    kp.prune(model, kp.TargetSparsity(0.75, pattern))
    model.compile("adam", "mse")
    schedule = kp.Polynomial(0, 4)
    x = np.random.default_rng(0).normal(size=(32, 10)).astype("float32")
    model.fit(x, x[:, :6], epochs=5, verbose=0, callbacks=[kp.PruningCallback(schedule, verbose=0), Watch()])
    assert cut_at == sorted(cut_at, reverse=True)
    assert abs(cut_at[-1] - 15) <= 2
    assert len(set(cut_at)) > 2


def test_sensitivity_cuts_in_the_pattern_of_each_layer():
    model = dense_chain(8, 4, pattern=kp.Blocks((4, 1)))
    model.compile(loss="mse", metrics=["accuracy"])
    x = np.ones((8, 8), "float32")
    scan = kp.sensitivity(model, (x, model.predict(x, verbose=0)), [kp.TargetSparsity(0.1), kp.TargetSparsity(0.5)])
    name = model.layers[0].name
    assert [point.density for point in scan.curves[name]] == [0.875, 0.5]
    assert scan.criteria(max_drop=1.0)[name] == kp.TargetSparsity(0.5, kp.Blocks((4, 1)))


def test_iterative_prune_keeps_whole_blocks_round_by_round(capsys):
    x = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    model = dense_chain(8, 12, 4, pattern=kp.Blocks((4, 1)))
    model.compile("adam", "mse", metrics=["accuracy"])
    data = {"x": x, "y": x[:, :4], "validation_data": (x, x[:, :4])}
    rounds = kp.iterative_prune(model, compressions=[2, 4], max_drop=1.0, **data)
    assert [round(one.compression) for one in rounds] == [1, 2, 4]
    assert all(is_whole(mask, kp.Blocks((4, 1))) for mask in masks(model))
    assert set(criteria_of(model)) == {kp.StdThreshold(1.0, kp.Blocks((4, 1)))}


@pytest.mark.parametrize("block_size", [4, (4,), (4, 1, 1), (0, 1), (4, -1), (4.0, 1), "41", (True, 1), None])
def test_a_block_size_that_is_none_is_refused(block_size):
    with pytest.raises(ValueError, match=r"two integers of at least 1.* Received: block_size="):
        kp.Blocks(block_size)


def test_blocks_reject_other_reductions():
    with pytest.raises(ValueError, match=r'"mean" or "max".* Received: reduction=.sum.'):
        kp.Blocks((4, 1), "sum")


@pytest.mark.parametrize(("kept", "of"), [(4, 4), (0, 4), (4, 2), (1.5, 4), (2, None), ("2", 4)])
def test_n_of_m_that_is_none_is_refused(kept, of):
    with pytest.raises(ValueError, match=r"1 <= kept < of.* Received: kept="):
        kp.NOfM(kept, of)


@pytest.mark.parametrize("criterion", [kp.StdThreshold, kp.TargetSparsity, kp.RandomSparsity])
def test_what_is_no_pattern_is_refused(criterion):
    with pytest.raises(ValueError, match=r"such as Blocks\(block_size=\(4, 1\)\).* Received: pattern=\(4, 1\)"):
        criterion(0.5, pattern=(4, 1))
