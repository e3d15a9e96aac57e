"""Each kind of layer with weights, pruned in place."""

import warnings

import keras
import numpy as np
import pytest
from helpers import JAX, TENSORFLOW, TORCH, array, assert_same, assert_zeros, density, masks, refill
from keras import layers, ops

import keras_prune as kp

HALF = kp.TargetSparsity(0.5)


@keras.saving.register_keras_serializable(package="test_layer_kinds")
class Cell(keras.layers.Layer):
    """A custom recurrent cell."""

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
    "Conv2D": (lambda: layers.Conv2D(4, 3), (6, 6, 3), 1),
    "Conv1DTranspose": (lambda: layers.Conv1DTranspose(4, 3), (8, 3), 1),
    "DepthwiseConv2D": (lambda: layers.DepthwiseConv2D(3), (6, 6, 4), 1),
    "SeparableConv1D": (lambda: layers.SeparableConv1D(4, 3), (8, 3), 2),
    "LSTM": (lambda: layers.LSTM(4), (5, 3), 2),
    "RNN of own and other cells": (lambda: layers.RNN([Cell(4), layers.GRUCell(4)]), (5, 3), 4),
    "Bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(4)), (5, 3), 4),
    "MultiHeadAttention": (lambda: layers.MultiHeadAttention(2, 4), (5, 8), 4),
    "GroupQueryAttention": (lambda: layers.GroupQueryAttention(4, 2, 1), (5, 8), 4),
    "TimeDistributed": (lambda: layers.TimeDistributed(layers.Dense(4)), (5, 3), 1),
    "SpectralNormalization": (lambda: layers.SpectralNormalization(layers.Dense(4)), (8,), 1),
    "inner kernel": (ReadsInnerKernel, (8,), 1),
}
MORE_KINDS = {
    "Conv1D": (lambda: layers.Conv1D(4, 3), (8, 3), 1),
    "Conv3D": (lambda: layers.Conv3D(4, 2), (3, 3, 3, 3), 1),
    "Conv2DTranspose": (lambda: layers.Conv2DTranspose(4, 3), (6, 6, 3), 1),
    "Conv3DTranspose": (lambda: layers.Conv3DTranspose(4, 2), (3, 3, 3, 3), 1),
    "DepthwiseConv1D": (lambda: layers.DepthwiseConv1D(3), (8, 4), 1),
    "SeparableConv2D": (lambda: layers.SeparableConv2D(4, 3), (6, 6, 3), 2),
    "SimpleRNN": (lambda: layers.SimpleRNN(4), (5, 3), 2),
    "GRU": (lambda: layers.GRU(4), (5, 3), 2),
    "ConvLSTM2D": (lambda: layers.ConvLSTM2D(2, 3), (3, 5, 5, 2), 2),
}


def model_of(make, shape):
    keras.utils.set_random_seed(0)
    inputs, layer = keras.Input(shape), make()
    query_and_value = isinstance(layer, (layers.MultiHeadAttention, layers.GroupQueryAttention))
    return keras.Model(inputs, layer(inputs, inputs) if query_and_value else layer(inputs))


def train(model, x, epochs=2):
    keras.utils.set_random_seed(1)
    if not model.compiled:
        model.compile(keras.optimizers.Adam(0.01), "mse")
    targets = np.zeros_like(array(model(x)))
    return model.fit(x, targets, epochs=epochs, batch_size=4, shuffle=False, verbose=0).history["loss"]


def assert_masked(model, x):
    """Asserts that outputs do not depend on pruned entries of weights, and that training leaves zeros in them."""
    before = array(model(x))
    refill(model)
    np.testing.assert_allclose(array(model(x)), before, atol=1e-5)
    kp.cut(model, None)
    train(model, x)
    assert_zeros(model)
    assert 0.4 < density(model) < 0.6


@pytest.mark.parametrize("kind", [*KINDS, *(pytest.param(kind, marks=pytest.mark.slow) for kind in MORE_KINDS)])
def test_prune_takes_every_kind_of_layer(kind, tmp_path):
    make, shape, number = (KINDS | MORE_KINDS)[kind]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    model = model_of(make, shape)
    expected = array(model(x))
    assert kp.prune(model, HALF) is model
    assert len(kp.layers.pruned_weights(model)) == number
    assert_same(model(x), expected)
    kp.cut(model)
    assert_masked(model, x)
    expected = array(model(x))
    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    np.testing.assert_allclose(array(loaded(x)), expected, atol=1e-6)
    assert_same(masks(loaded), masks(model))
    assert_same(kp.strip(model)(x), expected)


def perceptron():
    return keras.Sequential([keras.Input((8,)), layers.Dense(6, "relu"), layers.Dropout(0.5, seed=1), layers.Dense(3)])


