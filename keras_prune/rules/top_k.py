"""Ranking: which units of a weight have the highest scores, found piece by piece without sorting.

The bits of non-negative floats, read as integers, are in the order of the floats. So the score at a rank is found 16
bits at a time, each time by counting the units whose bits so far are those of the score that is looked for (a radix
selection): two readings of float32 scores, which need not be in memory at once.
"""

from collections.abc import Callable, Iterable

import numpy as np

_DIGIT_BITS = 16
_DIGITS = 1 << _DIGIT_BITS


def keep_largest(score: np.ndarray, size: np.ndarray, kept: int) -> tuple[np.ndarray, np.floating]:
    """Keeps the units of the highest scores whose sizes come nearest to `kept`; ties go to the lower row-major index.

    Args:
        score: Array of floats, none of them negative where there is a unit.
        size: Array of the same shape, what each unit counts: the connections that are left of a block, or the mask of
            single connections. Units of size 0 are gone.
        kept: Integer of at least 0. Where fewer survive already, they all stay; of two numbers of units that come as
            near to it the smaller is kept.

    Returns:
        The boolean mask of the same shape, and the lowest score that it keeps, or the highest of all if it is empty.
    """
    [mask], threshold = keep_largest_of(lambda: [(score, size)], kept)
    return mask, threshold


def keep_largest_of(pieces: Callable[[], Iterable[tuple]], kept: int) -> tuple[list[np.ndarray], np.floating]:
    """Does what `keep_largest` does for units that come in pieces.

    Args:
        pieces: Function without arguments that returns an iterable of `(score, size)`, the same at every call.
        kept: Integer of at least 0.

    Returns:
        A list with a boolean mask for every piece, and the lowest score kept, or the highest of all if none is.
    """
    bound, ties = _lowest_kept(pieces, kept)
    masks, lowest, highest = [], [], []
    for score, size in pieces():
        mask = np.logical_and(score > bound, size > 0)
        tied = np.flatnonzero(np.logical_and(score == bound, size > 0))[:ties]
        mask.flat[tied] = True
        ties -= len(tied)
        masks.append(mask)
        lowest.append(np.min(score, where=mask, initial=np.inf))
        highest.append(np.max(score, where=size > 0, initial=0))
    return masks, min(lowest) if any(map(np.any, masks)) else max(highest)


def _lowest_kept(pieces, kept) -> tuple[np.floating, int]:
    """Returns a score, and how many units of that score are kept beside all those of a higher one."""
    leading, above, left = 0, 0, None
    while left != 0:
        sizes = np.zeros(_DIGITS)
        for score, size in pieces():
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
    tied = np.concatenate([size[np.logical_and(score == bound, size > 0)] for score, size in pieces()])
    totals = above + np.cumsum(np.concatenate([[0], tied]))
    return bound, int(np.argmin(np.abs(totals - kept)))
