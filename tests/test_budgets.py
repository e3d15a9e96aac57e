"""Budgets are exact, leave no weight empty, and have the proportions that their names promise."""

import keras
import numpy as np
import pytest
from helpers import refill
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_prune as kp
from keras_prune import budgets
from keras_prune.layers import pruned_weights

ALL = [budgets.uniform, budgets.erdos_renyi_kernel, budgets.global_magnitude]


def dense_chain(*units, seed=0, scale=1.0):
    """A model whose kernels are normally distributed, each layer's with a spread of its own."""
    random = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((units[0],)), *(layers.Dense(n, use_bias=False) for n in units[1:])])
    for index, layer in enumerate(model.layers):
        layer.kernel.assign(random.normal(scale=scale * (1 + index), size=layer.kernel.shape).astype("float32"))
    return model


def cut_with(model, criteria):
    kp.cut(kp.prune(model, criteria))
    return model


def kept(model):
    """Returns the connections that are left, layer by layer, pruned or not."""
    return [row.kept for row in kp.report(model).rows]


def magnitudes(model):
    return [np.abs(ops.convert_to_numpy(layer.kernel)).ravel() for layer in model.layers]


def cut_at_common_quality(pruned, quality):
    """Cuts as `iterative_prune` does: every weight at its own quality times the common one."""
    for weight in pruned_weights(pruned):
        own = weight.criterion
        weight.criterion = kp.StdThreshold(own.quality * quality)
        weight.cut(1.0)
        weight.criterion = own


@pytest.mark.parametrize("budget", ALL)
@pytest.mark.parametrize("compression", [1.01, 2, 3.7, 12, 23])
def test_the_total_is_exact(budget, compression):
    model = dense_chain(20, 30, 7, 1, 3)
    total = 20 * 30 + 30 * 7 + 7 + 3
    cut_with(model, budget(model, compression))
    assert sum(kept(model)) == round(total / compression)


@pytest.mark.parametrize("budget", ALL)
def test_the_total_is_exact_and_no_weight_empty_beside_many_tiny_layers(budget):
    total = 50 * 20 + 20 + 5 + 2
    for compression in (5, 50, total / 8):
        model = dense_chain(50, 20, 1, 1, 1, 1, 1, 1, 2)
        cut_with(model, budget(model, compression))
        assert sum(kept(model)) == round(total / compression)
        assert min(kept(model)) >= 1


@settings(max_examples=100, deadline=None)
@given(
    layer_sizes=st.lists(st.tuples(st.integers(1, 5000), st.floats(0.01, 100)), min_size=1, max_size=12),
    share=st.floats(0, 1),
)
def test_shares_are_exact_within_bounds_and_in_proportion_between_them(layer_sizes, share):
    layers = {str(index): budgets._Layer(size, 1, size, kp.Pattern()) for index, (size, _) in enumerate(layer_sizes)}
    factors = {str(index): size * ratio for index, (size, ratio) in enumerate(layer_sizes)}
    total = sum(size for size, _ in layer_sizes)
    wanted = len(layers) + round(share * (total - len(layers)))
    counts = budgets._shares(layers, factors, wanted)
    assert sum(counts.values()) == wanted
    assert all(1 <= counts[name] <= layer.size for name, layer in layers.items())
    scales = [
        ((counts[name] - 1) / factors[name], (counts[name] + 1) / factors[name])
        for name, layer in layers.items()
        if 1 < counts[name] < layer.size
    ]
    if scales:  # One scale explains the count of every layer that is neither full nor protected.
        assert max(low for low, _ in scales) <= min(high for _, high in scales) * (1 + 1e-9)


def test_uniform_cuts_every_layer_to_the_same_share():
    model = dense_chain(20, 40, 30, 10)
    assert kept(cut_with(model, budgets.uniform(model, 5))) == [160, 240, 60]


def test_erdos_renyi_kernel_gives_densities_in_proportion_to_the_sum_over_the_product_of_the_dimensions():
    model = keras.Sequential([keras.Input((12, 12, 3)), layers.Conv2D(16, 5), layers.Conv2D(32, 3), layers.Flatten()])
    model.add(layers.Dense(10))
    pruned = cut_with(model, budgets.erdos_renyi_kernel(model, 20))
    found = np.array([row.density for row in kp.report(pruned).rows])
    factors = [(5 + 5 + 3 + 16) / (5 * 5 * 3 * 16), (3 + 3 + 16 + 32) / (3 * 3 * 16 * 32), (1152 + 10) / (1152 * 10)]
    np.testing.assert_allclose(found / found[0], np.array(factors) / factors[0], rtol=0.03)