@pytest.mark.parametrize(
    ("make", "shape"), [(perceptron, (8,)), (lambda: layers.Conv2D(4, 3), (6, 6, 3)), (lambda: layers.LSTM(4), (5, 3))]
)
def test_prune_keeps_training_to_the_bit_until_a_cut(make, shape):
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    plain, pruned = model_of(make, shape), kp.prune(model_of(make, shape))
    assert train(pruned, x) == train(plain, x)
    assert_same(pruned.get_weights(), plain.get_weights())


@pytest.mark.parametrize("kind", ["Dense", "LSTM"])
def test_prune_keeps_mixed_precision_outputs(kind, mixed_float16):
    make, shape, _ = KINDS[kind]
    x = np.random.default_rng(0).normal(size=(8, *shape)).astype("float32")
    plain, pruned = model_of(make, shape), kp.prune(model_of(make, shape), HALF)
    assert_same(pruned(x), plain(x))
    kp.cut(pruned)
    assert {str(weight.variable.dtype) for weight in kp.layers.pruned_weights(pruned)} == {"float32"}
    assert_masked(pruned, x)


def test_prune_keeps_dtypes_of_inner_layers():
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
    assert_same(pruned(x), plain(x))


@pytest.mark.skipif(TENSORFLOW, reason="Keras cannot rematerialize in fit on TensorFlow")
def test_prune_keeps_training_of_rematerialized_layers():
    def make():
        keras.utils.set_random_seed(0)
        with keras.RematScope(mode="full"):
            hidden, head = layers.Dense(16, "relu"), layers.Dense(3)
        return keras.Sequential([keras.Input((8,)), hidden, head])

    x = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
    plain, pruned = train(make(), x), train(kp.prune(make()), x)
    assert plain == pruned
    assert plain[0] != plain[1]


def test_prune_keeps_outputs_of_non_contiguous_weights():
    # On PyTorch an orthogonal kernel is stored transposed, and a product of another layout rounds differently.
    make = lambda: layers.Dense(64, kernel_initializer=keras.initializers.Orthogonal(seed=0))  # noqa: E731
    x = np.random.default_rng(0).normal(size=(32, 256)).astype("float32")
    plain, pruned = model_of(make, (256,)), kp.prune(model_of(make, (256,)))
    assert_same(pruned(x), plain(x))


class ReadsPastItsVariable(layers.Layer):
    """A layer that computes with the tensor in a variable."""

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 8), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel._value)


class HoldsTorchModule(layers.Layer):
    """A layer with a PyTorch module as an attribute."""

    def __init__(self, **kwargs):
        import torch

        super().__init__(**kwargs)
        self.module = torch.nn.Linear(8, 8)

    def call(self, inputs):
        return self.module(inputs)


def torch_module():
    import torch

    return layers.TorchModuleWrapper(torch.nn.Linear(8, 8), output_shape=(None, 8))


class ZerosAfterEveryBatch(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        assert_zeros(self.model, 0.5)


@pytest.mark.skipif(not TORCH, reason="PyTorch")
@pytest.mark.parametrize("make", [torch_module, HoldsTorchModule, ReadsPastItsVariable])
def test_prune_masks_parameters_that_pytorch_reads(make, tmp_path):
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    inputs, layer = keras.Input((8,)), make()
    model = keras.Model(inputs, make()(layer(layer(inputs))))  # Two of a kind, one called twice in a step.
    expected = model(x)
    assert_same(kp.prune(model, HALF)(x), expected)
    kp.cut(model)
    model.compile(keras.optimizers.Adam(0.01), "mse")
    model.fit(x, x, epochs=2, verbose=0, callbacks=[ZerosAfterEveryBatch()])
    assert_masked(model, x)
    expected = array(model(x))
    if make is torch_module:
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras", safe_mode=False)
        assert_same(loaded(x), expected)
        assert_same(masks(loaded), masks(model))
    assert_same(kp.strip(model)(x), expected)
    model.fit(x, x, verbose=0)
    assert np.count_nonzero(array(model.layers[1].trainable_variables[0])) == 64  # Nothing holds a gradient back.


@pytest.mark.skipif(not TENSORFLOW, reason="in fit, JAX has no tensors in variables, and PyTorch is masked")
def test_training_warns_of_weights_read_past_their_variables():
    model = kp.prune(model_of(ReadsPastItsVariable, (8,)), HALF)
    kp.cut(model)
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.ones((2, 8), "float32")
    callback = kp.PruningCallback(kp.OneShot(), verbose=0)
    with pytest.warns(UserWarning, match=r"Training has moved pruned connections of .*/kernel, which layer"):
        model.fit(x, model(x) + 1, verbose=0, callbacks=[callback])
    assert_zeros(model, 0.5)


class HasAuxiliaryWeight(layers.Dense):
    """Uses a weight in training only, like an auxiliary head."""

    def build(self, shape):
        super().build(shape)
        self.auxiliary = self.add_weight(shape=self.kernel.shape, name="auxiliary")

    def call(self, inputs, training=False):
        return super().call(inputs) + (ops.matmul(inputs, self.auxiliary) if training else 0)


def test_training_does_not_warn_of_a_weight_that_a_call_leaves_out():
    model = kp.prune(model_of(lambda: HasAuxiliaryWeight(8), (8,)), HALF)
    kp.cut(model)
    model.compile("adam", "mse", run_eagerly=not JAX)
    x = np.ones((2, 8), "float32")
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="Training has moved")
        callback = kp.PruningCallback(kp.OneShot(), verbose=0)
        model.fit(x, x, validation_data=(x, x), epochs=2, verbose=0, callbacks=[callback])
    assert_zeros(model, 0.5)


