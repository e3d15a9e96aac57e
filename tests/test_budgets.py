"""A budget's total is exact, leaves no weight empty, and is the one that its name promises."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_prune as kp
from keras_prune import budgets
from keras_prune.graph import pruned_layers

ALL = [budgets.uniform, budgets.erdos_renyi_kernel, budgets.global_magnitude]


def dense_chain(*units, seed=0, scale=1.0):
    """A model whose kernels are normally distributed, each layer's with a spread of its own."""
    random = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((units[0],)), *(layers.Dense(n, use_bias=False) for n in units[1:])])
    for index, layer in enumerate(model.layers):
        layer.kernel.assign(random.normal(scale=scale * (1 + index), size=layer.kernel.shape).astype("float32"))
    return model


def cut_with(model, criteria):
    pruned = kp.prune(model, criteria)
    for layer in pruned_layers(pruned):
        layer.cut()
    return pruned


def kept(model):
    """The connections that are left, layer by layer, wrapped or not."""
    return [row.kept for row in kp.report(model).rows]


def magnitudes(model):
    return [np.abs(ops.convert_to_numpy(layer.kernel)).ravel() for layer in model.layers]


def cut_at_common_quality(pruned, quality):
    """Cuts as `iterative_prune` does: every layer at its own quality times the common one."""
    for layer in pruned_layers(pruned):
        own = layer.criterion
        layer.criterion = kp.StdThreshold(own.quality * quality)
        layer.cut()
        layer.criterion = own


@pytest.mark.parametrize("budget", ALL)
@pytest.mark.parametrize("compression", [1.01, 2, 3.7, 12, 23])
def test_the_total_is_exact(budget, compression):
    model = dense_chain(20, 30, 7, 1, 3)
    total = 20 * 30 + 30 * 7 + 7 + 3
    pruned = cut_with(model, budget(model, compression))
    assert sum(kept(pruned)) == round(total / compression)


@pytest.mark.parametrize("budget", ALL)
def test_the_total_is_exact_and_no_weight_empty_beside_many_tiny_layers(budget):
    model = dense_chain(50, 20, 1, 1, 1, 1, 1, 1, 2)
    total = 50 * 20 + 20 + 5 + 2
    for compression in (5, 50, total / 8):
        pruned = cut_with(model, budget(model, compression))
        assert sum(kept(pruned)) == round(total / compression)
        assert min(kept(pruned)) >= 1


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
    pruned = cut_with(model, budgets.global_magnitude(model, 6))
    threshold = np.sort(np.concatenate(magnitudes(model)))[-round(total / 6)]
    for layer, values in zip(pruned_layers(pruned), magnitudes(model), strict=True):
        mask = ops.convert_to_numpy(layer.pruned_weights[0].mask.value).ravel()
        np.testing.assert_array_equal(mask, values >= threshold)


def test_global_magnitude_ranks_survivors_alone_where_masks_exist():
    pruned = cut_with(dense_chain(20, 30, 7), kp.TargetSparsity(0.5))
    # What is cut comes back with a large stored value, which no ranking may see.
    first = pruned_layers(pruned)[0]
    mask = ops.convert_to_numpy(first.pruned_weights[0].mask.value)
    first.layer.kernel.assign(ops.where(mask, first.layer.kernel.value, 100.0))
    criteria = budgets.global_magnitude(pruned, 4)
    weights = [weight for layer in pruned_layers(pruned) for weight in layer.pruned_weights]
    survivors = np.concatenate(
        [ops.convert_to_numpy(weight.variable.value)[ops.convert_to_numpy(weight.mask.value)] for weight in weights]
    )
    threshold = np.sort(np.abs(survivors))[-round(810 / 4)]
    expected = int(np.sum(np.abs(ops.convert_to_numpy(first.layer.kernel)[mask]) >= threshold))
    first.criterion = criteria[first.name]
    first.cut()
    assert first.connections[0] == expected


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
        assert [layer.criterion.quality for layer in pruned_layers(pruned)] == qualities[: len(names)]
        cut_at_common_quality(pruned, quality)
        assert sum(kept(pruned)) == left


def test_layers_keep_the_proportion_of_their_own_qualities():
    model = dense_chain(40, 50, 30)
    first, second = model.layers
    pruned = kp.prune(model, {first.name: kp.StdThreshold(2.0), second.name: kp.StdThreshold(1.0)})
    quality = kp.quality_for(pruned, 3)
    spreads = [np.std(ops.convert_to_numpy(layer.kernel)) for layer in (first, second)]
    expected = [
        np.sum(values >= own * quality * spread)
        for values, own, spread in zip(magnitudes(model), (2.0, 1.0), spreads, strict=True)
    ]
    cut_at_common_quality(pruned, quality)
    assert kept(pruned) == expected


