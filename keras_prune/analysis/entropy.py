"""Lower bound for the size of a sparse weight."""

import math


def entropy_bound(entries: int, size: int, itemsize: int) -> float:
    """Returns the bytes of the nonzero values of a weight plus the entropy of a random mask of the same density.

    No file can store a weight with random zeros in less, unless it also compresses the values.

    Args:
        entries: Integer, number of nonzero values.
        size: Integer, number of all values.
        itemsize: Integer, bytes of one value.

    Example:

    >>> round(entropy_bound(18816, 235200, 4))  # The first layer of LeNet-300-100 at a density of 8%.
    87088
    """
    density = entries / max(1, size)
    entropy = -sum(share * math.log2(share) for share in (density, 1 - density) if share)
    return entries * itemsize + size * entropy / 8
