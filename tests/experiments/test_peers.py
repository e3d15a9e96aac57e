"""The training that `peers.py` gives every library, run on a few random images."""

import pathlib

import numpy as np
import pytest


@pytest.fixture
def peer(monkeypatch):
    monkeypatch.syspath_prepend(pathlib.Path(__file__).parents[2] / "experiments")
    import peers_keras
    import peers_training

    random = np.random.default_rng(0)
    data = random.random((20, 784), "float32"), random.integers(10, size=20)
    return peers_keras.KerasPrune(peers_training.Training(data, epochs=10, batch=10))


def test_peer_reaches_compression_and_stores_plain_zeros(peer):
    import peers_training

    images, labels = peer.training.data
    result = peers_training.measure(peer, peer.dense(), 12.0, (images, labels), (images, 9 - labels))
    assert result["compression"] == pytest.approx(12, abs=0.01)
    assert result["negative_zeros"] == 0
    assert result["held_out_error"] != result["test_error"]
    assert result["gzip_bytes"] < 4 * 266200 / 6
    assert (len(result["seconds"]["plain"]), len(result["seconds"]["pruned"])) == (2, 10)


def test_batches_hold_each_image_once(peer):
    batches = list(peer.training.batches(np.random.default_rng(0)))
    labels = np.concatenate([labels for _, labels in batches])
    assert [len(images) for images, _ in batches] == [10, 10]
    assert sorted(labels) == sorted(peer.training.data[1])
    assert not np.array_equal(labels, peer.training.data[1])
