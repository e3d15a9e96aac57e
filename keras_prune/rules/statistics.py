"""Statistics of weights, computed a few rows at a time, by each process for its own shards."""

import math

import numpy as np

from keras_prune.rules.shards import counted_chunks, of_processes, total


def magnitude(weight: np.ndarray) -> np.ndarray:
    """Returns the absolute values in float32."""
    return np.abs(weight.astype("float32", copy=False))


def largest_magnitude(weight, mask) -> float:
    """Returns the largest magnitude of the surviving weights, 0 if none survives."""
    largest = (np.max(magnitude(np.multiply(value, left)), initial=0) for value, left in counted_chunks(weight, mask))
    return float(of_processes(np.float32(max(largest, default=0)), weight).max())


def require_finite(weight, received: str) -> None:
    """Raises a `ValueError` if a weight holds NaN or infinity, which have no order.

    Args:
        weight: Array of any shape and any backend.
        received: String for the message, such as `"layer=fc, weight=kernel"`.
    """
    # The sum of a chunk is finite in float64 if its entries are, and takes no memory.
    with np.errstate(invalid="ignore"):
        finite = all(math.isfinite(np.sum(piece, dtype="float64")) for (piece,) in counted_chunks(weight))
    if total(not finite, weight):
        raise ValueError(
            "A cut needs finite weights. NaN or infinity usually mean that training has diverged. Lower the learning "
            f"rate. Received: {received}"
        )


def surviving_std(weight, mask) -> np.float32:
    """Returns the standard deviation of the surviving weights."""
    moments = (_moments(*pieces) for pieces in counted_chunks(weight, mask))
    number, _, squares = _together(of_processes(_together(moments), weight))
    return np.float32(math.sqrt(squares / max(1, number)))


def _moments(weight, mask) -> tuple[int, float, float]:
    """Returns the number of survivors, their mean, and the sum of their squared deviations from it."""
    number = int(np.count_nonzero(mask))
    if number == 0:
        return 0, 0.0, 0.0
    # Not `weight[mask]`, which takes longer for a random mask.
    survivors = np.multiply(weight, mask, dtype="float32")
    mean = np.sum(survivors, dtype="float64") / number
    deviations = np.multiply(survivors - np.float32(mean), mask)
    return number, float(mean), float(np.sum(np.square(deviations), dtype="float64"))


def _together(moments) -> np.ndarray:
    """Returns the moments of several parts together.

    The squared deviations of two parts add up, and so does the distance of their means (Chan et al. 1979).
    """
    number, mean, squares = 0.0, 0.0, 0.0
    for count, own_mean, own_squares in moments:
        if count:
            distance = own_mean - mean
            squares += own_squares + distance**2 * number * count / (number + count)
            number += count
            mean += distance * count / number
    return np.array([number, mean, squares])
