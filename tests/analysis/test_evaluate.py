"""Properties of `evaluate`."""

import keras
import numpy as np
import pytest

from keras_prune.analysis.evaluate import evaluate


@pytest.fixture
def model():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1, kernel_initializer="ones")])
    model.compile(loss="mse", metrics=["mae"])
    return model


def test_it_measures_what_keras_measures(model):
    x, y = np.ones((4, 2)), np.zeros((4, 1))
    assert evaluate(model, (x, y), "mae") == 2.0
    assert evaluate(model, (x, y), "loss", batch_size=3) == 4.0


def test_a_list_counts_as_a_tuple(model):
    assert evaluate(model, [np.ones((4, 2)), np.zeros((4, 1))], "loss") == 4.0


def test_sample_weights_count(model):
    x, y, sample_weight = np.array([[1.0, 1.0], [2.0, 2.0]]), np.zeros((2, 1)), np.array([1.0, 0.0])
    assert evaluate(model, (x, y, sample_weight), "loss") == pytest.approx(2.0)


def test_a_metric_that_is_not_measured_is_named_with_those_that_are(model):
    with pytest.raises(ValueError, match=r"Received: monitor='accuracy', measured are \['loss', 'mae'\]"):
        evaluate(model, (np.ones((1, 2)), np.ones((1, 1))))
