"""Find the units with the highest scores in chunks, without sorting.

The bits of non-negative floats, read as integers, have the same order as the floats. A radix selection finds the score
at a rank 16 bits at a time, by counting the units whose leading bits match. Scores of float32 are read twice, and need
not be in memory at once.
"""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS


def keep_largest(score: np.ndarray, size: np.ndarray, kept: int) -> tuple[np.ndarray, np.floating]:
    """Keeps the units with the highest scores whose sizes come nearest to `kept`. Ties go to the lower row-major index.

    Args:
        score: Array of floats, none of them negative where there is a unit.
        size: Array of the same shape, how many connections each unit has left, or the mask of single connections.
        kept: Integer of at least 0. If fewer are left already, all are kept. If two numbers of units are equally near,
            the smaller is kept.

    Returns:
        The boolean mask of the same shape, and the lowest score that it keeps, or the highest of all if it is empty.
    """
    [mask], threshold = keep_largest_of(lambda: [(score, size)], kept)
    return mask, threshold


def keep_largest_of(chunks: Callable[[], Iterable[tuple]], kept: int) -> tuple[list[np.ndarray], np.floating]:
    """Like `keep_largest`, for units that come in chunks.

    Args:
        chunks: Function without arguments that returns an iterable of `(score, size)`, the same at every call.
        kept: Integer of at least 0.

    Returns:
        A list with a boolean mask for every chunk, and the lowest score kept, or the highest of all if none is.
    """
    bound, ties = _lowest_kept(chunks, kept)
    masks, lowest, highest = [], [], []
    for score, size in chunks():
        mask = np.logical_and(score > bound, size > 0)
        tied = np.flatnonzero(np.logical_and(score == bound, size > 0))[:ties]
        mask.flat[tied] = True
        ties -= len(tied)
        masks.append(mask)
        lowest.append(np.min(score, where=mask, initial=np.inf))
        highest.append(np.max(score, where=size > 0, initial=0))
    return masks, min(lowest) if any(map(np.any, masks)) else max(highest)


def _lowest_kept(chunks, kept) -> tuple[Any, int]:
    """Returns the lowest score that is kept, and how many units with that score are kept."""
    leading, above, left = 0, 0, None
    while left != 0:
        sizes = np.zeros(_DIGITS)
        for score, size in chunks():
            alive = size > 0
            bits, weight = score[alive].view(f"i{score.itemsize}"), size[alive]
            shift = (8 * score.itemsize if left is None else left) - _DIGIT_BITS
            if left is not None:
                same = bits >> left == leading
                bits, weight = bits[same], weight[same]
            sizes += np.bincount(bits >> shift & (_DIGITS - 1), weight, _DIGITS)
        at_least = above + np.cumsum(sizes[::-1])[::-1]
        kept = min(kept, at_least[0])
        if kept == 0:
            return np.inf, 0
        digit = int(np.flatnonzero(at_least >= kept)[-1])
        above = at_least[digit] - sizes[digit]
        leading, left = leading << _DIGIT_BITS | digit, shift
    bound = np.array(leading, f"i{score.itemsize}").view(score.dtype)[()]
    tied = np.concatenate([size[np.logical_and(score == bound, size > 0)] for score, size in chunks()])
    totals = above + np.cumsum(np.concatenate([[0], tied]))
    return bound, int(np.argmin(np.abs(totals - kept)))
