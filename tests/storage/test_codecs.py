import dataclasses
import json
import tempfile

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from keras_prune.storage.codecs import WeightStorage, decode_weight, encode_weight, measure

DTYPES = ["bool", "int8", "uint32", "int64", "float16", ml_dtypes.bfloat16, "float32", "float64"]


def round_trip(array, index_bits=None, value_dtype="float32"):
    row = measure("w", array, index_bits, value_dtype)
    data = b"".join(bytes(piece) for piece in encode_weight(row, array))
    assert len(data) == row.stored_bytes
    with tempfile.TemporaryFile() as file:
        file.write(b"before" + data + b"behind")
        file.seek(6)
        restored = decode_weight(WeightStorage.from_header(dataclasses.asdict(row)), file)
        assert file.read() == b"behind"
    return row, restored


def bits(array):
    return array.ravel().view(f"u{array.dtype.itemsize}")


@st.composite
def sparse_arrays(draw, dtypes):
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=12))
    size = int(np.prod(shape))
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    seed, density = draw(st.integers(0, 1000)), draw(st.sampled_from([0, 0.02, 0.1, 0.5, 1]))
    rng = np.random.default_rng(seed)
    # Any bit pattern: NaN of every kind, infinities, -0, subnormal numbers.
    pattern = rng.integers(0, 256, (size, dtype.itemsize), "uint8")
    pattern[rng.random(size) > density] = 0
    if dtype.kind == "b":
        pattern &= 1
    return pattern.ravel().view(dtype).reshape(shape)


@given(sparse_arrays(DTYPES), st.sampled_from([None, "smallest", *range(1, 17)]))
@settings(max_examples=300)
def test_decode_weight_restores_any_array_bit_for_bit(array, index_bits):
    _, restored = round_trip(array, index_bits)
    assert restored.dtype == array.dtype
    assert restored.shape == array.shape
    np.testing.assert_array_equal(bits(restored), bits(array))


@given(sparse_arrays(["float32", "int8"]))
def test_measure_smallest_takes_least_of_all_widths(array):
    smallest = measure("w", array, "smallest", "float32").stored_bytes
    assert smallest <= min(measure("w", array, width, "float32").stored_bytes for width in range(1, 17))
    assert smallest <= array.nbytes


def test_measure_counts_negative_zero_and_subnormals():
    array = np.zeros((10, 10), "float32")
    array[3, 4], array[5, 6] = -0.0, 1e-45
    row, restored = round_trip(array)
    assert (row.entries, row.encoding, row.settings["index_bits"]) == (2, "relative_index", 5)
    np.testing.assert_array_equal(bits(restored), bits(array))


def test_measure_takes_8_bits_for_convolutions_5_otherwise():
    rng = np.random.default_rng(0)
    for shape, index_bits in [((100, 50), 5), ((3, 3, 16, 32), 8), ((1000,), 5)]:
        array = np.where(rng.random(shape) < 0.1, 1, 0).astype("float32")
        assert measure("w", array, None, "float32").settings["index_bits"] == index_bits


def test_measure_chooses_dense_if_indices_take_more():
    array = np.ones((20, 20), "float32")
    row, _ = round_trip(array, "smallest")
    assert (row.encoding, row.settings, row.index_bytes, row.stored_bytes) == ("dense", {}, 0, array.nbytes)
    assert row.entries == 400


def test_encode_weight_takes_any_memory_layout():
    array = np.zeros((30, 20), "float32")
    array[::7, ::3] = np.arange(35).reshape(5, 7)
    for view in (array.T, array[::2], np.asfortranarray(array)):
        view.flags.writeable = False
        np.testing.assert_array_equal(round_trip(view)[1], view)


