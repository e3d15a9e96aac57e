"""One weight in a sparse model file: how it is stored, what that takes, and the way there and back.

The bytes of a sparse weight are the relative indices of its entries (see `relative_index`) and then their values,
little-endian; those of a dense one the values alone. An entry is everything but +0, so that -0, NaN and the smallest
numbers come back bit for bit. Nothing here knows Keras.
"""

import math
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np

from keras_prune.storage.relative_index import WIDTHS, count_indices, decode, encode

_PIECE = 1 << 20
_DTYPES = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
_DTYPES += ["float16", "bfloat16", "float32", "float64"]


class WeightStorage(NamedTuple):
    """How one weight is stored, and what that takes.

    Attributes:
        name: The path of the Keras variable.
        shape: Tuple of integers.
        dtype: String, the dtype of the variable.
        stored_dtype: String, the dtype of the values in the file.
        index_bits: Integer from 1 to 16, or 0 for a weight that is stored dense because that takes less.
        entries: Integer, how many of the weight's values are not zero.
        indices: Integer, how many relative indices there are, fillers included.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored_dtype: str
    index_bits: int
    entries: int
    indices: int

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """What the dense array takes, in the variable's own dtype."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def value_bytes(self) -> int:
        return (self.entries if self.index_bits else self.size) * np.dtype(self.stored_dtype).itemsize

    @property
    def index_bytes(self) -> int:
        return -(-self.indices * self.index_bits // 8)

    @property
    def stored_bytes(self) -> int:
        return self.value_bytes + self.index_bytes

    @property
    def index_overhead(self) -> float:
        """Bytes of the indices over bytes of the values; 5 bits beside 32 are 0.156 and the fillers."""
        return self.index_bytes / self.value_bytes if self.value_bytes else 0.0

    @property
    def bound_bytes(self) -> float:
        """Bytes of the non-zero values plus the entropy of a random mask of the same density."""
        entropy = 0.0
        if 0 < self.entries < self.size:
            density = self.entries / self.size
            entropy = -density * math.log2(density) - (1 - density) * math.log2(1 - density)
        return self.entries * np.dtype(self.stored_dtype).itemsize + self.size * entropy / 8

    @classmethod
    def from_header(cls, header: dict) -> "WeightStorage":
        """Reads what `_asdict` gave, and refuses a weight that is larger than its bytes can stand for.

        Args:
            header: Dict from outside.

        Raises:
            ValueError: If an array of this shape could not come out of so many indices and values.
        """
        row = cls(**header)
        numbers = (*row.shape, row.index_bits, row.entries, row.indices)
        if not (
            all(type(number) is int and number >= 0 for number in numbers)
            and row.dtype in _DTYPES
            and (row.stored_dtype == row.dtype or (row.stored_dtype, row.dtype) == ("float16", "float32"))
            and row.entries <= row.size
            and (row.index_bits in WIDTHS or row.index_bits == row.indices == 0)
            and (row.index_bits == 0 or row.size <= row.indices * (2**row.index_bits - 1))
        ):
            raise ValueError(f"A stored weight must be no larger than its indices span. Received: {row}")
        return row._replace(shape=tuple(row.shape))


def measure(name: str, array: np.ndarray, index_bits: int | str | None, value_dtype: str) -> WeightStorage:
    """Decides how to store an array: with relative indices, or dense where that takes no more.

    Args:
        name: String, for messages.
        array: Array of any shape.
        index_bits: Integer from 1 to 16; or `"smallest"`, the width that takes least; or `None`, 5 up to two
            dimensions and 8 beyond.
        value_dtype: `"float32"`, or `"float16"` to round float32 arrays of two or more dimensions.

    Raises:
        ValueError: If the array is of no numeric dtype, or too large for float16.
    """
    dtype = str(array.dtype)
    if dtype not in _DTYPES:
        raise ValueError(f"A weight must be of dtype {', '.join(_DTYPES)}. Received: {name!r} of dtype {dtype}")
    stored_dtype = value_dtype if dtype == "float32" and array.ndim >= 2 else dtype
    widths = WIDTHS if index_bits == "smallest" else [index_bits or (5 if array.ndim <= 2 else 8)]
    entries, counts = count_indices(_bits(name, array, stored_dtype), widths)
    width = min(widths, key=lambda width: width * counts[width])
    sparse = WeightStorage(name, array.shape, dtype, stored_dtype, width, entries, counts[width])
    return min(sparse._replace(index_bits=0, indices=0), sparse, key=lambda row: row.stored_bytes)


def encode_weight(row: WeightStorage, array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the `row.stored_bytes` bytes of an array, in pieces."""
    bits = _bits(row.name, array, row.stored_dtype)
    bits = bits.astype(bits.dtype.newbyteorder("<"), copy=False)
    if row.index_bits == 0:
        yield bits
        return
    yield from encode(bits, row.index_bits)
    for start in range(0, row.size, _PIECE):
        piece = bits[start : start + _PIECE]
        yield piece[piece != 0]


def decode_weight(row: WeightStorage, file: BinaryIO) -> np.ndarray:
    """Reads the array back from a file that stands at the first of its bytes.

    Raises:
        ValueError: If the bytes contradict `row`.
    """
    unsigned = np.dtype(f"u{np.dtype(row.stored_dtype).itemsize}")
    packed = np.fromfile(file, "uint8", row.index_bytes)
    values = np.fromfile(file, unsigned.newbyteorder("<"), row.value_bytes // unsigned.itemsize)
    values = values.astype(unsigned, copy=False)
    if row.index_bits:
        entries, values, done = values, np.zeros(row.size, unsigned), 0
        for positions in decode(packed, row.index_bits, row.indices, row.size):
            start, done = done, done + len(positions)
            if done > row.entries:
                break
            values[positions] = entries[start:done]
        if done != row.entries:
            raise ValueError(f"A weight must have an index for every entry. Received: {done} for {row}")
    return values.view(row.stored_dtype).astype(row.dtype, copy=False).reshape(row.shape)


def _bits(name, array, stored_dtype) -> np.ndarray:
    """The values as unsigned integers of shape `(size,)`, of which only that of +0 is zero."""
    values = np.ravel(array)
    if str(values.dtype) != stored_dtype:
        with np.errstate(over="ignore"):
            rounded = values.astype(stored_dtype)
        if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
            raise ValueError(
                f"Values of {stored_dtype} must not exceed {np.finfo(stored_dtype).max} in magnitude. Keep "
                f"value_dtype='float32'. Received: {name!r} with values up to {np.max(np.abs(values)):.3g}"
            )
        values = rounded
    return values.view(f"u{values.itemsize}")
