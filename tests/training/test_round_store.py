"""A directory of rounds is resumed as it was written, or rejected."""

import dataclasses

import keras
import numpy as np
import pytest
from helpers import assert_same

from keras_prune.training import round_store
from keras_prune.training.round_store import Round, RoundSettings, RoundStore

SETTINGS = RoundSettings(1, ["a"], ["2.0"], 0.1, "accuracy", "max", 0.1, 1, None, {"x": "float32 (2, 3) a3c1ca20"})


def model():
    compiled = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="fc")])
    compiled.compile("sgd", "mse")
    return compiled


@pytest.fixture
def directory(tmp_path):
    store = RoundStore(tmp_path / "rounds", SETTINGS)
    rounds = store.load(model())
    for compression in (1.0, 2.0):
        rounds.append(Round(compression, 0.9, True, 3.5))
        saved = model()
        saved.set_weights([np.full((3, 2), compression), np.zeros(2)])
        store.save(saved, rounds)
    return tmp_path / "rounds"


def load(directory, **other):
    loaded, store = model(), RoundStore(directory, dataclasses.replace(SETTINGS, **other))
    return store.load(loaded), loaded.get_weights()


def test_rounds_and_last_model_are_restored(directory):
    rounds, weights = load(directory)
    assert rounds == [Round(1.0, 0.9, True, 3.5), Round(2.0, 0.9, True, 3.5)]
    assert_same(weights, [np.full((3, 2), 2.0), np.zeros(2)])
    assert sorted(file.name for file in directory.iterdir()) == ["round_00.keras", "round_01.keras", "rounds.json"]


def test_directory_of_several_processes_is_rejected(monkeypatch, tmp_path):
    monkeypatch.setattr(round_store, "process_count", lambda model: 2)
    with pytest.raises(ValueError, match=r"`directory` only works with one process.* Received: directory='"):
        load(tmp_path)


def test_rounds_of_other_data_are_rejected(directory):
    with pytest.raises(ValueError, match=r"other settings.* Received: directory='.*rounds'.*'x': 'other'"):
        load(directory, data={"x": "other"})


@pytest.mark.parametrize("name", ["rounds.json", "round_01.keras"])
@pytest.mark.parametrize("damage", ["truncated", "altered", "empty", "of another kind"])
def test_damaged_rounds_are_rejected(name, damage, directory):
    content = (directory / name).read_bytes()
    middle = content.index(b"0.9") if name == "rounds.json" else len(content) // 2
    damaged = {
        "truncated": content[:middle],
        "altered": content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :],
        "empty": b"",
        "of another kind": b"[1, 2]",
    }
    (directory / name).write_bytes(damaged[damage])
    with pytest.raises(ValueError, match=rf"is damaged\. .* Received: directory='.*rounds', whose {name} failed with"):
        load(directory)


def test_missing_round_is_named(directory):
    (directory / "round_01.keras").unlink()
    with pytest.raises(ValueError, match=r"directory='.*rounds', whose round_01.keras failed with"):
        load(directory)
