"""Process large weights in chunks of rows on the host, which need little memory and fit into caches."""

import math
from collections.abc import Iterator

import keras
import numpy as np
from keras import ops

from keras_prune._shards import gathered, is_spread

_ENTRIES = 2**18  # One chunk is 1 MB in float32.


def rows_of(shape: tuple[int, ...], multiple: int = 1) -> Iterator[slice]:
    """Yields slices of the first axis that cover an array. All but the last one have a multiple of `multiple` rows."""
    each = max(1, _ENTRIES // max(1, math.prod(shape[1:])) // multiple) * multiple
    for start in range(0, shape[0], each):
        yield slice(start, min(start + each, shape[0]))


def on_host(array) -> np.ndarray:
    """Returns an array of any backend as a NumPy array, without a copy if it is on the host already.

    All processes must call it for an array that is spread over them. Each then has the whole array in memory.
    """
    if isinstance(array, np.ndarray):
        return array
    if isinstance(array, keras.Variable):
        array = array.value
    if keras.backend.backend() == "tensorflow":
        # `convert_to_numpy` copies, as a variable of TensorFlow does in `np.asarray`; a tensor does not.
        return np.asarray(array.value() if hasattr(array, "assign") else array)
    if is_spread(array):
        return gathered(array)
    if keras.backend.backend() == "jax":
        return np.asarray(array)  # `convert_to_numpy` copies.
    if keras.backend.backend() == "torch":
        tensor = ops.stop_gradient(array)
        if tensor.device.type == "cpu" and "bfloat16" not in str(tensor.dtype):
            return tensor.numpy()  # `convert_to_numpy` copies. NumPy has no bfloat16.
    return ops.convert_to_numpy(array)
