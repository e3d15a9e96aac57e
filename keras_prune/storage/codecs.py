"""Encode one weight of a sparse model file.

Each codec of `CODECS` encodes the bits of a weight in its own way, and `measure` chooses the smallest encoding. All
values except +0 are entries, so that -0, NaN and subnormal numbers are restored bit for bit. Integers are
little-endian. This module does not depend on Keras layers.
"""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any, BinaryIO

import numpy as np

from keras_prune.storage import relative_index

_PIECE = 1 << 20
DTYPES = ["bool", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64))]
DTYPES += ["float16", "bfloat16", "float32", "float64"]


@dataclasses.dataclass(frozen=True)
class WeightStorage:
    """How one weight is encoded, and how many bytes it takes.

    Attributes:
        name: String, the path of the Keras variable.
        shape: Tuple of integers.
        dtype: String, the dtype of the variable.
        stored_dtype: String, the dtype of the values in the file.
        entries: Integer, the number of nonzero values.
        encoding: String, `"relative_index"`, or `"dense"` if that is smaller.
        settings: Dict, the settings with which the weight is decoded. `"relative_index"` has `index_bits` (1 to 16) and
            `indices` (their number, fillers included). `"dense"` has none.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    stored_dtype: str
    entries: int
    encoding: str = "dense"
    settings: dict[str, int] = dataclasses.field(default_factory=dict)

    @property
    def size(self) -> int:
        """Number of values, zeros included."""
        return math.prod(self.shape)

    @property
    def dense_bytes(self) -> int:
        """Size of the dense array in the dtype of the variable."""
        return self.size * np.dtype(self.dtype).itemsize

    @property
    def value_bytes(self) -> int:
        """Size of the stored values."""
        return CODECS[self.encoding].values(self) * np.dtype(self.stored_dtype).itemsize

    @property
    def index_bytes(self) -> int:
        """Size of everything that is stored besides the values."""
        return CODECS[self.encoding].index_bytes(self)

    @property
    def stored_bytes(self) -> int:
        """Size in the file."""
        return self.value_bytes + self.index_bytes

    def to_dict(self) -> dict[str, Any]:
        """Returns attributes and sizes as JSON types."""
        sizes = ("dense_bytes", "value_bytes", "index_bytes", "stored_bytes")
        fields = dataclasses.asdict(self) | {"shape": list(self.shape)}
        return fields | {name: getattr(self, name) for name in sizes}

    @classmethod
    def from_header(cls, header: dict) -> "WeightStorage":
        """Reads a dict of `dataclasses.asdict`, and rejects a weight that is larger than its bytes can describe.

        Args:
            header: Dict that is not trusted.

        Raises:
            ValueError: If the attributes are invalid or contradict each other.
        """
        row = cls(**header)
        numbers = (*row.shape, row.entries, *dict(row.settings).values())
        if not (
            all(type(number) is int and number >= 0 for number in numbers)
            and row.dtype in DTYPES
            and (row.stored_dtype == row.dtype or (row.stored_dtype, row.dtype) == ("float16", "float32"))
            and row.entries <= row.size
            and row.encoding in CODECS
            and CODECS[row.encoding].is_sound(row)
        ):
            raise ValueError(f"A stored weight is invalid or larger than its bytes can describe. Received: {row}")
        return dataclasses.replace(row, shape=tuple(row.shape))


class Dense:
    """Codec that stores all values, zeros included."""

    def settings(self, bits: np.ndarray, widths: Sequence[int]) -> dict[str, int]:
        """Returns the settings that `decode` needs for `bits`, an array of unsigned integers of shape `(size,)`."""
        return {}

    def is_sound(self, row: WeightStorage) -> bool:
        """Whether settings from a file are valid and bound the size of the weight by the bytes in the file."""
        return not row.settings

    def values(self, row: WeightStorage) -> int:
        """Returns the number of values in the file."""
        return row.size

    def index_bytes(self, row: WeightStorage) -> int:
        """Returns the size of everything but the values."""
        return 0

    def encode(self, row: WeightStorage, bits: np.ndarray) -> Iterator[np.ndarray]:
        """Yields the bytes in pieces."""
        yield bits

    def decode(self, row: WeightStorage, packed: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Returns `bits` from the packed bytes and the values."""
        return values


