"""Tests of a single process. Tests of several are in `training`, since they start real processes."""

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW

from keras_prune._processes import gather, process_count, process_index


@pytest.mark.parametrize("value", [5, np.zeros((0, 2)), np.array([[2**40, -1]]), np.array([True, False])])
def test_gather_in_one_process_adds_an_axis(value):
    gathered = gather(value)
    assert (process_index(), process_count()) == (0, 1)
    assert gathered.shape == (1, *np.shape(value))
    np.testing.assert_array_equal(gathered[0], value)


@pytest.mark.skipif(not TENSORFLOW, reason="tf.distribute is TensorFlow's")
def test_devices_of_a_strategy_are_one_process():
    import tensorflow as tf

    with tf.distribute.MirroredStrategy(["CPU:0"]).scope():
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    assert (process_index(model), process_count(model)) == (0, 1)
