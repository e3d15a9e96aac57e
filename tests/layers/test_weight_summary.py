"""Summaries hold the numbers for figures of a weight in a few kilobytes."""

import keras
import numpy as np
import pytest
from helpers import array
from keras import layers

import keras_prune as kp
from keras_prune.layers.weight_summary import BINS, MASK_DOTS, summarize
from keras_prune.layers.weights import prunable_weights


def dense(kernel, **arguments):
    kernel = np.asarray(kernel)
    model = keras.Sequential(
        [keras.Input(kernel.shape[:1]), layers.Dense(kernel.shape[1], use_bias=False, **arguments)]
    )
    model.set_weights([kernel])
    return model


def summary_of(model):
    return summarize(prunable_weights(model, stored=True)[0], "fc")


KERNEL = np.random.default_rng(0).normal(size=(60, 40)).astype("float32")


def test_summary_counts_the_survivors_in_bins():
    model = kp.prune(dense(KERNEL), 0.75)
    (cut,) = kp.cut(model)
    summary = summary_of(model)
    kept = KERNEL[array(cut.weight.mask)]
    assert (summary.name, summary.shape, summary.kept, summary.size) == ("fc", (60, 40), 600, 2400)
    assert summary.edges == pytest.approx((kept.min(), kept.max()))
    expected = np.histogram(kept, np.linspace(*summary.edges, BINS + 1))[0]
    assert summary.counts.sum() == 600
    assert np.abs(summary.counts - expected).sum() <= 4  # Values at the edge of a bin are rounded.
    assert summary.threshold == pytest.approx(float(array(cut.weight.threshold)))
    assert summary.smallest == pytest.approx(np.abs(kept).min())


def test_summary_of_a_stripped_model_has_no_threshold():
    model = kp.prune(dense(KERNEL), 0.75)
    kp.cut(model)
    pruned, plain = summary_of(model), summary_of(kp.strip(model))
    assert plain.threshold is None
    assert (plain.kept, plain.smallest, plain.edges) == (pruned.kept, pruned.smallest, pruned.edges)
    np.testing.assert_array_equal(plain.counts, pruned.counts)
    np.testing.assert_array_equal(plain.shares, pruned.shares)


@pytest.mark.parametrize("criterion", [kp.TargetSparsity(0.5, kp.Blocks((2, 1))), kp.RandomSparsity(0.5)])
def test_summary_has_no_threshold_if_no_magnitude_separates(criterion):
    model = kp.prune(dense(KERNEL), criterion)
    kp.cut(model)
    assert summary_of(model).threshold is None


@pytest.mark.parametrize("shape", [(60, 40), (1601, 7), (3, 650), (1999, 301)])
def test_summary_has_the_shares_of_the_mask(shape):
    kernel = np.where(np.random.default_rng(0).random(shape) < 0.2, 1.0, 0.0)
    shares = summary_of(dense(kernel)).shares
    columns, rows = (-(-size // dots) for size, dots in zip(shape, reversed(MASK_DOTS), strict=True))
    assert all(size <= dots for size, dots in zip(shares.shape, MASK_DOTS, strict=True))
    for row, column in [(0, 0), (shares.shape[0] - 1, shares.shape[1] - 1)]:
        part = kernel.T[row * rows : (row + 1) * rows, column * columns : (column + 1) * columns]
        assert shares[row, column] == np.rint(255 * part.mean())


def test_summary_ignores_values_that_are_not_finite():
    summary = summary_of(dense([[np.nan, np.inf, -2.0], [1.0, 0.0, -np.inf]]))
    assert summary.edges == (-2.0, 1.0)
    assert summary.counts.sum() == 2


@pytest.mark.parametrize(("value", "edges"), [(0.0, (-1, 1)), (0.5, (0, 0.5)), (-3.0, (-3, 0))])
def test_summary_of_one_value_has_a_range(value, edges):
    summary = summary_of(dense(np.full((4, 3), value)))
    assert summary.edges == edges
    assert summary.counts.sum() == summary.kept == 12 * (value != 0)


def test_bins_of_integers_hold_as_many_integers_each():
    model = dense(KERNEL)
    model.quantize("int8")
    summary = summary_of(model)
    kernel = array(prunable_weights(model, stored=True)[0].value)
    width = (summary.edges[1] - summary.edges[0]) / len(summary.counts)
    assert width == round(width)
    np.testing.assert_array_equal(
        summary.counts, np.histogram(kernel[kernel != 0], np.linspace(*summary.edges, len(summary.counts) + 1))[0]
    )


def test_summary_of_lora_has_the_sum():
    model = dense(KERNEL)
    model.layers[0].enable_lora(2)
    model.layers[0].lora_kernel_b.assign(np.full((2, 40), 5.0))
    summary = summary_of(model)
    merged = array(model.layers[0].kernel)
    assert summary.edges == pytest.approx((merged.min(), merged.max()))
