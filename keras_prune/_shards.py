"""Arrays whose shards are in the memory of several processes. Only JAX has them, by `keras.distribution`.

Each process reads and makes the shards that its own devices hold.
"""

from typing import Any

import numpy as np


def is_spread(array) -> bool:
    """Whether one process at least cannot read all of an array. All processes agree."""
    if getattr(array, "is_fully_addressable", True) or array.is_fully_replicated:
        return False
    places = places_of(array)
    indices = array.sharding.devices_indices_map(array.shape).items()
    held = {(device.process_index, places[corners_of(index, array.shape)]) for device, index in indices}
    return len(held) < len(places) * len({process for process, _ in held})


def places_of(array) -> dict[tuple, int]:
    """Returns the place of each shard of an array, over all processes, by its corners. The first index counts most."""
    indices = array.sharding.devices_indices_map(array.shape).values()
    return {corners: place for place, corners in enumerate(sorted({corners_of(one, array.shape) for one in indices}))}


def corners_of(index, shape) -> tuple[tuple[int, int], ...]:
    """Returns the first and last index of a shard on each axis."""
    return tuple(one.indices(size)[:2] for one, size in zip(index, shape, strict=True))


def local_shards(*arrays) -> dict[int, tuple[bool, tuple[np.ndarray, ...]]]:
    """Returns the shards that this process holds, by place: whether it counts them, and the part of each array.

    Of all processes that hold a shard, one counts it. The arrays take the layout of the first.
    """
    import jax

    first = arrays[0]
    places, found = places_of(first), {}
    alike = [first, *(jax.device_put(one, first.sharding) for one in arrays[1:])]
    for pieces in zip(*(one.addressable_shards for one in alike), strict=True):
        place = places[corners_of(pieces[0].index, first.shape)]
        is_counted = pieces[0].replica_id == 0 or (place in found and found[place][0])
        found[place] = is_counted, tuple(np.asarray(one.data) for one in pieces)
    return dict(sorted(found.items()))


def from_shards(parts: dict[int, np.ndarray], like) -> Any:
    """Returns an array in the layout of another, from the shards that this process holds, by place."""
    import jax

    places = places_of(like)
    return jax.make_array_from_callback(
        like.shape, like.sharding, lambda index: parts[places[corners_of(index, like.shape)]]
    )


def gathered(array) -> np.ndarray:
    """Returns a whole array in every process. All of them must call it, and wait for each other."""
    from jax.experimental import multihost_utils

    return multihost_utils.process_allgather(array, tiled=True)
