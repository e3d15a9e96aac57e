"""Tests of `evaluate` and of the direction of a metric."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_prune.analysis.evaluate import direction, evaluate

DATA = np.ones((4, 2)), np.zeros((4, 1))


def own_score(y, predicted):
    return ops.mean(predicted)


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(loss="mse", metrics=["mae", "accuracy", own_score])
    return model


def test_evaluate_agrees_with_keras(model):
    assert evaluate(model, DATA, "mae") == 2.0
    assert evaluate(model, list(DATA), "loss", batch_size=3) == 4.0


def test_evaluate_counts_sample_weights(model):
    x, y, sample_weight = np.array([[1.0, 1.0], [2.0, 2.0]]), np.zeros((2, 1)), np.array([1.0, 0.0])
    assert evaluate(model, (x, y, sample_weight), "loss") == pytest.approx(2.0)


def test_evaluate_names_the_metrics_of_the_model(model):
    with pytest.raises(ValueError, match=r"one of \['accuracy', 'loss', 'mae', 'own_score'\].*Received: monitor='auc'"):
        evaluate(model, DATA, "auc")


class Endless(keras.utils.PyDataset):
    """An endless dataset."""

    num_batches = None

    def __getitem__(self, index):
        return np.full((2, 2), float(index < 2)), np.zeros((2, 1))


def test_evaluate_stops_at_steps_or_rejects_endless_data(model):
    assert evaluate(model, Endless(), "mae", steps=2) == 2.0
    with pytest.raises(ValueError, match=r"Pass `steps`.*Received: data=.*Endless.*, steps=None"):
        evaluate(model, Endless(), "mae")
    tf = pytest.importorskip("tensorflow")
    with pytest.raises(ValueError, match="The dataset is endless"):
        evaluate(model, tf.data.Dataset.from_tensors(DATA).repeat(), "mae")
    assert evaluate(model, tf.data.Dataset.from_tensors(DATA).repeat(2), "mae") == 2.0


def test_direction_follows_keras_or_mode(model):
    evaluate(model, DATA, "loss")
    assert [direction(model, name) for name in ("loss", "head_loss", "mae", "head_mae", "accuracy")] == [
        -1,
        -1,
        -1,
        -1,
        1,
    ]
    assert (direction(model, "own_score", "min"), direction(model, "loss", "max")) == (-1, 1)


def test_direction_rejects_unknown_metrics_and_modes(model):
    evaluate(model, DATA, "loss")
    with pytest.raises(ValueError, match=r"Pass mode='max' or mode='min'. Received: monitor='own_score', mode='auto'"):
        direction(model, "own_score")
    with pytest.raises(ValueError, match="Received: mode='more'"):
        direction(model, "loss", "more")
