"""Fingerprints of training data."""

import contextlib
import zlib
from typing import Any

import keras
import numpy as np
from keras import ops

from keras_prune.rules.chunks import on_host, rows_of

# Arguments of `fit` that are not data. Epochs and batch size are compared separately.
_OTHERS = ("batch_size", "callbacks", "epochs", "verbose")
_LISTED = 8


def fingerprints(fit_arguments: dict[str, Any]) -> dict[str, str]:
    """Returns a text for each argument of `fit` that differs if the data differ, without iterating over datasets.

    The text of an array has its dtype, its shape and a checksum of all values. The text of a dataset has its class,
    number of batches and `element_spec`, if it has these, but does not depend on the values. The text of a number is
    the number.

    Args:
        fit_arguments: Dict of the arguments of `fit`. Callbacks are left out.

    Example:

    >>> fingerprints({"x": np.zeros((2, 3), "float32"), "class_weight": {0: 1.0, 1: 2.0}})
    {'x': 'float32 (2, 3) a3c1ca20', 'class_weight': '1.0, 2.0'}
    """
    return {name: _text(value) for name, value in fit_arguments.items() if name not in _OTHERS}


def _text(data) -> str:
    leaves = [_leaf(leaf) for leaf in keras.tree.flatten(data)]
    text = ", ".join(leaves)
    return text if len(leaves) <= _LISTED else f"{len(leaves)} values {zlib.crc32(text.encode()):08x}"


def _leaf(leaf) -> str:
    if leaf is None or isinstance(leaf, (bool, int, float, str)):
        return repr(leaf)
    if ops.is_tensor(leaf) or hasattr(leaf, "__array__"):
        array, checksum = on_host(leaf) if ops.is_tensor(leaf) else np.asarray(leaf), 0
        for rows in rows_of(array.shape) if array.ndim else [...]:
            # The bytes of Python objects, such as strings, are their addresses.
            piece = repr(array[rows].tolist()).encode() if array.dtype.hasobject else array[rows].tobytes()
            checksum = zlib.crc32(piece, checksum)
        return f"{array.dtype} {array.shape} {checksum:08x}"
    batches = None
    with contextlib.suppress(Exception):  # A dataset without a length raises anything.
        batches = len(leaf)
    return f"{type(leaf).__name__} of {batches} {getattr(leaf, 'element_spec', '')}"
