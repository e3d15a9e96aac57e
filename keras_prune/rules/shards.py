"""Weights whose shards are in the memory of several processes.

Each process reads the shards that it holds, and the processes add up their results. Shards are not sent. A process that
holds a whole array treats it as one shard.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from keras_prune._processes import gather, process_index
from keras_prune._shards import from_shards, is_spread, local_shards, places_of
from keras_prune.rules.chunks import on_host, rows_of


class Shard(NamedTuple):
    """A part of a weight that is in the memory of this process.

    Attributes:
        place: Its position among the shards of all processes, by the first index of each.
        is_counted: Whether this process counts it. Exactly one of the processes that hold it does.
        arrays: The NumPy arrays of this part, such as the values and the mask.
    """

    place: int
    is_counted: bool
    arrays: tuple[np.ndarray, ...]


def shards_of(*arrays) -> list[Shard]:
    """Returns the shards of arrays of one shape that are in the memory of this process, each once."""
    if not is_spread(arrays[0]):
        return [Shard(0, True, tuple(map(on_host, arrays)))]
    return [Shard(place, *shard) for place, shard in local_shards(*arrays).items()]


def counted_chunks(*arrays, multiple: int = 1) -> Iterator[tuple[np.ndarray, ...]]:
    """Yields a few rows of the arrays at a time, from the shards that this process counts."""
    for shard in shards_of(*arrays):
        if shard.is_counted:
            for rows in rows_of(shard.arrays[0].shape, multiple):
                yield tuple(one[rows] for one in shard.arrays)


def assemble(parts: dict[int, np.ndarray], like) -> Any:
    """Returns an array of the shape of `like` from its shards in the memory of this process, by place."""
    return from_shards(parts, like) if is_spread(like) else parts[0]


def of_processes(values, *arrays) -> np.ndarray:
    """Returns the values of each process, one row each, or only those of this process if no array is spread."""
    values = np.asarray(values)
    return gather(values) if any(map(is_spread, arrays)) else values[None]


def total(value, *arrays):
    """Returns the sum over processes of a value for the shards that each one counts."""
    return of_processes(value, *arrays).sum(axis=0)


def adder(*arrays) -> Callable[[np.ndarray], np.ndarray] | None:
    """Returns the function that adds up the counts of the processes, or `None` if no array is spread."""
    return (lambda counts: total(counts, *arrays)) if any(map(is_spread, arrays)) else None


def share_out(number: int, shards, count, array) -> dict[int, int]:
    """Distributes a number over the shards of an array. Each shard in order takes up to its count.

    Args:
        number: Integer.
        shards: List of `Shard` from `shards_of`.
        count: Function from a `Shard` to its count.
        array: The array.

    Returns:
        Dict from the place of a shard to its share.
    """
    if not is_spread(array):
        return {0: number}
    counts = np.zeros(len(places_of(array)), "int64")
    for shard in shards:
        counts[shard.place] = count(shard) if shard.is_counted else 0
    counts = total(counts, array)
    return dict(enumerate(np.clip(number - (np.cumsum(counts) - counts), 0, counts).tolist()))


def counted_here(arrays) -> list[int]:
    """Returns the positions of the arrays that this process counts, in whole or in part, in a sum over all arrays."""
    are_spread = [is_spread(one) for one in arrays]
    counts_all = not any(are_spread) or process_index() == 0
    return [position for position, one in enumerate(are_spread) if one or counts_all]


def count(array) -> int:
    """Returns how many entries of an array are `True`, or not zero."""
    if not is_spread(array):
        return int(np.count_nonzero(on_host(array)))
    return int(total(sum(np.count_nonzero(piece) for (piece,) in counted_chunks(array)), array))
