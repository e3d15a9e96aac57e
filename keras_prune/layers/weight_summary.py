"""Summarize weights of any size in a few kilobytes, from which figures are drawn when the weights may have changed."""

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_prune._shards import is_spread
from keras_prune.layers.weights import PrunableWeight
from keras_prune.rules.chunks import on_host
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.shards import counted_chunks, of_processes, total

BINS = 80
MASK_DOTS = (300, 800)  # Enough for LeNet-300-100, connection by connection, and for the width of a screen.


class WeightSummary(NamedTuple):
    """Summary of one weight.

    Attributes:
        name: String, the path of its layer, and its own name if the layer has several.
        shape: Tuple of integers.
        kept: Number of connections that survive.
        threshold: Float, magnitude below which the last cut pruned. `None` if the model is not pruned, if blocks were
            pruned, or if the criterion has no threshold.
        smallest: Float, the smallest magnitude that survives; 0 if none does.
        counts: Array of shape `(bins,)`, how many surviving values lie in each bin of a histogram.
        edges: Tuple of floats, where the first bin starts and the last one ends.
        shares: Array of shape `(rows, columns)`, the share of the connections kept in each rectangle of the mask, with
            outputs as rows. `None` if the weight does not have two dimensions, or is spread over processes.
    """

    name: str
    shape: tuple[int, ...]
    kept: int
    threshold: float | None
    smallest: float
    counts: np.ndarray
    edges: tuple[float, float]
    shares: np.ndarray | None = None

    @property
    def size(self) -> int:
        """Number of connections before pruning."""
        return math.prod(self.shape)


def summarize(weight: PrunableWeight, name: str, with_mask: bool = True) -> WeightSummary:
    """Returns the summary of a weight. All processes must call it for a weight that is spread over them.

    Args:
        weight: `PrunableWeight`.
        name: String, the name in the summary.
        with_mask: Boolean, whether to keep a picture of the mask, of at most 240,000 bytes. Defaults to `True`.
    """
    value, smallest = weight.value, math.inf
    low, high, bins = _bins(value)
    counts = np.zeros(bins, "int64")
    for survivors in _survivors(weight, value):
        places = ((survivors - low) * (bins / (high - low))).astype("int32")
        counts += np.bincount(np.minimum(places, bins - 1), minlength=bins)
        smallest = min(smallest, np.min(np.abs(survivors), initial=math.inf))
    smallest = float(of_processes(np.float32(smallest), value).min())  # Of one dtype in every process.
    return WeightSummary(
        name=name,
        shape=tuple(value.shape),
        kept=weight.kept,
        threshold=_threshold(weight),
        smallest=smallest if smallest < math.inf else 0.0,
        counts=total(counts, value),
        edges=(float(low), float(high)),
        shares=_shares(weight, value) if with_mask and len(value.shape) == 2 and not is_spread(value) else None,
    )


def _survivors(weight, value) -> Iterator[np.ndarray]:
    """Yields the finite surviving values of this process, a few at a time."""
    arrays = (value, weight.pruned.mask.value) if weight.pruned else (value,)
    for values, *mask in counted_chunks(*arrays):
        yield _finite(values[mask[0] if mask else values != 0])


def _finite(values) -> np.ndarray:
    """Returns the finite values in float32: NumPy cannot order bfloat16."""
    values = values.astype("float32", copy=False)
    with np.errstate(invalid="ignore", over="ignore"):
        return values if np.isfinite(np.sum(values)) else values[np.isfinite(values)]


def _bins(value) -> tuple[np.float32, np.float32, int]:
    """Returns where the bins of a weight start and end, zero in between, and how many there are."""
    low = high = np.float32(0)
    for (values,) in counted_chunks(value):
        finite = _finite(values)
        low, high = np.min(finite, initial=low), np.max(finite, initial=high)
    low, high = of_processes(low, value).min(), of_processes(high, value).max()
    if "int" in str(value.dtype):  # Each bin holds as many integers as the others.
        each = math.ceil((high - low + 1) / BINS)
        bins = math.ceil((high - low + 1) / each)
        return low - np.float32(0.5), low - np.float32(0.5) + np.float32(bins * each), bins
    return (low, high, BINS) if low < high else (np.float32(-1), np.float32(1), BINS)


def _threshold(weight) -> float | None:
    if weight.pruned is None or getattr(weight.criterion, "pattern", Pattern()) != Pattern():
        return None
    threshold = float(on_host(weight.pruned.threshold))
    return threshold if 0 < threshold < math.inf else None


def _shares(weight, value) -> np.ndarray:
    """Returns the share of the mask that is kept in each of equal rectangles, as whole numbers of 255."""
    source: Any = on_host(weight.pruned.mask.value if weight.pruned else value)
    (inputs, outputs), (rows, columns) = source.shape, reversed(MASK_DOTS)
    rows, columns = np.arange(0, inputs, -(-inputs // rows)), np.arange(0, outputs, -(-outputs // columns))
    counts = [np.count_nonzero(piece, axis=0) for piece in np.split(source, rows[1:])]
    counts = np.add.reduceat(np.array(counts), columns, axis=1)
    areas = np.outer(np.diff(rows, append=inputs), np.diff(columns, append=outputs))
    return np.rint(255 * counts / areas).astype("uint8").T
