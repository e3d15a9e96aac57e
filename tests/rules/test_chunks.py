"""Cutting a large weight in chunks of rows gives the same masks as cutting it whole."""

import keras
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import keras_prune as kp
from keras_prune.rules import chunks
from keras_prune.rules.chunks import on_host, rows_of
from keras_prune.rules.shards import count

RANDOM = np.random.default_rng(0)
WEIGHT = RANDOM.normal(3.0, 0.5, size=(37, 5)).astype("float32")
MASK = RANDOM.random(WEIGHT.shape) < 0.7


@given(
    shape=st.lists(st.integers(1, 40), min_size=1, max_size=4), multiple=st.integers(1, 6), entries=st.integers(1, 99)
)
def test_rows_of_covers_every_row_once_in_multiples(shape, multiple, entries):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(chunks, "_ENTRIES", entries)
        slices = list(rows_of(tuple(shape), multiple))
    assert [row for rows in slices for row in range(rows.start, rows.stop)] == list(range(shape[0]))
    assert all((rows.stop - rows.start) % multiple == 0 for rows in slices[:-1])


@pytest.mark.parametrize("pattern", [None, kp.Blocks((4, 1)), kp.Blocks((3, 2), reduction="max"), kp.NOfM(2, 4)])
def test_criterion_cuts_chunks_like_the_whole(pattern, monkeypatch):
    criterion = kp.StdThreshold(6.0, pattern=pattern)
    whole = criterion(WEIGHT, MASK)
    monkeypatch.setattr(chunks, "_ENTRIES", 16)
    assert len(list(rows_of(WEIGHT.shape))) > 10
    cut = criterion(WEIGHT, MASK)
    assert 0 < count(cut.mask) < count(MASK)
    np.testing.assert_array_equal(cut.mask, whole.mask)
    assert cut.threshold == pytest.approx(whole.threshold, rel=1e-6)


def test_on_host_reads_variables():
    layer = kp.Prune(keras.layers.Dense(3, kernel_initializer="ones"))
    layer.build((None, 4))
    (weight,) = kp.layers.pruned_weights(layer)
    np.testing.assert_array_equal(on_host(weight.variable.value), np.ones((4, 3), "float32"))
    assert on_host(weight.mask.value).dtype == bool
    assert count(weight.mask.value) == 12