def test_erdos_renyi_kernel_leaves_a_layer_dense_that_would_be_given_more_than_it_has():
    model = dense_chain(100, 100, 2)
    criteria = budgets.erdos_renyi_kernel(model, 4)
    assert list(criteria) == [model.layers[0].name]
    assert kept(cut_with(model, criteria)) == [2550 - 200, 200]


def test_global_magnitude_keeps_the_largest_connections_of_the_whole_model():
    model = dense_chain(20, 30, 7, 5)
    total = 20 * 30 + 30 * 7 + 7 * 5
    before = magnitudes(model)
    cut_with(model, budgets.global_magnitude(model, 6))
    threshold = np.sort(np.concatenate(before))[-round(total / 6)]
    for weight, values in zip(pruned_weights(model), before, strict=True):
        mask = ops.convert_to_numpy(weight.mask).ravel()
        np.testing.assert_array_equal(mask, values >= threshold)


def test_global_magnitude_ranks_survivors_alone_where_masks_exist():
    pruned = cut_with(dense_chain(20, 30, 7), kp.TargetSparsity(0.5))
    refill(pruned, 100.0)  # A large value where a connection is cut, which no ranking may see.
    survivors = [
        np.abs(ops.convert_to_numpy(weight.variable)[ops.convert_to_numpy(weight.mask)])
        for weight in pruned_weights(pruned)
    ]
    threshold = np.sort(np.concatenate(survivors))[-round(810 / 4)]
    cut_with(pruned, budgets.global_magnitude(pruned, 4))
    assert kept(pruned) == [np.sum(values >= threshold) for values in survivors]


@settings(max_examples=25, deadline=None)
@given(
    units=st.sampled_from([(11, 6), (7, 5, 9)]),  # Few shapes, because JAX compiles anew for each.
    seed=st.integers(0, 1000),
    qualities=st.lists(st.floats(0.2, 3), min_size=4, max_size=4),
    data=st.data(),
)
def test_a_cut_at_the_found_quality_reaches_the_compression_exactly_again_and_again(units, seed, qualities, data):
    model = dense_chain(*units, seed=seed)
    names = [layer.name for layer in model.layers]
    pruned = kp.prune(model, {name: kp.StdThreshold(q) for name, q in zip(names, qualities, strict=False)})
    total = left = sum(kept(pruned))
    for _ in range(2):
        if left == len(names):
            break
        left = data.draw(st.integers(len(names), left - 1))
        quality = kp.quality_for(pruned, total / left)
        # Nothing is cut, and the layers' own qualities stay.
        assert [weight.criterion.quality for weight in pruned_weights(pruned)] == qualities[: len(names)]
        cut_at_common_quality(pruned, quality)
        assert sum(kept(pruned)) == left


def test_layers_keep_the_proportion_of_their_own_qualities():
    model = dense_chain(40, 50, 30)
    first, second = model.layers
    kp.prune(model, {first.name: kp.StdThreshold(2.0), second.name: kp.StdThreshold(1.0)})
    quality = kp.quality_for(model, 3)
    spreads = [np.std(ops.convert_to_numpy(layer.kernel)) for layer in (first, second)]
    expected = [
        np.sum(values >= own * quality * spread)
        for values, own, spread in zip(magnitudes(model), (2.0, 1.0), spreads, strict=True)
    ]
    cut_at_common_quality(model, quality)
    assert kept(model) == expected


def test_the_quality_is_the_smallest_that_does_it():
    quality = kp.quality_for(dense_chain(40, 50, 30), 3)
    assert sum(kept(cut_with(dense_chain(40, 50, 30), kp.StdThreshold(quality)))) == round(3500 / 3)
    below = kp.StdThreshold(quality * (1 - 1e-6))
    assert sum(kept(cut_with(dense_chain(40, 50, 30), below))) == round(3500 / 3) + 1


def test_zeros_of_a_plain_model_count_as_pruned():
    model = kp.strip(cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9)))
    quality = kp.quality_for(model, 20)
    assert quality > 0.1  # Zeros that were cut a second time would take no quality at all.
    assert kept(cut_with(model, kp.StdThreshold(quality))) == [30]


@pytest.mark.parametrize("budget", ALL)
def test_budget_of_a_stripped_model_is_that_of_the_pruned(budget):
    model = cut_with(dense_chain(20, 30, 10), kp.TargetSparsity(0.8))
    expected = budget(model, 7)
    assert budget(kp.strip(model), 7) == expected


def test_a_compression_that_is_reached_already_takes_a_quality_that_cuts_nothing():
    pruned = kp.prune(cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9)), kp.StdThreshold())
    cut_at_common_quality(pruned, kp.quality_for(pruned, 10))
    assert kept(pruned) == [60]