def test_float16_only_rounds_float32_matrices():
    rng = np.random.default_rng(0)
    kernel = np.where(rng.random((50, 40)) < 0.2, rng.standard_normal((50, 40)), 0).astype("float32")
    row, restored = round_trip(kernel, value_dtype="float16")
    np.testing.assert_array_equal(restored, kernel.astype("float16").astype("float32"))
    assert (row.dtype, row.stored_dtype, row.value_bytes) == ("float32", "float16", 2 * np.count_nonzero(kernel))
    variance = np.array([1e-12, 1e12], "float32")
    np.testing.assert_array_equal(round_trip(variance, value_dtype="float16")[1], variance)
    np.testing.assert_array_equal(round_trip(kernel.astype("float64"), value_dtype="float16")[1], kernel)


def test_float16_rejects_values_that_would_overflow():
    array = np.array([[np.inf, np.nan, 65504.0]], "float32")
    np.testing.assert_array_equal(round_trip(array, value_dtype="float16")[1], array)
    with pytest.raises(ValueError, match=r"must not exceed 65504.*'w' with values up to 7e\+04"):
        measure("w", np.array([[7e4]], "float32"), None, "float16")


@pytest.mark.parametrize("array", [np.array(["a"]), np.ones(2, "complex64"), np.ones(2, ml_dtypes.float8_e4m3fn)])
def test_measure_rejects_other_dtypes(array):
    with pytest.raises(ValueError, match=rf"'w' of dtype {array.dtype}"):
        measure("w", array, None, "float32")


def test_to_dict_gives_json_values():
    row = measure("w", np.eye(20, dtype="float32"), None, "float32")
    as_dict = json.loads(json.dumps(row.to_dict()))
    assert as_dict["shape"] == [20, 20]
    assert as_dict["dense_bytes"] == 1600
    assert as_dict["value_bytes"] + as_dict["index_bytes"] == as_dict["stored_bytes"] == row.stored_bytes


SOUND = dataclasses.asdict(
    WeightStorage("w", (10, 31), "float32", "float32", 3, "relative_index", {"index_bits": 5, "indices": 10})
)


@pytest.mark.parametrize(
    "lie",
    [
        {"shape": [1_000_000, 1_000_000]},
        {"shape": [10, 32]},
        {"shape": [-1, -1]},
        {"shape": [1.5]},
        {"shape": 5},
        {"shape": "31"},
        {"shape": None},
        {"settings": {"index_bits": 17, "indices": 10}},
        {"settings": {"index_bits": -5, "indices": 10}},
        {"settings": {"index_bits": 0, "indices": 10}},
        {"settings": {"index_bits": True, "indices": 310}},
        {"settings": {"index_bits": None, "indices": 10}},
        {"settings": {"index_bits": 5, "indices": -1}},
        {"settings": {"index_bits": 5, "indices": 9}},
        {"settings": {"index_bits": 5, "indices": 10.0}},
        {"settings": {"index_bits": 5, "indices": 10, "more": 1}},
        {"settings": {"index_bits": 5}},
        {"settings": {}},
        {"settings": None},
        {"encoding": "dense"},
        {"encoding": "entropy"},
        {"encoding": ["dense"]},
        {"entries": 311},
        {"entries": -1},
        {"dtype": "object"},
        {"dtype": ["float32"]},
        {"stored_dtype": "float64"},
        {"stored_dtype": "O"},
    ],
)
def test_from_header_rejects_contradictions(lie):
    assert WeightStorage.from_header(SOUND).size == 310
    with pytest.raises((ValueError, TypeError)):
        WeightStorage.from_header(SOUND | lie)


def test_decode_weight_rejects_another_number_of_indices():
    array = np.zeros((10, 31), "float32")
    array[2, 3] = array[4, 5] = 1
    row = measure("w", array, 5, "float32")
    data = b"".join(bytes(piece) for piece in encode_weight(row, array))
    for entries in (1, 3):
        with tempfile.TemporaryFile() as file:
            file.write(data + bytes(8))
            file.seek(0)
            with pytest.raises(ValueError, match="one index for each entry"):
                decode_weight(dataclasses.replace(row, entries=entries), file)
