"""Time several calls in turns, so that a machine that slows down slows all of them."""

import time
from collections.abc import Callable, Mapping

import numpy as np


def interleave(
    calls: Mapping[str, Callable[[], object]],
    rounds: int = 5,
    seconds: float = 0.02,
    after_turn: Callable[[], object] | None = None,
) -> dict[str, np.ndarray]:
    """Times several calls in rounds. In each round, every call has one turn.

    Each turn starts with a call that is not timed and loads the weights into the caches. A call must not return before
    its work is done. On an accelerator, it has to wait for the device.

    Args:
        calls: Mapping from a name to a function without arguments.
        rounds: Integer, number of turns of each call. Defaults to `5`.
        seconds: Float, duration of one turn, in which at least one call is timed. Defaults to `0.02`.
        after_turn: Function without arguments that is called after each turn. Defaults to `None`.

    Returns:
        A dict from name to the seconds of each timed call, as an array of shape `(calls,)`.

    Example:

    >>> from keras_prune.sparse.timing import interleave
    >>> times = interleave({"fast": lambda: None, "slow": lambda: time.sleep(0.01)}, rounds=2)
    >>> bool(np.median(times["fast"]) < np.median(times["slow"]))
    True
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(rounds):
        for name, call in calls.items():
            call()
            turn_ends = time.perf_counter() + seconds
            while True:
                started = time.perf_counter()
                call()
                ended = time.perf_counter()
                times[name].append(ended - started)
                if ended >= turn_ends:
                    break
            if after_turn:
                after_turn()
    return {name: np.array(seconds) for name, seconds in times.items()}
