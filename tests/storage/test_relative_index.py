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
def test_decoding_gives_back_the_positions_of_any_mask_at_any_width(array, width):
    entries, counts = count_indices(array, [width])
    data = packed(array, width)
    assert entries == np.count_nonzero(array)
    assert len(data) == -(-counts[width] * width // 8)
    np.testing.assert_array_equal(positions(data, width, counts[width], len(array)), np.flatnonzero(array))


@given(masks, st.sampled_from(WIDTHS), st.integers(1, 4))
@settings(max_examples=60)
def test_the_encoding_does_not_depend_on_the_pieces_it_is_made_in(array, width, eights):
    whole, counts = packed(array, width), count_indices(array)[1]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(relative_index, "_PIECE", 8 * eights)
        np.testing.assert_array_equal(packed(array, width), whole)
        assert count_indices(array)[1] == counts
        np.testing.assert_array_equal(positions(whole, width, counts[width], len(array)), np.flatnonzero(array))


@given(masks, st.sampled_from(WIDTHS))
def test_the_indices_span_the_whole_array_so_that_its_size_is_bounded_by_them(array, width):
    assert len(array) <= count_indices(array, [width])[1][width] * (2**width - 1)


@pytest.mark.parametrize("array", [[], [0], [1], [0] * 100, [1] * 100, [0] * 99 + [1], [1] + [0] * 99])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_edges_of_an_array_survive(array, width):
    array = np.array(array, "uint8")
    count = count_indices(array)[1][width]
    np.testing.assert_array_equal(
        positions(packed(array, width), width, count, len(array)), np.flatnonzero(array), strict=True
    )


def test_one_bit_an_index_is_a_bitmap():
    array = np.array([1, 0, 0, 1, 1, 0, 1, 0])
    assert packed(array, 1).tolist() == [0b01100101]


def test_a_gap_of_the_largest_index_takes_exactly_one_filler():
    for gap, fillers in [(30, 0), (31, 1), (32, 1), (61, 1), (62, 2)]:
        array = np.zeros(gap + 1, "uint32")
        array[gap] = 1
        assert count_indices(array, [5])[1][5] == 1 + fillers, gap


def test_a_five_bit_filler_costs_five_bits():
    array = np.random.default_rng(0).random(235_200) < 0.08
    entries, counts = count_indices(array, [5])
    assert 5 * counts[5] / (32 * entries) == pytest.approx(5 / 32 * (1 + 0.92**31 / (1 - 0.92**31)), rel=0.01)


@given(st.binary(max_size=40), st.sampled_from(WIDTHS), st.integers(0, 400), st.data())
def test_arbitrary_bits_give_an_array_of_the_right_size_or_a_value_error(data, width, size, draw):
    count = draw.draw(st.integers(0, len(data) * 8 // width))
    data = np.frombuffer(data, "uint8")[: -(-count * width // 8)]
    try:
        found = positions(data, width, count, size)
    except ValueError:
        return
    assert len(found) <= count
    assert np.all(np.diff(found) > 0)
    assert np.all((found >= 0) & (found < size))


def test_indices_that_end_too_early_or_too_late_are_refused():
    array = np.array([0, 0, 1, 0, 0, 1], "uint8")
    data = packed(array, 4)
    for size in (5, 7):
        with pytest.raises(ValueError, match="must span"):
            positions(data, 4, 2, size)
