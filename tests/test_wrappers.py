"""A wrapped layer is the layer without its cut connections: same outputs, state, losses and call arguments."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
SEQUENCES = np.random.default_rng(2).normal(size=(2, 5, 8)).astype("float32")


def values(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(tensors)]


def assert_same(first, second):
    for one, other in zip(values(first), values(second), strict=True):
        np.testing.assert_array_equal(one, other)


def test_losses_of_a_wrapped_layer_count_exactly_once():
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activity_regularizer="l2", kernel_regularizer="l1")(inputs)
    plain = keras.Model(inputs, layers.Dense(3)(layers.ActivityRegularization(l1=0.1)(hidden)))
    pruned = kp.prune(plain)
    for model in (plain, pruned):
        model.compile(keras.optimizers.SGD(0.1), "mse")
    assert pruned.evaluate(X, Y, verbose=0) == pytest.approx(plain.evaluate(X, Y, verbose=0), rel=1e-6)
    assert pruned.train_on_batch(X, Y) == pytest.approx(plain.train_on_batch(X, Y), rel=1e-6)
    assert_same([v.value for v in pruned.trainable_variables], [v.value for v in plain.trainable_variables])


class NoiseWithoutASeedOfItsOwn(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel) + keras.random.normal((2,))


def test_a_wrapped_layer_draws_new_noise_from_the_shared_seed_at_every_call():
    layer = kp.Prune(NoiseWithoutASeedOfItsOwn())
    assert not np.array_equal(*values([layer(X), layer(X)]))


def test_a_wrapped_stateful_lstm_remembers():
    plain = layers.LSTM(3, stateful=True)
    plain.build(SEQUENCES.shape)
    pruned = kp.Prune(layers.LSTM.from_config(plain.get_config()))
    pruned.build(SEQUENCES.shape)
    for old, new in zip(plain.weights, pruned.layer.weights, strict=True):
        new.assign(old)
    for _ in range(3):
        assert_same(pruned(SEQUENCES), plain(SEQUENCES))


@pytest.mark.parametrize("regularizer", ["l1", "l2", "orthogonal_regularizer"])
def test_a_regularizer_does_not_pull_at_cut_connections(regularizer):
    pruned = kp.Prune(layers.Dense(8, kernel_regularizer=regularizer), kp.TargetSparsity(0.5))
    model = keras.Sequential([keras.Input((8,)), pruned])
    before = keras.ops.convert_to_numpy(model.losses[0])
    assert before == pytest.approx(values(pruned.layer.kernel_regularizer(pruned.layer.kernel.value))[0])
    pruned.cut()
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(X, np.zeros((16, 8)))
    (weight,) = pruned.pruned_weights
    kernel, mask = values([weight.variable.value, weight.mask.value])
    assert not kernel[~mask].any()
    assert kernel[mask].all()
