import numpy as np

from keras_prune.sparse.timing import interleave


def test_interleave_warms_up_each_turn():
    log, turns = [], []
    times = interleave(
        {"a": lambda: log.append("a"), "b": lambda: log.append("b")},
        rounds=3,
        seconds=0.0,
        after_turn=lambda: turns.append(len(log)),
    )
    assert "".join(log) == "aabb" * 3
    assert {name: len(seconds) for name, seconds in times.items()} == {"a": 3, "b": 3}
    assert turns == [2, 4, 6, 8, 10, 12]


def test_interleave_repeats_calls_for_the_given_seconds():
    times = interleave({"nothing": lambda: None}, rounds=1, seconds=0.01)["nothing"]
    assert len(times) > 1
    assert np.all(times >= 0)