class RelativeIndex(Dense):
    """Codec that stores the relative indices of the entries (see `relative_index`) and then their values."""

    def settings(self, bits, widths):
        counts = relative_index.count_indices(bits, widths)
        width = min(widths, key=lambda width: width * counts[width])
        return {"index_bits": width, "indices": counts[width]}

    def is_sound(self, row):
        width, indices = row.settings.get("index_bits", -1), row.settings.get("indices", -1)
        return len(row.settings) == 2 and width in relative_index.WIDTHS and row.size <= indices * (2**width - 1)

    def values(self, row):
        return row.entries

    def index_bytes(self, row):
        return -(-row.settings["indices"] * row.settings["index_bits"] // 8)

    def encode(self, row, bits):
        yield from relative_index.encode(bits, row.settings["index_bits"])
        for start in range(0, row.size, _PIECE):
            piece = bits[start : start + _PIECE]
            yield piece[piece != 0]

    def decode(self, row, packed, values):
        bits, done = np.zeros(row.size, values.dtype), 0
        for positions in relative_index.decode(packed, row.settings["index_bits"], row.settings["indices"], row.size):
            start, done = done, done + len(positions)
            if done > row.entries:
                break
            bits[positions] = values[start:done]
        if done != row.entries:
            raise ValueError(f"A stored weight must have one index for each entry. Received: {done} for {row}")
        return bits


CODECS = {"dense": Dense(), "relative_index": RelativeIndex()}


def measure(name: str, array: np.ndarray, index_bits: int | str | None, value_dtype: str) -> WeightStorage:
    """Returns the smallest encoding of an array.

    Args:
        name: String, for messages.
        array: Array of any shape.
        index_bits: Integer from 1 to 16, `"smallest"` for the best width, or `None` for 5 up to two dimensions and 8
            beyond.
        value_dtype: `"float32"`, or `"float16"` to round float32 arrays of two or more dimensions.

    Raises:
        ValueError: If the array has another dtype, or values that are too large for float16.
    """
    dtype = str(array.dtype)
    if dtype not in DTYPES:
        raise ValueError(f"A weight must be of dtype {', '.join(DTYPES)}. Received: {name!r} of dtype {dtype}")
    stored_dtype = value_dtype if dtype == "float32" and array.ndim >= 2 else dtype
    widths = relative_index.WIDTHS if index_bits == "smallest" else [index_bits or (5 if array.ndim <= 2 else 8)]
    bits = _bits(name, array, stored_dtype)
    row = WeightStorage(name, array.shape, dtype, stored_dtype, int(np.count_nonzero(bits)))
    rows = [
        dataclasses.replace(row, encoding=encoding, settings=codec.settings(bits, widths))
        for encoding, codec in CODECS.items()
    ]
    return min(rows, key=lambda row: row.stored_bytes)


def encode_weight(row: WeightStorage, array: np.ndarray) -> Iterator[np.ndarray]:
    """Yields the `row.stored_bytes` bytes of an array in pieces."""
    bits = _bits(row.name, array, row.stored_dtype)
    return CODECS[row.encoding].encode(row, bits.astype(bits.dtype.newbyteorder("<"), copy=False))


def decode_weight(row: WeightStorage, file: BinaryIO) -> np.ndarray:
    """Reads an array from a file, which must be at the start of its bytes.

    Raises:
        ValueError: If the bytes contradict `row`.
    """
    packed = np.fromfile(file, "uint8", row.index_bytes)
    stored = np.dtype(f"<u{np.dtype(row.stored_dtype).itemsize}")
    values = np.fromfile(file, stored, row.value_bytes // stored.itemsize).astype(stored.newbyteorder("="), copy=False)
    bits = CODECS[row.encoding].decode(row, packed, values)
    return bits.view(row.stored_dtype).astype(row.dtype, copy=False).reshape(row.shape)


def _bits(name, array, stored_dtype) -> np.ndarray:
    """Returns the bits of the values as unsigned integers of shape `(size,)`. Only +0 becomes zero."""
    values = np.ravel(array)
    if str(values.dtype) != stored_dtype:
        with np.errstate(over="ignore"):
            rounded = values.astype(stored_dtype)
        if not np.array_equal(np.isfinite(rounded), np.isfinite(values)):
            raise ValueError(
                f"Values of {stored_dtype} must not exceed {np.finfo(stored_dtype).max} in magnitude. Use "
                f"value_dtype='float32'. Received: {name!r} with values up to {np.max(np.abs(values)):.3g}"
            )
        values = rounded
    return values.view(f"u{values.itemsize}")
