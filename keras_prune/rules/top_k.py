"""Find the units with the highest scores in chunks, without sorting.

The bits of non-negative floats, read as integers, have the same order as the floats. A radix selection finds the score
at a rank 16 bits at a time, by counting the units whose leading bits match. Scores of float32 are read twice, and need
not be in memory at once. For few units, and between processes, which send each other the counts, it proceeds 8 bits at
a time.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import numpy as np

_FEW = 1 << 14  # Units of a chunk for which four small histograms take less time than two large ones.


class Bound(NamedTuple):
    """Bound between the units that are kept and the others.

    Attributes:
        score: All units with a higher score are kept. Infinity if none are kept.
        ties: How many units with exactly this score are kept.
    """

    score: Any
    ties: int


def keep_largest(score: np.ndarray, size: np.ndarray, kept: int) -> np.ndarray:
    """Keeps the units with the highest scores whose sizes come nearest to `kept`. Ties go to the lower row-major index.

    Args:
        score: Array of floats, negative where there is no unit.
        size: Array of the same shape, how many connections each unit has left, or the mask of single connections.
        kept: Integer of at least 0. If fewer are left already, all are kept. If two numbers of units are equally near,
            the smaller is kept.

    Returns:
        The boolean mask of the same shape.
    """

    def chunks():
        return [(score, size)]

    return next(kept_units(chunks(), bound_of(chunks, kept, score.size)))


def kept_units(chunks: Iterable[tuple], bound: Bound) -> Iterator[np.ndarray]:
    """Yields which units of each chunk are kept, a boolean array."""
    ties = bound.ties
    for score, _ in chunks:
        mask = score >= bound.score
        tied = np.flatnonzero(score == bound.score)
        mask.flat[tied[ties:]] = False
        ties = max(0, ties - len(tied))
        yield mask


def count_tied(chunks: Iterable[tuple], bound: Bound) -> int:
    """Returns how many units have the lowest score that is kept."""
    return sum(int(np.count_nonzero(score == bound.score)) for score, _ in chunks)


def lowest_kept(chunks: Iterable[tuple], bound: Bound) -> np.floating:
    """Returns the lowest score that is kept, or the highest of all if none are kept."""
    if bound.ties:
        return bound.score
    lowest, highest = np.float32(np.inf), np.float32(0)
    for score, _ in chunks:
        lowest = np.min(score, where=score > bound.score, initial=lowest)
        highest = np.max(score, initial=highest)
    return lowest if lowest < np.inf else highest


def bound_of(
    chunks: Callable[[], Iterable[tuple]],
    kept: int,
    units: int,
    add_up: Callable[[np.ndarray], np.ndarray] | None = None,
) -> Bound:
    """Returns the bound of the units with the highest scores whose sizes come nearest to `kept`, as in `keep_largest`.

    Args:
        chunks: Function without arguments that returns an iterable of `(score, size)`, the same at every call.
        kept: Integer of at least 0.
        units: Integer, about how many units a chunk has.
        add_up: Function that adds up the counts of several processes, each for its own chunks of single connections.
            Defaults to `None`, one process.
    """
    digit_bits = 8 if add_up or units < _FEW else 16
    digits = 1 << digit_bits
    leading, above, left, score_type, is_single = 0, 0, None, np.dtype("float32"), True
    while left != 0:
        counts = np.zeros(digits, "int64")
        for score, size in chunks():
            score_type, is_single = score.dtype, size.dtype == bool
            bits, sizes = score.view(f"u{score.itemsize}").ravel(), size.ravel()
            if left is not None:
                same = np.flatnonzero(bits >> left == leading)
                bits, sizes = bits[same], sizes[same]
            shift = (8 * score.itemsize if left is None else left) - digit_bits
            digit = (bits >> shift & (digits - 1)).astype("int64")
            counts += np.bincount(digit, None if is_single else sizes, digits).astype("int64", copy=False)
        if left is None:
            left = 8 * score_type.itemsize
            counts[digits // 2 :] = 0  # A highest bit of 1 is a negative score, which is not a unit.
        at_least = above + np.cumsum((add_up(counts) if add_up else counts)[::-1])[::-1]
        kept = min(kept, int(at_least[0]))
        if kept == 0:
            return Bound(np.inf, 0)
        reached = int(np.flatnonzero(at_least >= kept)[-1])
        above = int(at_least[reached + 1]) if reached + 1 < digits else above
        leading, left = leading << digit_bits | reached, left - digit_bits
    bound = np.array(leading, f"u{score_type.itemsize}").view(score_type)[()]
    if is_single:
        return Bound(bound, kept - above)
    tied = np.concatenate([size[score == bound] for score, size in chunks()])
    totals = above + np.cumsum(np.concatenate([[0], tied]))
    return Bound(bound, int(np.argmin(np.abs(totals - kept))))
