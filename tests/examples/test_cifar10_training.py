"""Tests of parts of examples/cifar10.py. test_examples.py runs the whole example."""

import pathlib

import numpy as np
import pytest

import keras_prune as kp
from keras_prune.models.graph import pruned_dropouts

pytest.importorskip("tensorflow_datasets", reason="the examples read images with TensorFlow Datasets")
EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"


@pytest.fixture
def training(monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import cifar10_training

    return cifar10_training


def test_augmented_images_are_mirrored_and_shifted(training):
    images = np.random.default_rng(0).integers(0, 256, (128, 32, 32, 3), "uint8")
    ((batch, labels),) = training.augmented(images, np.arange(128), seed=0).as_numpy_iterator()
    assert sorted(labels) == list(range(128))
    seen = set()
    for image, label in zip(batch, labels, strict=True):
        padded = np.pad(images[label], ((4, 4), (4, 4), (0, 0)), "reflect")
        found = [
            (row, column, flip)
            for row in range(9)
            for column in range(9)
            for flip in (1, -1)
            if np.array_equal(image, padded[row : row + 32, column : column + 32][:, ::flip])
        ]
        assert len(found) == 1
        seen.add(found[0])
    rows, columns, flips = map(set, zip(*seen, strict=True))
    assert (rows, columns, flips) == (set(range(9)), set(range(9)), {1, -1})


def test_epochs_have_different_orders_and_shifts(training):
    data = training.augmented(np.zeros((256, 32, 32, 3), "uint8"), np.arange(256), seed=0)
    first, second = ([labels for _, labels in data.as_numpy_iterator()] for _ in range(2))
    assert not np.array_equal(first, second)
    ramp = np.broadcast_to(np.arange(32, dtype="uint8")[:, None, None], (128, 32, 32, 3))
    data = training.augmented(ramp, np.zeros(128, int), seed=0)
    first, second = (np.sort(next(data.as_numpy_iterator())[0][:, 16, 0, 0]) for _ in range(2))
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(("network", "dense_share"), [("vgg", 0.5), ("alexnet", 0.9)])
def test_networks_have_the_shape_of_their_namesakes(training, network, dense_share):
    model = getattr(training, network)(16, training.SETTINGS[network])
    assert model.input_shape == (None, 32, 32, 3)
    assert model.output_shape == (None, 10)
    rows = kp.report(model).rows
    dense = sum(row.weights for row in rows if row.name.startswith("fc"))
    assert dense / sum(row.weights for row in rows) > dense_share
    followed = {rate.owner().name: weights for rate, weights in pruned_dropouts(kp.prune(model))}
    paths = {name: [weight.layer.name for weight in weights] for name, weights in followed.items()}
    assert paths == {"dropout1": ["fc1"], "dropout2": ["fc2"]}


def test_learning_rate_rises_and_falls_to_zero(training):
    rates = [training.cosine(0.1, 100, warm_up=0.2).schedule(epoch) for epoch in range(100)]
    top = int(np.argmax(rates))
    assert top == 20
    assert rates[:top] == sorted(rates[:top])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert 0.099 < rates[top] <= 0.1
    assert 0 < rates[-1] < 1e-4