def jax_layer():
    params = {"hidden": np.random.default_rng(0).normal(size=(8, 8)).astype("float32")}
    return layers.JaxLayer(lambda params, inputs: inputs @ params["hidden"], params=params)


def flax_layer():
    linen = pytest.importorskip("flax.linen")
    module = linen.Dense(8)
    return layers.FlaxLayer(module, variables=module.init(keras.random.SeedGenerator(0).next(), np.ones((1, 8))))


@pytest.mark.skipif(not JAX, reason="JAX")
@pytest.mark.parametrize("make", [jax_layer, flax_layer])
def test_prune_masks_parameters_of_jax_functions(make):
    x = np.random.default_rng(0).normal(size=(8, 8)).astype("float32")
    model = kp.prune(model_of(make, (8,)), HALF)
    assert len(kp.layers.pruned_weights(model)) == 1
    kp.cut(model)
    assert_masked(model, x)


IDS = np.array([[1, 2, 1], [0, 3, 1]])


def embedding_model(make=layers.Embedding):
    inputs = keras.Input((3,), dtype="int32")
    return keras.Model(inputs, make(9, 4, name="table")(inputs))


@pytest.mark.skipif(not TENSORFLOW, reason="only TensorFlow has sparse gradients")
def test_prune_keeps_gradients_of_embeddings_sparse():
    import tensorflow as tf

    model = kp.prune(embedding_model(), HALF)
    kp.cut(model)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(model(IDS))
    gradient = tape.gradient(loss, model.trainable_variables[0].value)
    assert isinstance(gradient, tf.IndexedSlices)
    assert_same(tf.convert_to_tensor(gradient)[1], 3 * masks(model)[0][1])


class DoubleEmbedding(layers.Embedding):
    """An embedding with a custom `call`."""

    def call(self, inputs):
        return ops.take(2 * self.embeddings, inputs, axis=0)


@pytest.mark.parametrize(("make", "by_row"), [(layers.Embedding, True), (DoubleEmbedding, False)])
def test_prune_masks_only_the_rows_that_an_embedding_reads(make, by_row, monkeypatch):
    model = kp.prune(embedding_model(make), HALF)
    kp.cut(model)
    expected = model(IDS)
    refill(model)
    read = []
    (weight,) = kp.layers.pruned_weights(model)
    masked = type(weight).masked
    monkeypatch.setattr(type(weight), "masked", lambda self: read.append(self) or masked(self))
    assert_same(model(IDS), expected)
    assert bool(read) != by_row


def test_prune_masks_reversed_embeddings():
    table = layers.ReversibleEmbedding(9, 4, name="table")
    inputs = keras.Input((3,), dtype="int32")
    model = kp.prune(keras.Model(inputs, table(table(inputs), reverse=True)), HALF)
    kp.cut(model)
    expected = model(IDS)
    refill(model)
    assert_same(model(IDS), expected)


@keras.saving.register_keras_serializable(package="test_layer_kinds")
class CellWithDropout(Cell):
    def __init__(self, units, **kwargs):
        super().__init__(units, **kwargs)
        self.drop = layers.Dropout(0.5, seed=1)

    def build(self, input_shape):
        super().build(input_shape)
        self.drop.build((input_shape[0], self.units))

    def call(self, inputs, states, training=None):
        output, states = super().call(inputs, states)
        return self.drop(output, training=training), states


@pytest.mark.skipif(JAX, reason="Keras cannot train a Dropout inside a recurrent cell on JAX")
@pytest.mark.parametrize("wrap", [kp.Prune, lambda layer: layer])
def test_prune_takes_cells_with_dropout(wrap):
    x = np.random.default_rng(0).normal(size=(8, 5, 3)).astype("float32")
    model = model_of(lambda: wrap(layers.RNN(CellWithDropout(4))), (5, 3))
    kp.cut(kp.prune(model, {".*": 0.5}))
    model.compile("adam", "mse", run_eagerly=False)  # The seed changes in the graph of the loop.
    train(model, x)
    assert_zeros(model, 0.5)
