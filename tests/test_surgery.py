"""From a model to a wrapped one and back: same outputs and layers, zeros inside, the original left as it was."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")


def numbers(tensors):
    return [ops.convert_to_numpy(tensor) for tensor in keras.tree.flatten(tensors)]


def assert_same(first, second):
    for one, other in zip(numbers(first), numbers(second), strict=True):
        np.testing.assert_array_equal(one, other)


def small_model(**first):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="hidden", **first),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(3, name="head"),
        ]
    )


def cut(model, strength=1.0):
    for layer in kp.graph.pruned_layers(model):
        layer.cut(strength)
    return model


class UnregisteredLayer(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 8), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


class UnregisteredCriterion(kp.Criterion):
    def select(self, weight, mask, strength):
        return ops.logical_and(mask, weight > 0), 0.0


def test_layers_and_criteria_that_are_not_registered_survive_prune_and_strip():
    model = keras.Sequential([keras.Input((8,)), UnregisteredLayer(name="own"), layers.Dense(3)])
    pruned = cut(kp.prune(model, UnregisteredCriterion()))
    again = kp.prune(pruned)
    assert_same(again(X), pruned(X))
    plain = kp.strip(again)
    assert type(plain.layers[0]) is UnregisteredLayer
    assert_same(plain(X), pruned(X))


def test_a_stripped_layer_has_the_regularizer_of_its_config():
    plain = kp.strip(cut(kp.prune(small_model(kernel_regularizer="l1"))))
    kernel = plain.get_layer("hidden").kernel
    assert kernel.regularizer is plain.get_layer("hidden").kernel_regularizer


def test_lambda_layers_and_operations_are_carried_over():
    inputs = keras.Input((8,))
    hidden = ops.relu(layers.Dense(4)(inputs) * 2 + 1)
    outputs = layers.Dense(3)(layers.Lambda(lambda tensor: tensor * 3, output_shape=(4,))(hidden))
    model = keras.Model(inputs, outputs)
    pruned = kp.prune(model)
    assert_same(pruned(X), model(X))
    assert_same(kp.strip(pruned)(X), model(X))


def test_strip_gives_back_the_configuration_of_the_original_model():
    inputs = keras.Input((8,))
    block = keras.Sequential([keras.Input((8,)), layers.Dense(8, "relu"), layers.Dropout(0.5, seed=7)], name="block")
    model = keras.Model(inputs, layers.Dense(3, kernel_regularizer="l2")(block(block(inputs))), name="siamese")
    plain = kp.strip(kp.prune(model))
    assert plain.get_config() == model.get_config()
    assert [variable.path for variable in plain.trainable_variables]


def mean_square(truth, prediction):
    return ops.mean(ops.square(truth - prediction))


class Warmup(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.001 * ops.cast(step, "float32")

    def get_config(self):
        return {}


def test_a_compiled_model_comes_back_compiled_with_what_it_was_compiled_with():
    model = small_model()
    adam = keras.optimizers.Adam(Warmup(), clipnorm=0.5)
    metrics = ["mae", keras.metrics.MeanSquaredError(name="own")]
    model.compile(adam, mean_square, metrics=metrics, jit_compile=False)
    model.train_on_batch(X, Y)
    pruned = kp.prune(model)
    for copy in (pruned, kp.strip(pruned)):
        assert copy.optimizer is not adam
        assert copy.optimizer.clipnorm == 0.5
        assert int(copy.optimizer.iterations) == 0
        assert copy.jit_compile is False
        assert copy.evaluate(X, Y, verbose=0) == pytest.approx(model.evaluate(X, Y, verbose=0))
    assert model.compiled
    assert int(model.optimizer.iterations) == 1


def test_a_model_that_is_not_compiled_comes_back_that_way():
    assert not kp.strip(kp.prune(small_model())).compiled
