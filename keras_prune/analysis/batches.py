"""Read the inputs of a model in batches."""

import itertools

import keras

from keras_prune.analysis.evaluate import require_end


def input_batches(x, steps: int | None = None, batch_size: int = 256):
    """Returns an iterator over batches of inputs.

    Args:
        x: Array of shape `(n, ...)`, a structure of arrays, or an iterable of batches. Of a batch
            `(inputs, targets)`, also as a list, only the inputs are used.
        steps: Integer, number of batches to use. Defaults to `None`, all. An endless dataset needs it.
        batch_size: Integer, size of the batches if `x` holds arrays. Defaults to `256`.

    Raises:
        ValueError: If `x` does not hold such inputs or is endless, or `steps` is less than 1.
    """
    if isinstance(x, str) or not (hasattr(x, "__iter__") or hasattr(x, "__getitem__")):
        raise ValueError(f"Inputs are an array, a structure of arrays or an iterable of batches. Received: x={x!r}")
    require_end(x, steps)
    return itertools.islice(_batches(x, batch_size), steps)


def _batches(x, batch_size):
    if isinstance(x, (list, tuple, dict)) or hasattr(x, "shape"):
        size = min((len(array) for array in keras.tree.flatten(x)), default=0)
        for start in range(0, size, batch_size):
            yield keras.tree.map_structure(lambda array: array[start : start + batch_size], x)  # noqa: B023
    else:
        for batch in x:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