def test_of_a_pruned_model_the_weights_with_masks_count():
    model = dense_chain(20, 30, 10)
    kp.prune(model, {model.layers[0].name: kp.StdThreshold()})
    for budget in ALL:
        assert list(budget(model, 4)) == [model.layers[0].name]
    cut_at_common_quality(model, kp.quality_for(model, 4))
    assert kept(model) == [150, 300]


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
def test_frozen_layers_do_not_count(budget):
    model = dense_chain(20, 30, 10)
    model.layers[1].trainable = False
    found = budget(model, 4)
    criteria = kp.StdThreshold(found) if budget is kp.quality_for else found
    assert kept(cut_with(model, criteria)) == [150, 300]


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
def test_what_a_frozen_pruned_layer_has_left_counts_and_stays(budget):
    pruned = kp.prune(dense_chain(20, 20, 20))
    pruned.layers[0].trainable = False
    with pytest.raises(ValueError, match=r"a frozen layer all that it has.*compressed 2.0x at most"):
        budget(pruned, 4)
    found = budget(pruned, 1.6)
    if budget is kp.quality_for:
        cut_with(pruned, kp.StdThreshold(found))
        assert kept(pruned) == [400, 800 / 1.6 - 400]
    else:
        assert list(found) == [pruned.layers[1].name]
        assert found[pruned.layers[1].name].sparsity == 0.75


@pytest.mark.parametrize("budget", ALL)
def test_weights_of_one_layer_share_a_density(budget):
    def branch():
        return keras.Sequential([keras.Input((5, 8)), layers.LSTM(6, name="recurrent"), layers.Dense(4, name="head")])

    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, layers.Add()([branch()(inputs), branch()(inputs)]))
    cut_with(model, budget(model, 4))
    total = 2 * (8 * 24 + 6 * 24 + 6 * 4)
    assert sum(kept(model)) == pytest.approx(total / 4, abs=3)
    weights = pruned_weights(model)
    for kernel, recurrent in zip(weights[0::3], weights[1::3], strict=True):
        assert kernel.layer is recurrent.layer
        assert kernel.density == pytest.approx(recurrent.density, abs=1 / 100)


@pytest.mark.parametrize("budget", ALL)
def test_layers_of_one_name_have_their_own_budgets(budget):
    def branch(scale):
        kernel = keras.initializers.RandomNormal(stddev=scale, seed=1)
        return keras.Sequential([keras.Input((8,)), layers.Dense(6, kernel_initializer=kernel, name="head")])

    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Add()([branch(1.0)(inputs), branch(3.0)(inputs)]))
    criteria = budget(model, 4)
    assert len(criteria) == 2
    cut_with(model, criteria)
    assert sum(kept(model)) == 96 / 4
    assert (kept(model)[0] == kept(model)[1]) == (budget is not budgets.global_magnitude)


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
@pytest.mark.parametrize("compression", [1, 0.5, -2, float("nan")])
def test_a_compression_that_compresses_nothing_is_refused(budget, compression):
    with pytest.raises(ValueError, match=r"must be above 1; 12 keeps a twelfth. Received: compression="):
        budget(dense_chain(3, 4), compression)


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
@pytest.mark.parametrize("compression", [400, float("inf")])
def test_a_compression_that_would_empty_a_weight_is_refused(budget, compression):
    with pytest.raises(ValueError, match=r"500 connections in 2 weights can be compressed 250.0x at most"):
        budget(dense_chain(20, 20, 5), compression)


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
def test_a_model_without_connections_is_refused(budget):
    with pytest.raises(ValueError, match="A budget needs a model with trainable weights"):
        budget(keras.Sequential([keras.Input((3,)), layers.ReLU()]), 2)


def test_a_compression_that_is_exceeded_already_is_refused():
    pruned = kp.prune(cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9)), kp.StdThreshold())
    with pytest.raises(ValueError, match=r"fewer connections already than the 120 .* Received: compression=5"):
        kp.quality_for(pruned, 5)


def test_weights_without_a_spread_cannot_be_brought_to_a_compression():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(30, kernel_initializer="ones")])
    with pytest.raises(ValueError, match=r"600 connections stay at any quality, and 300 were to stay"):
        kp.quality_for(model, 2)


def test_a_layer_with_another_criterion_has_no_quality():
    with pytest.raises(ValueError, match=r"pruned by StdThreshold.*criterion=TargetSparsity\(sparsity=0.9\)"):
        kp.quality_for(kp.prune(dense_chain(20, 30), kp.TargetSparsity(0.9)), 2)