def test_the_quality_is_the_smallest_that_does_it():
    model = dense_chain(40, 50, 30)
    quality = kp.quality_for(model, 3)
    assert sum(kept(cut_with(model, kp.StdThreshold(quality)))) == round(3500 / 3)
    assert sum(kept(cut_with(model, kp.StdThreshold(quality * (1 - 1e-6))))) == round(3500 / 3) + 1


def test_where_cutting_the_zeros_alone_does_it_the_cut_does_it():
    stripped = kp.strip(cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9)))
    quality = kp.quality_for(stripped, 5)
    assert kept(cut_with(stripped, kp.StdThreshold(quality))) == [60]


def test_a_compression_that_is_reached_already_takes_a_quality_that_cuts_nothing():
    pruned = cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9))
    pruned.layers[0].criterion = kp.StdThreshold()
    cut_at_common_quality(pruned, kp.quality_for(pruned, 10))
    assert kept(pruned) == [60]


def test_of_a_wrapped_model_the_wrapped_layers_count():
    model = dense_chain(20, 30, 10)
    pruned = kp.prune(model, {model.layers[0].name: kp.StdThreshold()})
    cut_at_common_quality(pruned, kp.quality_for(pruned, 4))
    assert kept(pruned) == [150, 300]
    for budget in ALL:
        assert list(budget(pruned, 4)) == [model.layers[0].name]


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
def test_frozen_layers_do_not_count(budget):
    model = dense_chain(20, 30, 10)
    model.layers[1].trainable = False
    found = budget(model, 4)
    criteria = kp.StdThreshold(found) if budget is kp.quality_for else found
    assert kept(cut_with(model, criteria)) == [150, 300]


@pytest.mark.parametrize("budget", [*ALL, kp.quality_for])
def test_what_a_frozen_wrapped_layer_has_left_is_counted_and_not_cut(budget):
    pruned = kp.prune(dense_chain(20, 20, 20))
    pruned.layers[0].trainable = False
    with pytest.raises(ValueError, match=r"a frozen layer all that it has.*compressed 2.0x at most"):
        budget(pruned, 4)
    found = budget(pruned, 1.6)
    if budget is kp.quality_for:
        frozen, cut = pruned.layers
        assert frozen.density == 1
        cut.criterion = kp.StdThreshold(found)
        cut.cut()
        assert cut.connections[0] == 800 / 1.6 - 400
    else:
        assert list(found) == [pruned.layers[1].name]
        assert found[pruned.layers[1].name].sparsity == 0.75


@pytest.mark.parametrize("budget", ALL)
def test_weights_of_one_layer_and_layers_of_one_name_share_a_density(budget):
    def branch():
        return keras.Sequential([keras.Input((5, 8)), layers.LSTM(6, name="recurrent"), layers.Dense(4, name="head")])

    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, layers.Add()([branch()(inputs), branch()(inputs)]))
    pruned = cut_with(model, budget(model, 4))
    total = 2 * (8 * 24 + 6 * 24 + 6 * 4)
    assert sum(kept(pruned)) == pytest.approx(total / 4, abs=6)
    first, first_head, second, second_head = kept(pruned)
    assert (first, first_head) == (second, second_head)


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
    pruned = cut_with(dense_chain(20, 30), kp.TargetSparsity(0.9))
    pruned.layers[0].criterion = kp.StdThreshold()
    with pytest.raises(ValueError, match=r"fewer connections already than the 120 .* Received: compression=5"):
        kp.quality_for(pruned, 5)


def test_weights_without_a_spread_cannot_be_brought_to_a_compression():
    model = keras.Sequential([keras.Input((20,)), layers.Dense(30, kernel_initializer="ones")])
    with pytest.raises(ValueError, match=r"600 connections stay at any quality, and 300 were to stay"):
        kp.quality_for(model, 2)


def test_a_layer_with_another_criterion_has_no_quality():
    with pytest.raises(ValueError, match=r"pruned by StdThreshold.*criterion=TargetSparsity\(sparsity=0.9\)"):
        kp.quality_for(kp.prune(dense_chain(20, 30), kp.TargetSparsity(0.9)), 2)
