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


@pytest.mark.filterwarnings(r"ignore:`build\(\)` was called on layer")  # By Keras, when it loads such a layer.
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


SEPARATE = {
    "dense": lambda: layers.Dense(4, "relu"),
    "einsum": lambda: layers.EinsumDense("abc,cd->abd", (None, 4), bias_axes="d"),
    "conv": lambda: layers.Conv1D(4, 3),
    "separable conv": lambda: layers.SeparableConv1D(4, 3),
    "gru": lambda: layers.GRU(4, unroll=True),
    "bidirectional": lambda: layers.Bidirectional(layers.LSTM(3, return_sequences=True)),
    "stacked cells": lambda: layers.RNN([layers.GRUCell(3), layers.LSTMCell(2)], unroll=True),
    "time distributed": lambda: layers.TimeDistributed(layers.Dense(4)),
}


@pytest.mark.parametrize("name", SEPARATE)
def test_a_layer_computes_the_same_bit_for_bit_until_the_first_cut(name):
    plain = SEPARATE[name]()
    expected = plain(SEQUENCES)
    assert_same(kp.Prune(plain)(SEQUENCES), expected)


@pytest.mark.parametrize("name", ["dense", "bidirectional"])
@pytest.mark.usefixtures("mixed_float16")
def test_mixed_precision_is_the_same_bit_for_bit_until_the_first_cut(name):
    plain = SEPARATE[name]()
    expected = plain(SEQUENCES)
    wrapped = kp.Prune(plain)
    assert_same(wrapped(SEQUENCES), expected)
    assert wrapped.compute_dtype == "float16"
    assert wrapped.layer.weights[0].dtype == "float32"


@pytest.mark.parametrize("name", SEPARATE)
def test_after_a_cut_a_layer_computes_with_zeros_in_place_of_what_was_cut(name):
    wrapped = kp.Prune(SEPARATE[name](), kp.TargetSparsity(0.5))
    wrapped.build(SEQUENCES.shape)
    wrapped.cut()
    outputs = wrapped(SEQUENCES)
    for weight in wrapped.pruned_weights:
        stored, mask = values([weight.variable.value, weight.mask.value])
        assert not stored[~mask].any()
        weight.variable.assign(np.where(mask, stored, 7.0))  # The mask, not the stored zero, is what counts.
    assert_same(wrapped(SEQUENCES), outputs)
    wrapped.apply_masks()
    assert_same(wrapped.layer(SEQUENCES), outputs)


def test_training_is_the_same_bit_for_bit_until_the_first_cut():
    plain = keras.Sequential([keras.Input((8,)), layers.Dense(6, "relu"), layers.Dense(3)])
    pruned = kp.prune(plain)
    for model in (plain, pruned):
        model.compile(keras.optimizers.SGD(0.1, momentum=0.9), "mse")
        model.fit(X, Y, epochs=2, batch_size=8, shuffle=False, verbose=0)
    assert_same([v.value for v in pruned.trainable_variables], [v.value for v in plain.trainable_variables])


def test_padding_masks_pass_through():
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    inputs = keras.Input((None,), dtype="int32")
    plain = keras.Model(inputs, layers.LSTM(4)(layers.Embedding(10, 8, mask_zero=True)(inputs)))
    pruned = kp.prune(plain)
    assert_same(pruned(tokens), plain(tokens))
    without_padding = values(pruned(tokens[:1, :2]))[0]
    np.testing.assert_allclose(values(pruned(tokens))[0][:1], without_padding, rtol=1e-5)


@pytest.mark.filterwarnings("ignore:Layer 'conv")
def test_a_layer_that_drops_padding_masks_still_does():
    inputs = keras.Input((5,), dtype="int32")
    hidden = layers.Conv1D(4, 2, name="conv")(layers.Embedding(10, 8, mask_zero=True)(inputs))
    plain = keras.Model(inputs, layers.GlobalAveragePooling1D()(hidden))  # Would average by the mask.
    tokens = np.array([[1, 2, 0, 0, 0], [3, 4, 5, 6, 0]])
    assert_same(kp.prune(plain)(tokens), plain(tokens))


def test_initial_states_and_masks_pass_through_as_keyword_arguments():
    first, second, mask = keras.Input((5, 8)), keras.Input((5, 8)), keras.Input((5,), dtype="bool")
    *_, hidden, cell = layers.LSTM(4, return_state=True, unroll=True)(first)
    plain = keras.Model(
        [first, second, mask], layers.LSTM(4, unroll=True)(second, initial_state=[hidden, cell], mask=mask)
    )
    arguments = [SEQUENCES, SEQUENCES + 1, np.array([[1, 1, 0, 0, 0], [1, 1, 1, 1, 0]], "bool")]
    assert_same(kp.prune(plain)(arguments), plain(arguments))


def test_the_training_argument_reaches_the_wrapped_layer():
    wrapped = kp.Prune(BlockWithoutBuild())
    wrapped(X, training=True)
    once = values(wrapped.layer.normalization.moving_mean.value)[0]
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
            [f"{side}_lstm/lstm_cell/{name}kernel" for side in ("forward", "backward") for name in ("", "recurrent_")],
        ),
    ],
)
def test_weights_are_connections_and_biases_are_not(layer, names):
    wrapped = kp.Prune(layer())
    wrapped.build((2, 5, 8))
    assert [weight.name for weight in wrapped.pruned_weights] == names


