import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_prune.storage import relative_index
from keras_prune.storage.relative_index import WIDTHS, count_indices, decode, encode

masks = st.one_of(
    st.lists(st.booleans(), max_size=300),
    # Long runs of zeros, so that indices overflow into fillers.
    st.lists(st.integers(0, 200), max_size=8).map(lambda gaps: [bit for gap in gaps for bit in [False] * gap + [True]]),
).map(lambda bits: np.array(bits, "uint32"))


def packed(array, width):
    return np.concatenate(list(encode(array, width)))


def positions(data, width, count, size):
    return np.concatenate([np.empty(0, int), *decode(data, width, count, size)])


@given(masks, st.sampled_from(WIDTHS))
def test_decode_restores_positions_at_any_width(array, width):
    counts = count_indices(array, [width])
    data = packed(array, width)
    assert len(data) == -(-counts[width] * width // 8)
    np.testing.assert_array_equal(positions(data, width, counts[width], len(array)), np.flatnonzero(array))


@given(masks, st.sampled_from(WIDTHS), st.integers(1, 4))
@settings(max_examples=60)
def test_encode_does_not_depend_on_the_size_of_pieces(array, width, eights):
    whole, counts = packed(array, width), count_indices(array)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative_index, "_PIECE", 8 * eights)
        np.testing.assert_array_equal(packed(array, width), whole)
        assert count_indices(array) == counts
        np.testing.assert_array_equal(positions(whole, width, counts[width], len(array)), np.flatnonzero(array))


@given(masks, st.sampled_from(WIDTHS))
def test_count_indices_bounds_the_size_of_the_array(array, width):
    assert len(array) <= count_indices(array, [width])[width] * (2**width - 1)


@pytest.mark.parametrize("array", [[], [0], [1], [0] * 100, [1] * 100, [0] * 99 + [1], [1] + [0] * 99])
@pytest.mark.parametrize("width", WIDTHS)
def test_decode_restores_the_edges_of_an_array(array, width):
    array = np.array(array, "uint8")
    count = count_indices(array)[width]
    np.testing.assert_array_equal(
        positions(packed(array, width), width, count, len(array)), np.flatnonzero(array), strict=True
    )


def test_encode_with_one_bit_gives_a_bitmap():
    array = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    assert packed(array, 1).tolist() == [0b01100101]


def test_count_indices_adds_one_filler_per_long_gap():
    for gap, fillers in [(30, 0), (31, 1), (32, 1), (61, 1), (62, 2)]:
        array = np.zeros(gap + 1, "uint32")
        array[gap] = 1
        assert count_indices(array, [5])[5] == 1 + fillers, gap


def test_count_indices_counts_fillers_of_five_bits():
    array = np.random.default_rng(0).random(235_200) < 0.08
    count = count_indices(array, [5])[5]
    assert 5 * count / (32 * np.count_nonzero(array)) == pytest.approx(
        5 / 32 * (1 + 0.92**31 / (1 - 0.92**31)), rel=0.01
    )


@given(st.binary(max_size=40), st.sampled_from(WIDTHS), st.integers(0, 400), st.data())
def test_decode_of_arbitrary_bits_is_valid_or_raises(data, width, size, draw):
    count = draw.draw(st.integers(0, len(data) * 8 // width))
    data = np.frombuffer(data, "uint8")[: -(-count * width // 8)]
    try:
        found = positions(data, width, count, size)
    except ValueError:
        return
    assert len(found) <= count
    assert np.all(np.diff(found) > 0)
    assert np.all((found >= 0) & (found < size))


def test_decode_rejects_indices_of_another_span():
    array = np.array([0, 0, 1, 0, 0, 1], "uint8")
    data = packed(array, 4)
    for size in (5, 7):
        with pytest.raises(ValueError, match="must span"):
            positions(data, 4, 2, size)
