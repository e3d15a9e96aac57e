"""Budgets of whole models in `prune`, and their shares."""

import keras
import numpy as np
import pytest
from helpers import array, kept
from keras import layers

import keras_prune as kp
from keras_prune.budgets import CommonQuality, ErdosRenyiKernel, GlobalMagnitude, Uniform, shares
from keras_prune.layers import pruned_weights

ALL = [CommonQuality, GlobalMagnitude, Uniform, ErdosRenyiKernel]


def dense_chain(*units, seed=0):
    """A model whose kernels are normally distributed, each with its own spread."""
    random = np.random.default_rng(seed)
    model = keras.Sequential([keras.Input((units[0],)), *(layers.Dense(n, use_bias=False) for n in units[1:])])
    for index, layer in enumerate(model.layers):
        layer.kernel.assign(random.normal(scale=1 + index, size=layer.kernel.shape).astype("float32"))
    return model


@pytest.mark.parametrize("budget", ALL)
def test_shares_are_those_of_the_cut_and_go_into_prune(budget):
    model, other = dense_chain(20, 30, 10), dense_chain(20, 30, 10)
    table = shares(model, budget(6))
    kp.cut(kp.prune(model, budget(6)))
    assert sum(kept(model)) == 150
    names = [layer.name for layer in other.layers]
    kp.cut(kp.prune(other, dict(zip(names, table.values(), strict=True))))
    assert kept(other) == kept(model)


def test_float_is_the_sparsity_of_the_model():
    model = kp.prune(dense_chain(20, 30, 10), 0.9)
    assert {weight.criterion for weight in pruned_weights(model)} == {GlobalMagnitude(10)}
    kp.cut(model)
    assert kp.report(model).sparsity == 0.9


def test_budget_is_recomputed_at_each_cut():
    model = kp.prune(dense_chain(20, 30, 10), GlobalMagnitude(3))
    kp.cut(model, 0.5)
    second = pruned_weights(model)[1]
    second.variable.assign(array(second.variable) / 1000)  # As training might.
    kp.cut(model)
    assert kept(model) == [300 - 1, 1]


def test_budget_of_a_mapping_is_shared_by_the_layers_that_match():
    model = dense_chain(20, 30, 10, 5)
    first, second = (layer.name for layer in model.layers[:2])
    kp.prune(model, {first: 0.5, second: None, ".*": CommonQuality(10)})
    assert [str(weight.criterion) for weight in pruned_weights(model)] == [
        "TargetSparsity(sparsity=0.5)",
        "CommonQuality(compression=10.0)",
    ]
    kp.cut(model)
    assert kept(model) == [300, 5]


def test_loaded_weights_share_their_budget_again(tmp_path):
    model = dense_chain(20, 30, 10, 8, 8)
    a, b, c, d = (layer.name for layer in model.layers)
    kp.prune(model, {f"{a}|{b}": GlobalMagnitude(4), f"{c}|{d}": GlobalMagnitude(4)})
    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    kp.cut(model)
    kp.cut(loaded)
    assert kept(loaded) == kept(model)
    assert [sum(kept(model)[:2]), sum(kept(model)[2:])] == [225, 36]


def test_budget_leaves_frozen_layers_alone_and_counts_them():
    model = kp.prune(dense_chain(20, 20, 20), Uniform(1.6))
    model.layers[0].trainable = False
    kp.cut(model)
    assert kept(model) == [400, 100]


def test_shares_of_a_stripped_model_are_those_of_the_pruned():
    model = kp.prune(dense_chain(20, 30, 10), 0.8)
    kp.cut(model)
    expected = shares(model, CommonQuality(7))
    assert shares(kp.strip(model), CommonQuality(7)) == expected


def test_shares_name_the_weights_of_layers_that_have_several():
    model = keras.Sequential([keras.Input((5, 8)), layers.LSTM(6, name="lstm"), layers.Dense(4, name="head")])
    assert list(shares(model, Uniform(4))) == ["lstm/lstm_cell/kernel", "lstm/lstm_cell/recurrent_kernel", "head"]
    kp.cut(kp.prune(model, shares(model, Uniform(4))))
    assert sum(kept(model)) == (8 * 24 + 6 * 24 + 6 * 4) / 4


def test_shares_fit_layers_whose_name_is_the_end_of_a_path():
    inner = keras.Sequential([keras.Input((8,)), layers.Dense(6, name="fc")], name="block")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="fc"), inner])
    table = shares(model, GlobalMagnitude(4))
    assert list(table) == ["fc", "block/fc"]
    kp.prune(model, table)
    assert [weight.criterion for weight in pruned_weights(model)] == list(table.values())


def test_budget_reaches_layers_in_wrappers():
    wrapped = [kp.Prune(layers.Dense(units, use_bias=False), 0.25) for units in (30, 10)]
    model = keras.Sequential([keras.Input((20,)), *wrapped])
    kp.cut(kp.prune(model, 0.9))
    assert sum(kept(model)) == 90


def test_wrapper_with_a_budget_survives_its_config():
    layer = kp.Prune(layers.Dense(30, use_bias=False), CommonQuality(4))
    copy = kp.Prune.from_config(layer.get_config())
    copy.build((None, 20))
    kp.cut(copy)
    assert kept(copy) == [150]


def test_layers_share_the_equal_budgets_of_a_callable():
    model, other = dense_chain(20, 30, 10), dense_chain(20, 30, 10)
    kp.cut(kp.prune(model, lambda layer: GlobalMagnitude(10)))
    kp.cut(kp.prune(other, GlobalMagnitude(10)))
    assert kept(model) == kept(other)


def test_shares_of_a_strength_are_those_of_the_cut():
    model, other = dense_chain(20, 32, 12), dense_chain(20, 32, 12)
    budget = CommonQuality(5, kp.NOfM(2, 4))
    table = shares(model, budget, 0.25)
    kp.cut(kp.prune(model, budget), 0.25)
    names = [layer.name for layer in other.layers]
    kp.cut(kp.prune(other, dict(zip(names, table.values(), strict=True))))
    assert kept(other) == kept(model)


@pytest.mark.parametrize("budget", ALL)
def test_cut_skips_a_budget_whose_layers_are_frozen(budget):
    model = dense_chain(20, 30, 10)
    first, second = model.layers
    kp.prune(model, {first.name: budget(10), second.name: 0.5})
    first.trainable = False
    kp.cut(model)
    assert kept(model) == [600, 150]


@pytest.mark.parametrize("strength", [0, 1.5, -1, float("nan")])
def test_cut_rejects_strengths_out_of_range(strength):
    model = kp.prune(dense_chain(20, 30), 0.9)
    with pytest.raises(ValueError, match="Received: strength="):
        kp.cut(model, strength)
    assert kept(model) == [600]