@pytest.mark.parametrize(
    "layer",
    [
        lambda: layers.ReLU(),  # noqa: PLW0108
        lambda: layers.PReLU(),  # noqa: PLW0108
        lambda: layers.LayerNormalization(axis=(1, 2)),
        lambda: layers.BatchNormalization(),  # noqa: PLW0108
    ],
)
def test_a_layer_without_connections_is_refused(layer):
    with pytest.raises(ValueError, match=r"no bias. Leave this one unwrapped. Received: layer="):
        kp.Prune(layer()).build((2, 5, 8))


@pytest.mark.parametrize(
    ("message", "make"),
    [
        (r"called on a tensor. Received: layer=", lambda: kp.Prune(ops.ones((2, 2)))),
        (r"called on a tensor. Received: layer=", lambda: kp.Prune(keras.Input((3,)))),
        (r"not pruned yet.*Received: layer=", lambda: kp.Prune(kp.Prune(layers.Dense(2)))),
        (r"keras_prune.prune\(model\).*Received: layer=", lambda: kp.Prune(keras.Sequential([layers.Dense(2)]))),
        (r"Received: criterion='magnitude'", lambda: kp.Prune(layers.Dense(2), "magnitude")),
        (r"in \[0, 1\]. Received: rate=1.5", lambda: kp.PrunedDropout(1.5)),
    ],
)
def test_bad_arguments_are_refused(message, make):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_cut_reports_what_it_did():
    wrapped = kp.Prune(layers.Dense(3), kp.TargetSparsity(0.75))
    wrapped.build((None, 8))
    (first,), (second,) = wrapped.cut(0.5), wrapped.cut(1.0)
    assert (first.cut, first.kept, second.cut, second.kept) == (9, 15, 9, 6)
    assert not first.rescued
    assert wrapped.connections == (6, 24)
    assert wrapped.density == 0.25
    (weight,) = wrapped.pruned_weights
    kernel, mask, threshold = values([weight.variable.value, weight.mask.value, weight.threshold.value])
    assert threshold == np.abs(kernel[mask]).min()
    assert values(wrapped.layer.bias.value)[0].shape == (3,)


def test_masks_thresholds_and_criterion_are_saved_whether_the_layer_is_frozen_or_not(tmp_path):
    model = keras.Sequential([keras.Input((8,)), kp.Prune(layers.Dense(3), kp.StdThreshold(0.7)), layers.Dense(2)])
    model.layers[0].cut()
    for trainable in (True, False):
        model.layers[0].trainable = trainable
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_same([v.value for v in loaded.variables], [v.value for v in model.variables])
        assert loaded.layers[0].criterion == kp.StdThreshold(0.7)
        assert_same(loaded(X), model(X))


def test_a_frozen_layer_has_the_connections_that_it_had_before(tmp_path):
    layer = layers.SpectralNormalization(layers.Dense(3))  # Keeps a vector of two dimensions that is not trained.
    model = keras.Sequential([keras.Input((8,)), kp.Prune(layer, kp.TargetSparsity(0.5)), layers.Dense(2)])
    model.layers[0].cut()
    model.trainable = False
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].connections == (12, 24)
    assert_same(loaded(X), model(X))


def test_pruned_dropout_does_nothing_outside_training():
    dropout = kp.PrunedDropout(0.5)
    assert_same(dropout(X), X)
    assert_same(kp.PrunedDropout(0.0)(X, training=True), X)


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_pruned_dropout_keeps_the_expectation(dtype):
    dropout = kp.PrunedDropout(0.6, seed=1, dtype=dtype)
    dropout.build((200, 50))
    dropout.follow(0.25)
    (dropped,) = values(dropout(np.ones((200, 50), dtype), training=True))
    assert dropped.dtype == dtype
    assert np.mean(dropped == 0) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(dropped[dropped > 0], 1 / 0.7, rtol=1e-3)


def test_pruned_dropout_drops_along_its_noise_shape():
    dropout = kp.PrunedDropout(0.5, noise_shape=(None, 1, 8), seed=1)
    (dropped,) = values(dropout(np.ones((4, 5, 8), "float32"), training=True))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert 0 < np.count_nonzero(dropped) < dropped.size


def test_pruned_dropout_goes_on_with_its_noise_and_rate_after_loading(tmp_path):
    model = keras.Sequential([keras.Input((8,)), kp.PrunedDropout(0.5, source="fc", seed=1)])
    model.layers[0].follow(0.09)
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[0].source == "fc"
    assert float(loaded.layers[0].current_rate) == pytest.approx(0.15)
    assert_same(loaded(X, training=True), model(X, training=True))


def test_layers_inside_a_wrapped_one_compute_in_a_dtype_of_their_own():
    policy = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        inner = layers.Bidirectional(layers.LSTM(4, dtype="float32"))
        model = keras.Sequential([keras.Input((6, 5)), inner, layers.Dense(3)])
    finally:
        keras.config.set_dtype_policy(policy)
    x = np.random.default_rng(0).normal(size=(8, 6, 5)).astype("float32")
    before, after = (ops.convert_to_numpy(ops.cast(one(x), "float32")) for one in (model, kp.prune(model)))
    np.testing.assert_array_equal(before, after)


def test_a_layer_whose_weights_were_changed_inside_says_to_strip_first():
    pruned = kp.prune(keras.Sequential([keras.Input((8,)), layers.Dense(4, name="fc")]))
    pruned.layers[0].layer.quantize("int8")
    with pytest.raises(ValueError, match=r"strip\(model\) before. Received: layer='fc'"):
        pruned(np.ones((1, 8)))


def test_a_dropout_of_everything_drops_everything():
    dropout = kp.PrunedDropout(1.0)
    assert not ops.convert_to_numpy(dropout(np.ones((4, 4)), training=True)).any()
