"""Each kind of layer with weights, pruned in place."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp
from keras_prune.layers import pruned_weights


@keras.saving.register_keras_serializable(package="test_layer_kinds")
class Cell(keras.layers.Layer):
    """A recurrent cell that is not one of Keras's."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = self.state_size = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units), name="kernel")
        self.recurrent_kernel = self.add_weight(shape=(self.units, self.units), name="recurrent_kernel")

    def call(self, inputs, states):
        output = ops.tanh(ops.matmul(inputs, self.kernel) + ops.matmul(states[0], self.recurrent_kernel))
        return output, [output]

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable(package="test_layer_kinds")
class ReadsInnerKernel(keras.layers.Layer):
    """A layer that computes with the kernel of the layer inside it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4)

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return ops.matmul(inputs, self.inner.kernel) + self.inner.bias


# Layer, shape of its inputs, number of prunable weights.
KINDS = {
    "Dense": (lambda: layers.Dense(4), (8,), 1),
    "EinsumDense": (lambda: layers.EinsumDense("ab,bc->ac", 4), (8,), 1),
    "Conv1D": (lambda: layers.Conv1D(4, 3), (8, 3), 1),
    "Conv2D": (lambda: layers.Conv2D(4, 3), (6, 6, 3), 1),
    "Conv3D": (lambda: layers.Conv3D(4, 2), (3, 3, 3, 3), 1),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3), (8, 3), 1),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3), (6, 6, 3), 1),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 2), (3, 3, 3, 3), 1),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), (8, 4), 1),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (6, 6, 4), 1),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(4, 3), (8, 3), 2),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3), (6, 6, 3), 2),
    "SimpleRNN": (lambda: layers.SimpleRNN(4), (5, 3), 2),
    "GRU": (lambda: layers.GRU(4), (5, 3), 2),
    "LSTM": (lambda: layers.LSTM(4), (5, 3), 2),
    "RNN of cells": (lambda: layers.RNN([layers.LSTMCell(4), layers.GRUCell(4)]), (5, 3), 4),
    "RNN of an own cell": (lambda: layers.RNN(Cell(4)), (5, 3), 2),
    "Bidirectional": (lambda: layers.Bidirectional(layers.LSTM(4)), (5, 3), 4),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(2, 3), (3, 5, 5, 2), 2),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(4)), (5, 3), 1),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(4)), (8,), 1),
    "inner kernel": (ReadsInnerKernel, (8,), 1),
}


def model_of(make, shape):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    return keras.Model(inputs, make()(inputs))


def attention():
    inputs = keras.Input((5, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(inputs, inputs))


def grouped_attention():
    inputs = keras.Input((5, 8))
    return keras.Model(inputs, layers.GroupQueryAttention(4, 2, 1)(inputs, inputs))


def train(model, x, epochs=2):
    keras.utils.set_random_seed(1)
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.01), "mse")
    targets = np.zeros(model.compute_output_shape(x.shape))
    return model.fit(x, targets, epochs=epochs, batch_size=4, shuffle=False, verbose=0).history["loss"]


def outputs(model, x):
    return ops.convert_to_numpy(model(x))


def require_masked(model, x):
    """The outputs do not depend on what is stored where connections are pruned, and training keeps zeros there."""
    before = outputs(model, x)
    for weight in pruned_weights(model):
        weight.variable.assign(ops.where(weight.mask.value, weight.variable.value, 7.0))
    np.testing.assert_allclose(outputs(model, x), before, atol=1e-5)
    kp.cut(model, None)
    train(model, x)
    for weight in pruned_weights(model):
        assert np.count_nonzero(ops.convert_to_numpy(weight.variable)) == weight.kept < weight.size


@pytest.mark.parametrize("kind", KINDS)
def test_prune_takes_every_kind_of_layer(kind, tmp_path):
    make, shape, number = KINDS[kind]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    plain, pruned = model_of(make, shape), model_of(make, shape)
    assert kp.prune(pruned, kp.TargetSparsity(0.5)) is pruned
    assert len(pruned_weights(pruned)) == number
    np.testing.assert_array_equal(outputs(pruned, x), outputs(plain, x))
    assert train(pruned, x) == train(plain, x)

    kp.cut(pruned)
    require_masked(pruned, x)
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    np.testing.assert_allclose(outputs(loaded, x), outputs(pruned, x), atol=1e-6)
    assert [w.kept for w in pruned_weights(loaded)] == [w.kept for w in pruned_weights(pruned)]
    np.testing.assert_array_equal(outputs(kp.strip(loaded), x), outputs(pruned, x))


@pytest.mark.parametrize("make", [attention, grouped_attention])
def test_prune_takes_attention(make, tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 5, 8)).astype("float32")
    model = kp.prune(make(), kp.TargetSparsity(0.5))
    assert len(pruned_weights(model)) == 4
    kp.cut(model)
    require_masked(model, x)
    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    np.testing.assert_allclose(outputs(loaded, x), outputs(model, x), atol=1e-6)


@pytest.mark.parametrize("kind", ["Dense", "Conv2D", "LSTM"])
def test_prune_keeps_mixed_precision_outputs(kind, mixed_float16):
    make, shape, _ = KINDS[kind]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    plain, pruned = model_of(make, shape), kp.prune(model_of(make, shape), kp.TargetSparsity(0.5))
    np.testing.assert_array_equal(outputs(pruned, x), outputs(plain, x))
    kp.cut(pruned)
    assert {str(weight.variable.dtype) for weight in pruned_weights(pruned)} == {"float32"}
    require_masked(pruned, x)


def test_masked_call_keeps_dtypes_of_inner_layers():
    class Outer(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.exact, self.rounded = layers.Dense(4, dtype="float32"), layers.Dense(4)

        def build(self, input_shape):
            self.exact.build(input_shape)
            self.rounded.build(input_shape)

        def call(self, inputs):
            return ops.cast(self.exact(inputs), "float32") + ops.cast(self.rounded(inputs), "float32")

    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    make = lambda: Outer(dtype="mixed_float16")  # noqa: E731
    plain, pruned = model_of(make, (8,)), kp.prune(model_of(make, (8,)))
    np.testing.assert_array_equal(outputs(pruned, x), outputs(plain, x))


def test_pruned_lstm_passes_time_masks_on():
    def make():
        keras.utils.set_random_seed(0)
        embedding, lstm = layers.Embedding(10, 4, mask_zero=True), layers.LSTM(3)
        return keras.Sequential([keras.Input((5,), dtype="int32"), embedding, lstm])

    x = np.array([[1, 2, 3, 0, 0], [4, 5, 0, 0, 0]])
    plain, pruned = make(), kp.prune(make(), kp.TargetSparsity(0.5))
    np.testing.assert_array_equal(outputs(pruned, x), outputs(plain, x))
    kp.cut(pruned)
    changed = np.where(x == 0, 0, x)
    changed[0, 3:] = 0
    np.testing.assert_array_equal(outputs(pruned, changed), outputs(pruned, x))


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="Keras cannot rematerialize in fit on TensorFlow")
def test_pruned_rematerialized_layers_train_as_plain_ones():
    def make():
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode="full"):
            hidden, head = layers.Dense(16, "relu"), layers.Dense(3)
        return keras.Sequential([keras.Input((8,)), hidden, head])

    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    plain, pruned = train(make(), x), train(kp.prune(make()), x)
    assert plain == pruned
    assert plain[0] != plain[1]


def test_pruned_dropout_draws_the_noise_of_keras():
    def make():
        keras.utils.set_random_seed(0)
        return keras.Sequential([keras.Input((8,)), layers.Dense(16), layers.Dropout(0.3, seed=1), layers.Dense(3)])

    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    # XLA may multiply by the reciprocal of a constant rate, and divides by a variable one.
    np.testing.assert_allclose(train(kp.prune(make()), x), train(make(), x), rtol=1e-6)


def test_non_contiguous_weights_keep_their_outputs():
    # On PyTorch an orthogonal kernel is stored transposed, and a product of another layout rounds differently.
    make = lambda: layers.Dense(64, kernel_initializer=keras.initializers.Orthogonal(seed=0))  # noqa: E731
    x = np.random.default_rng(0).normal(size=(32, 256)).astype("float32")
    plain, pruned = model_of(make, (256,)), kp.prune(model_of(make, (256,)))
    np.testing.assert_array_equal(outputs(pruned, x), outputs(plain, x))
