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


def attention_model(**kwargs):
    inputs = keras.Input((5, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(query=inputs, value=inputs, **kwargs))


@pytest.mark.parametrize("kwargs", [{"return_attention_scores": True}, {"use_causal_mask": True}])
def test_multi_head_attention_keeps_its_keyword_arguments(kwargs):
    plain = attention_model(**kwargs)
    assert_same(kp.prune(plain)(SEQUENCES), plain(SEQUENCES))


def test_a_call_may_mix_tensor_and_other_keyword_arguments():
    inputs, mask = keras.Input((5, 8)), keras.Input((5, 5), dtype="bool")
    attention = layers.MultiHeadAttention(2, 4)
    outputs = attention(inputs, inputs, attention_mask=mask, return_attention_scores=True)
    plain = keras.Model([inputs, mask], outputs)
    arguments = [SEQUENCES, np.tril(np.ones((2, 5, 5), "bool"))]
    assert_same(kp.prune(plain)(arguments), plain(arguments))


class UncastMatmul(layers.Layer):
    def __init__(self):
        super().__init__(autocast=False)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, ops.cast(self.kernel, inputs.dtype))


@pytest.mark.usefixtures("mixed_float16")
def test_a_layer_that_refuses_autocast_gets_uncast_inputs():
    plain = UncastMatmul()
    expected = plain(X)
    assert_same(kp.Prune(plain)(X), expected)


@keras.saving.register_keras_serializable(package="test_wrappers")
class BlockWithoutBuild(layers.Layer):
    """As users write them: the weights are made when the inner layers are first called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4)
        self.normalization = layers.BatchNormalization()

    def call(self, inputs, training=False):
        return self.normalization(self.inner(inputs), training=training)


def test_a_layer_without_a_build_method_is_pruned_saved_and_loaded(tmp_path):
    plain = keras.Sequential([keras.Input((8,)), BlockWithoutBuild(), layers.Dense(3)])
    pruned = kp.prune(plain, kp.TargetSparsity(0.5))
    assert_same(pruned(X), plain(X))
    assert pruned.layers[0].cut()[0].cut == 16
    pruned.save(tmp_path / "model.keras")
    assert_same(keras.models.load_model(tmp_path / "model.keras")(X), pruned(X))
    assert_same(kp.strip(pruned)(X), pruned(X))


def test_batch_normalization_inside_a_wrapped_layer_keeps_its_statistics():
    plain = keras.Sequential([keras.Input((8,)), BlockWithoutBuild(), layers.Dense(3)])
    pruned = kp.prune(plain)
    for model in (plain, pruned):
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(X, Y, epochs=2, batch_size=8, shuffle=False, verbose=0)
    expected = plain.layers[0].normalization.moving_mean.value
    assert np.abs(values(expected)[0]).max() > 0
    assert_same(pruned.layers[0].layer.normalization.moving_mean.value, expected)
