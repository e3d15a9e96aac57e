"""Pruned layers keep the outputs, state, losses and call arguments of plain layers."""

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, TORCH, array, arrays, assert_same, assert_zeros, criteria, density, kept, refill
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
SEQUENCES = np.random.default_rng(2).normal(size=(2, 5, 8)).astype("float32")


def test_prune_counts_the_losses_of_layers_once():
    inputs = keras.Input((8,))
    hidden = layers.Dense(6, activity_regularizer="l2", kernel_regularizer="l1")(inputs)
    model = keras.Model(inputs, layers.Dense(3)(layers.ActivityRegularization(l1=0.1)(hidden)))
    start, results = model.get_weights(), []
    for _ in range(2):
        model.set_weights(start)
        model.compile(keras.optimizers.SGD(0.1), "mse")
        losses = [model.evaluate(X, Y, verbose=0), model.train_on_batch(X, Y)]
        results.append((losses, model.get_weights()))
        kp.prune(model)
    assert results[1][0] == pytest.approx(results[0][0], rel=1e-6)
    assert_same(results[1][1], results[0][1])


class NoiseFromTheSharedSeed(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel) + keras.random.normal((2,))


def test_wrapper_draws_new_noise_at_each_call():
    layer = kp.Prune(NoiseFromTheSharedSeed())
    assert not np.array_equal(*arrays([layer(X), layer(X)]))


def test_wrapper_keeps_the_state_of_an_lstm():
    plain = layers.LSTM(3, stateful=True)
    plain.build(SEQUENCES.shape)
    pruned = kp.Prune(layers.LSTM.from_config(plain.get_config()))
    pruned.build(SEQUENCES.shape)
    for old, new in zip(plain.weights, pruned.layer.weights, strict=True):
        new.assign(old)
    for _ in range(3):
        assert_same(pruned(SEQUENCES), plain(SEQUENCES))


@pytest.mark.parametrize("regularizer", ["l1", "l2", "orthogonal_regularizer"])
def test_regularizers_ignore_pruned_connections(regularizer):
    pruned = kp.Prune(layers.Dense(8, kernel_regularizer=regularizer), kp.TargetSparsity(0.5))
    model = keras.Sequential([keras.Input((8,)), pruned])
    before = arrays(model.losses[0])[0]
    assert before == pytest.approx(arrays(pruned.layer.kernel_regularizer(pruned.layer.kernel.value))[0])
    kp.cut(pruned)
    model.compile(keras.optimizers.SGD(0.1), "mse")
    model.train_on_batch(X, np.zeros((16, 8)))
    assert_zeros(pruned, 0.5)
    assert np.count_nonzero(arrays(pruned.layer.kernel)[0]) == 32


def attention_model(**kwargs):
    inputs = keras.Input((5, 8))
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(query=inputs, value=inputs, **kwargs))


@pytest.mark.parametrize("kwargs", [{"return_attention_scores": True}, {"use_causal_mask": True}])
def test_prune_keeps_keyword_arguments_of_attention(kwargs):
    model = attention_model(**kwargs)
    expected = model(SEQUENCES)
    assert_same(kp.prune(model)(SEQUENCES), expected)


def test_prune_keeps_tensors_as_keyword_arguments():
    inputs, mask = keras.Input((5, 8)), keras.Input((5, 5), dtype="bool")
    attention = layers.MultiHeadAttention(2, 4)
    outputs = attention(inputs, inputs, attention_mask=mask, return_attention_scores=True)
    model = keras.Model([inputs, mask], outputs)
    arguments = [SEQUENCES, np.tril(np.ones((2, 5, 5), "bool"))]
    expected = model(arguments)
    assert_same(kp.prune(model)(arguments), expected)


class UncastMatmul(layers.Layer):
    def __init__(self):
        super().__init__(autocast=False)

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 2), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, ops.cast(self.kernel, inputs.dtype))


@pytest.mark.usefixtures("mixed_float16")
@pytest.mark.parametrize("wrap", [kp.Prune, lambda layer: layer])
def test_prune_leaves_inputs_uncast_without_autocast(wrap):
    plain = UncastMatmul()
    expected = keras.Sequential([keras.Input((8,)), plain])(X)
    model = kp.prune(keras.Sequential([keras.Input((8,)), wrap(plain)]))
    assert_same(model(X), expected)


@keras.saving.register_keras_serializable(package="test_wrappers")
class BlockWithoutBuild(layers.Layer):
    """A custom layer without `build`, whose inner layers create their weights in the first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(4)
        self.normalization = layers.BatchNormalization()

    def call(self, inputs, training=False):
        return self.normalization(self.inner(inputs), training=training)


@pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer")  # By Keras, when it loads such a layer.
@pytest.mark.parametrize("wrap", [kp.Prune, lambda layer: layer])
def test_prune_takes_layers_without_build(wrap, tmp_path):
    model = keras.Sequential([keras.Input((8,)), wrap(BlockWithoutBuild()), layers.Dense(3)])
    expected = model(X)
    kp.prune(model, kp.TargetSparsity(0.5))
    assert_same(model(X), expected)
    kp.cut(model)
    assert sum(kept(model)) < 32 + 12
    expected = model(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert kept(loaded) == kept(model)
    assert_same(loaded(X), expected)
    assert_same(kp.strip(model)(X), expected)


@keras.saving.register_keras_serializable(package="test_wrappers")
class TwoInputs(layers.Layer):
    def build(self, first_shape, second_shape):
        self.kernel = self.add_weight(shape=(first_shape[-1], second_shape[-1]), name="kernel")

    def call(self, first, second):
        return ops.matmul(first, self.kernel) + second


@keras.saving.register_keras_serializable(package="test_wrappers")
class TwoInputsWithoutBuild(layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(8)

    def call(self, first, second):
        return self.inner(first) + second


@pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer")  # By Keras, when it loads such a layer.
@pytest.mark.parametrize(
    ("make", "number"),
    [(lambda: layers.MultiHeadAttention(2, 4), 4), (TwoInputs, 1), (TwoInputsWithoutBuild, 1)],
)
@pytest.mark.parametrize("as_keyword", [False, True])
def test_wrapper_takes_unbuilt_layers_of_several_inputs(make, number, as_keyword, tmp_path):
    inputs = [keras.Input((5, 8)), keras.Input((5, 8))]
    layer, name = kp.Prune(make(), kp.TargetSparsity(0.5)), "value" if number == 4 else "second"
    outputs = layer(inputs[0], **{name: inputs[1]}) if as_keyword else layer(*inputs)
    model = keras.Model(inputs, outputs)
    kp.cut(model)
    assert len(kept(model)) == number
    assert density(model) == 0.5
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded([SEQUENCES, SEQUENCES]), model([SEQUENCES, SEQUENCES]))
    assert kept(loaded) == kept(model)


def test_wrapper_keeps_statistics_of_batch_normalization():
    results = []
    for wrap in (kp.Prune, lambda layer: layer):
        keras.utils.set_random_seed(0)
        block = BlockWithoutBuild()
        model = keras.Sequential([keras.Input((8,)), wrap(block), layers.Dense(3)])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        model.fit(X, Y, epochs=2, batch_size=8, shuffle=False, verbose=0)
        results.append(block.normalization.moving_mean)
    assert np.abs(arrays(results[0])[0]).max() > 0
    assert_same(*results)


WRAPPED = {
    "dense": lambda: layers.Dense(4, "relu"),
    "separable conv": lambda: layers.SeparableConv1D(4, 3),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
}


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapper_keeps_outputs_to_the_bit_until_a_cut(name):
    plain = WRAPPED[name]()
    expected = plain(SEQUENCES)
    assert_same(kp.Prune(plain)(SEQUENCES), expected)


@pytest.mark.skipif(not TORCH, reason="the other backends compute the same with and without gradients")
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapper_keeps_outputs_without_gradients(name):
    import torch

    layer = WRAPPED[name]()
    with torch.no_grad():
        expected = layer(SEQUENCES)
        assert_same(kp.Prune(layer)(SEQUENCES), expected)


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapper_computes_with_zeros_after_a_cut(name):
    wrapped = kp.Prune(WRAPPED[name](), kp.TargetSparsity(0.5))
    wrapped.build(SEQUENCES.shape)
    kp.cut(wrapped)
    outputs = wrapped(SEQUENCES)
    assert_zeros(wrapped)
    refill(wrapped)  # The mask, not the stored zero, is what counts.
    assert_same(wrapped(SEQUENCES), outputs)
    assert_same(wrapped.layer(SEQUENCES), outputs)
    kp.cut(wrapped, None)
    assert_zeros(wrapped)
    assert_same(wrapped(SEQUENCES), outputs)


def test_prune_passes_padding_masks_on():
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, layers.LSTM(4)(layers.Embedding(10, 8, mask_zero=True)(inputs)))
    expected = model(tokens)
    assert_same(kp.prune(model)(tokens), expected)
    without_padding = arrays(model(tokens[:1, :2]))[0]
    np.testing.assert_allclose(arrays(model(tokens))[0][:1], without_padding, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer 'conv")
def test_prune_drops_padding_masks_where_the_layer_does():
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.Conv1D(4, 2, name="conv")(layers.Embedding(10, 8, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))  # Would average by the mask.
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    expected = model(tokens)
    assert_same(kp.prune(model)(tokens), expected)


def test_prune_passes_initial_states_and_masks_on():
    first, second, mask = keras.Input((5, 8)), keras.Input((5, 8)), keras.Input((5,), dtype="bool")
    *_, hidden, cell = layers.LSTM(4, return_state=True, unroll=True)(first)
    model = keras.Model(
        [first, second, mask], layers.LSTM(4, unroll=True)(second, initial_state=[hidden, cell], mask=mask)
    )
    arguments = [SEQUENCES, SEQUENCES + 1, np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], "bool")]
    expected = model(arguments)
    assert_same(kp.prune(model)(arguments), expected)


def test_wrapper_passes_the_training_argument_on():
    wrapped = kp.Prune(BlockWithoutBuild())
    wrapped(X, training=True)
    once = arrays(wrapped.layer.normalization.moving_mean.value)[0]
    assert once.any()
    wrapped(X, training=False)
    assert_same(wrapped.layer.normalization.moving_mean.value, once)


@pytest.mark.parametrize(
    ("layer", "names"),
    [
        (lambda: layers.Dense(3), ["kernel"]),
        (lambda: layers.GRU(3), ["kernel", "recurrent_kernel"]),
        (lambda: layers.SeparableConv1D(3, 2), ["depthwise_kernel", "pointwise_kernel"]),
        (
            lambda: layers.Bidirectional(layers.LSTM(3, name="lstm")),
            ["kernel", "recurrent_kernel"] * 2,
        ),
    ],
)
def test_wrapper_prunes_kernels_and_not_biases(layer, names):
    wrapped = kp.Prune(layer())
    wrapped.build((2, 5, 8))
    assert [weight.name for weight in kp.layers.pruned_weights(wrapped)] == names


def test_cut_returns_counts():
    wrapped = kp.Prune(layers.Dense(3), kp.TargetSparsity(0.75))
    wrapped.build((None, 8))
    (first,), (second,) = kp.cut(wrapped, 0.5), kp.cut(wrapped)
    assert (first.cut, first.kept, second.cut, second.kept) == (9, 15, 9, 6)
    assert not first.rescued
    (weight,) = kp.layers.pruned_weights(wrapped)
    assert second.weight is weight
    assert (weight.kept, weight.size, weight.density, weight.frozen) == (6, 24, 0.25, False)
    kernel, mask, threshold = arrays([weight.variable, weight.mask, weight.threshold])
    assert threshold == np.abs(kernel[mask]).min()
    assert_same(weight.masked(), kernel)


def test_wrapper_saves_masks_and_criterion_frozen_or_not(tmp_path):
    model = keras.Sequential([keras.Input((8,)), kp.Prune(layers.Dense(3), kp.StdThreshold(0.7)), layers.Dense(2)])
    kp.cut(model)
    for trainable in (True, False):
        model.layers[0].trainable = trainable
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        (new,), (old,) = kp.layers.pruned_weights(loaded), kp.layers.pruned_weights(model)
        assert_same([new.variable, new.mask, new.threshold], [old.variable, old.mask, old.threshold])
        assert loaded.layers[0].criterion == new.criterion == kp.StdThreshold(0.7)
        assert_same(loaded(X), model(X))


def test_wrapper_loads_frozen_layers_with_their_masks(tmp_path):
    layer = layers.SpectralNormalization(layers.Dense(3))  # Keeps a vector of two dimensions that is not trained.
    model = keras.Sequential([keras.Input((8,)), kp.Prune(layer, kp.TargetSparsity(0.5)), layers.Dense(2)])
    kp.cut(model)
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert [(one.name, one.kept, one.size) for one in kp.layers.pruned_weights(loaded)] == [("kernel", 12, 24)]
    assert_same(loaded(X), model(X))


def test_wrapper_counts_zeros_as_pruned():
    layer = layers.Dense(3, name="fc")
    layer.build((None, 8))
    kernel = np.array(layer.kernel)
    kernel[0] = 0
    layer.kernel.assign(kernel)
    assert density(kp.Prune(layer)) == 0.875


def test_prune_keeps_criteria_of_wrappers_unless_named():
    half, most = kp.TargetSparsity(0.5), kp.TargetSparsity(0.9)
    wrapped = layers.TimeDistributed(kp.Prune(layers.Dense(4, name="inside"), half))
    model = keras.Sequential([keras.Input((5, 8)), wrapped, layers.Dense(3, name="head")])
    kp.prune(model, most)
    assert criteria(model) == {"inside/kernel": half, "head/kernel": most}
    kp.prune(model, {"inside": most})
    assert wrapped.layer.criterion == most


def test_strip_rebuilds_graphs_around_wrapped_layers():
    inner, head = layers.Dense(4, name="fc"), layers.Dense(3)
    model = keras.Sequential([keras.Input((8,)), kp.Prune(inner, kp.TargetSparsity(0.5)), head])
    model.compile("adam", "mse")
    kp.cut(model)
    expected = model(X)
    plain = kp.strip(model)
    assert (plain.layers[0], plain.layers[1], plain.optimizer) == (inner, head, model.optimizer)
    assert not kp.layers.pruned_weights(plain)
    assert_same(plain(X), expected)


@pytest.mark.filterwarnings("ignore:Layer InputLayer does not have a `quantize`")  # By Keras.
@pytest.mark.parametrize("name", ["quantize", "enable_lora"])
def test_pruned_layers_refuse_quantize_and_lora(name):
    pruned = kp.prune(keras.Sequential([keras.Input((8,)), layers.Dense(4, name="fc")], name="net"))
    wrapped = keras.Sequential([keras.Input((8,)), kp.Prune(layers.Dense(4, name="fc"))])
    for layer in (pruned.layers[0], wrapped.layers[0].layer):
        with pytest.raises(ValueError, match=rf"`{name}` replaces or fills pruned weights.*Received: Dense 'fc'"):
            getattr(layer, name)(2)
    if name == "quantize":
        with pytest.raises(ValueError, match="Received: Sequential 'net'"):
            pruned.quantize("int8")
        with pytest.raises(ValueError, match="Received: Dense 'fc'"):
            wrapped.quantize("int8")
    kp.strip(pruned).layers[0].enable_lora(2)


@pytest.mark.parametrize("layer", [layers.Dense(4, dtype="float8_from_float32"), layers.Dense(4, lora_rank=2)])
def test_wrapper_rejects_layers_that_cannot_have_masks(layer):
    with pytest.raises(ValueError, match=r"Leave this layer unwrapped, since (its weights are quantized|LoRA adds)"):
        kp.Prune(layer).build((None, 8))


STATEFUL = np.random.default_rng(3).normal(size=(4, 5, 3)).astype("float32")


class ResetsStates(keras.callbacks.Callback):
    """Resets states at each epoch, as users do for stateful layers."""

    def on_epoch_begin(self, epoch, logs=None):
        for layer in self.model.layers:
            if getattr(layer, "stateful", False):
                layer.reset_state()


@pytest.mark.parametrize("prune", [kp.prune, None])
def test_stateful_layers_are_reset_as_plain_ones(prune):
    def model(wrap):
        keras.utils.set_random_seed(0)
        rnn = wrap(layers.SimpleRNN(4, stateful=True, name="rnn"))  # PyTorch cannot train a stateful LSTM.
        return keras.Sequential([keras.Input(batch_shape=STATEFUL.shape), rnn, layers.Dense(2)])

    def train(model):
        model.compile(keras.optimizers.SGD(0.1), "mse", run_eagerly=TENSORFLOW)
        targets, callbacks = np.zeros((4, 2)), [ResetsStates()]
        return model.fit(STATEFUL, targets, epochs=2, batch_size=4, verbose=0, callbacks=callbacks).history["loss"]

    plain, pruned = model(lambda layer: layer), prune(model(lambda layer: layer)) if prune else model(kp.Prune)
    assert train(pruned) == pytest.approx(train(plain))
    first = array(pruned(STATEFUL))
    assert np.abs(array(pruned(STATEFUL)) - first).max() > 0
    pruned.layers[0].reset_states()
    plain.layers[0].reset_states()
    np.testing.assert_allclose(array(pruned(STATEFUL)), array(plain(STATEFUL)), rtol=1e-5)
    with pytest.raises(ValueError, match="expected ndim=3, found ndim=2"):
        pruned.layers[0](keras.Input((3,)))


def test_wrapper_has_the_input_spec_and_mask_of_its_layer():
    dense = kp.Prune(layers.Dense(4))
    dense(keras.Input((8,)))
    with pytest.raises(ValueError, match=r"expected axis -1 of input shape to have value 8"):
        dense(keras.Input((9,)))
    embedding = kp.Prune(layers.Embedding(10, 4, mask_zero=True))
    embedding.build((None, 3))
    np.testing.assert_array_equal(array(embedding.compute_mask(np.array([[1, 0, 2]]))), [[True, False, True]])


@pytest.mark.filterwarnings("ignore:Do not pass an `input_shape`")
def test_wrapper_around_a_first_layer_builds_a_sequential_model():
    model = keras.Sequential([kp.Prune(layers.Dense(3, input_shape=(8,)))])
    assert model.input_shape == (None, 8)
