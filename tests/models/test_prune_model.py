"""`prune` and `strip` change a model in place and keep its layers and outputs."""

import json
import os
import re
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
from helpers import (
    JAX,
    TENSORFLOW,
    array,
    assert_same,
    assert_zeros,
    calls_of,
    criteria,
    density,
    growth_of,
    kept,
    masks,
    refill,
)
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(16, 3)).astype("float32")
HALF, MOST = kp.TargetSparsity(0.5), kp.TargetSparsity(0.9)


def small_model(**first):
    return keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", name="hidden", **first),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(3, name="head"),
        ]
    )


def half_zero_model():
    model = small_model()
    kernel = array(model.layers[0].kernel).copy()
    kernel[:, ::2] = 0
    model.layers[0].kernel.assign(kernel)
    return model


class UnregisteredLayer(layers.Layer):
    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], 8), name="kernel")

    def call(self, inputs):
        return ops.matmul(inputs, self.kernel)


class UnregisteredCriterion(kp.Criterion):
    def select(self, weight, mask, strength):
        return ops.logical_and(mask, weight > 0), 0.0


def test_prune_takes_unregistered_layers_and_criteria():
    own = UnregisteredLayer(name="own")
    model = kp.prune(keras.Sequential([keras.Input((8,)), own, layers.Dense(3)]), UnregisteredCriterion())
    kp.cut(model)
    expected = model(X)
    assert (array(own.kernel) >= 0).all()
    assert kp.strip(model).layers[0] is own
    assert_same(model(X), expected)


def test_prune_and_strip_return_the_model_they_are_given():
    model = small_model()
    kind, parts, weights = type(model), list(model.layers), list(model.weights)
    assert kp.prune(model) is model
    assert isinstance(model, kind)
    assert kp.strip(model) is model
    assert type(model) is kind
    assert all(one is other for one, other in zip([*model.layers, *model.weights], [*parts, *weights], strict=True))


def test_prune_keeps_the_weights_that_a_model_lists():
    model = small_model()
    before = (model.count_params(), [variable.path for variable in model.weights], model.get_weights())
    kp.prune(model)
    assert (model.count_params(), [variable.path for variable in model.weights]) == before[:2]
    assert_same(model.get_weights(), before[2])


def test_strip_restores_regularizers():
    model = kp.prune(small_model(kernel_regularizer="l1"), HALF)
    kernel = model.get_layer("hidden").kernel
    assert type(kernel.regularizer) is not keras.regularizers.L1
    kp.cut(model)
    assert kp.strip(model).get_layer("hidden").kernel.regularizer is model.get_layer("hidden").kernel_regularizer


def mean_square(truth, prediction):
    return ops.mean(ops.square(truth - prediction))


def test_stripped_models_load_their_optimizer_without_a_warning(tmp_path):
    model = kp.prune(keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), 0.5)
    model.compile("adam", "mse", run_eagerly=TENSORFLOW)
    model.fit(np.ones((4, 4)), np.ones((4, 3)), verbose=0, callbacks=[kp.PruningCallback(verbose=0)])
    kp.strip(model).save(tmp_path / "model.keras")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded.optimizer.variables, [array(one) for one in model.optimizer.variables])


def test_prune_keeps_models_compiled_with_their_optimizer():
    model = small_model()
    model.compile(keras.optimizers.Adam(0.01), mean_square, metrics=["mae"], run_eagerly=TENSORFLOW)
    model.fit(X, Y, verbose=0)
    optimizer, slots = model.optimizer, [array(one) for one in model.optimizer.variables]
    expected = model.evaluate(X, Y, verbose=0)
    for change in (kp.prune, kp.strip):
        change(model)
        assert model.optimizer is optimizer
        assert_same(optimizer.variables, slots)
        assert model.evaluate(X, Y, verbose=0) == pytest.approx(expected)
    kp.prune(model, HALF)
    model.fit(X, Y, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(), verbose=0)])
    assert_zeros(model, 0.5)
    assert int(optimizer.iterations) == 2


def test_prune_masks_models_that_have_been_trained():
    model = small_model()
    model.compile("sgd", "mse", run_eagerly=False)
    model.fit(X, Y, verbose=0)
    model.predict(X, verbose=0)
    kp.cut(kp.prune(model, HALF))
    expected = model.predict(X, verbose=0)
    refill(model)
    np.testing.assert_allclose(model.predict(X, verbose=0), expected, rtol=1e-6)
    model.fit(X, Y, epochs=2, verbose=0)
    kp.cut(model, None)
    assert_zeros(model, 0.5)


def lambda_and_operations():
    inputs = keras.Input((8,))
    hidden = ops.relu(layers.Dense(4)(inputs) * 2 + 1)
    return keras.Model(inputs, layers.Dense(3)(layers.Lambda(lambda x: x * 3, output_shape=(4,))(hidden))), X


def branches():
    left, right = keras.Input((8,), name="left"), keras.Input((8,), name="right")
    both = layers.Concatenate()([layers.Dense(4, "relu")(left), layers.Dense(4)(right)])
    return keras.Model({"left": left, "right": right}, {"sum": layers.Dense(2)(both), "own": both}), {
        "left": X,
        "right": -X,
    }


def nested():
    inner = keras.Sequential([layers.Dense(8, "relu"), layers.Dropout(0.5)], name="inner")
    inputs = keras.Input((8,))
    outer = keras.Model(inputs, inner(inner(inputs)), name="outer")
    whole = keras.Input((8,))
    return keras.Model(whole, layers.Dense(3)(outer(whole))), X


def convolutions():
    images = np.random.default_rng(2).normal(size=(2, 8, 8, 3)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            layers.Conv2D(4, 3, use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.DepthwiseConv2D(2),
            layers.Flatten(),
            layers.Dropout(0.5),
            layers.Dense(3),
        ]
    )
    return model, images


def adapted_normalization():
    normalization = layers.Normalization()
    normalization.adapt(X * 5 + 3)
    return keras.Sequential([keras.Input((8,)), normalization, layers.Dense(3)]), X


@pytest.mark.parametrize(
    "make",
    [lambda_and_operations, branches, nested, convolutions, adapted_normalization],
)
def test_prune_and_strip_keep_outputs_to_the_bit(make, tmp_path):
    model, data = make()
    config, expected = model.get_config(), model(data)
    assert_same(kp.prune(model, HALF)(data), expected)
    assert_same(kp.strip(model)(data), expected)
    assert model.get_config() == config
    kp.cut(kp.prune(model, HALF))
    assert_zeros(model, 0.5)
    expected = model(data)
    if make is not lambda_and_operations:  # Keras loads no Lambda in safe mode.
        model.save(tmp_path / "model.keras")
        loaded = keras.models.load_model(tmp_path / "model.keras")
        assert_same(loaded(data), expected)
        assert_same(masks(loaded), masks(model))
        assert_same(kp.strip(loaded)(data), expected)
    assert_same(kp.strip(model)(data), expected)
    assert model.get_config() == config


def test_strip_leaves_plain_layers_with_zeros():
    model = kp.prune(small_model(), kp.TargetSparsity(0.75))
    kp.cut(model)
    outputs = model(X)
    refill(model)  # Weights that an optimizer has moved since the cut.
    kp.strip(model)
    assert [type(layer) for layer in model.layers] == [layers.Dense, layers.Dropout, layers.Dense]
    assert [np.count_nonzero(array(layer.kernel)) for layer in model.layers[::2]] == [32, 12]
    assert_same(model(X), outputs)
    assert not kp.layers.pruned_weights(model)
    assert not any(hasattr(layer, "pruning") or "call" in vars(layer) for layer in model.layers)
    assert "keras_prune" not in str(keras.saving.serialize_keras_object(model))


def test_strip_leaves_plain_models_as_they_are():
    model = small_model()
    expected = model(X)
    assert kp.strip(model) is model
    assert_same(model(X), expected)


@pytest.mark.parametrize(
    ("criterion", "expected"),
    [
        (None, {"hidden": kp.StdThreshold(1.0), "head": kp.StdThreshold(1.0)}),
        (HALF, {"hidden": HALF, "head": HALF}),
        ({"hidden": HALF, ".*": MOST}, {"hidden": HALF, "head": MOST}),
        ({"h.*": HALF, "he.*": MOST}, {"hidden": HALF, "head": HALF}),
        ({"h.*": HALF, "head": MOST}, {"hidden": HALF, "head": MOST}),
        ({"head": MOST}, {"head": MOST}),
        ({"head": None, "hidden": HALF}, {"hidden": HALF}),
        ({"hidden": 0.5, "head": 0.9}, {"hidden": HALF, "head": MOST}),
        ({"hidden": HALF, "head/kernel": MOST}, {"hidden": HALF, "head": MOST}),
        ({".*": HALF, "head/kernel": None}, {"hidden": HALF}),
        ({"net/hidden": HALF, "net/.*": MOST}, {"hidden": HALF, "head": MOST}),
        (lambda layer: MOST if layer.units == 3 else None, {"head": MOST}),
        (lambda layer: 0.9 if layer.units == 3 else None, {"head": MOST}),
    ],
)
def test_prune_takes_a_criterion_a_mapping_or_a_callable(criterion, expected):
    inputs = keras.Input((8,))
    hidden = layers.Dense(16, name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden), name="net")
    assert criteria(kp.prune(model, criterion)) == {f"{name}/kernel": one for name, one in expected.items()}


def test_mapping_names_layers_by_those_around_them():
    inputs = keras.Input((5, 8))
    tower = keras.Sequential([keras.Input((5, 8)), layers.Dense(8, name="inside")], name="tower")
    hidden = layers.Bidirectional(layers.LSTM(4, name="lstm"), name="both")(tower(inputs))
    model = keras.Model(inputs, layers.Dense(3, name="head")(hidden))
    kp.prune(model, {"tower": 0.1, ".*forward_lstm/.*/recurrent_kernel": 0.2, "both": 0.3})
    assert [weight.criterion.sparsity for weight in kp.layers.pruned_weights(model)] == [0.1, 0.3, 0.2, 0.3, 0.3]


def test_prune_again_keeps_masks_and_replaces_criteria():
    model = kp.prune(small_model(), {"hidden": HALF})
    kp.cut(model)
    before, outputs, (mask,) = model.get_weights(), model(X), masks(model)
    kp.prune(model, MOST)
    assert criteria(model) == {"hidden/kernel": MOST, "head/kernel": MOST}
    assert_same(masks(model)[0], mask)
    assert_same(model.get_weights(), before)
    assert_same(model(X), outputs)
    kp.prune(model, {"hid.*": HALF})
    assert criteria(model) == {"hidden/kernel": HALF, "head/kernel": MOST}
    kp.cut(model)
    assert kept(model) == [64, 5]


def test_prune_leaves_frozen_layers_alone():
    model = small_model()
    model.get_layer("hidden").trainable = False
    kp.prune(model)
    assert list(criteria(model)) == ["head/kernel"]
    assert kp.report(model).skipped["hidden"] == "its weights are not trainable"
    assert not model.get_layer("hidden").trainable
    model.get_layer("hidden").trainable = True
    assert list(criteria(kp.prune(model))) == ["hidden/kernel", "head/kernel"]


def test_masks_of_a_layer_frozen_after_prune_stay(tmp_path):
    model = kp.prune(small_model(), HALF)
    kp.cut(model)
    model.get_layer("hidden").trainable = False
    refill(model)
    kp.prune(model, MOST)
    kp.cut(model)
    assert kept(model) == [64, 5]
    expected = model(X)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(X), expected)
    assert (kept(loaded), loaded.get_layer("hidden").trainable) == ([64, 5], False)
    assert_zeros(loaded)


def test_prune_takes_an_inner_model_once_it_is_unfrozen():
    inputs = keras.Input((4,))
    backbone = keras.Model(inputs, layers.Dense(6, name="hidden")(inputs), name="backbone")
    backbone.trainable = False
    inputs = keras.Input((4,))
    model = kp.prune(keras.Model(inputs, layers.Dense(2, name="head")(backbone(inputs))))
    assert not backbone.trainable
    assert len(model.trainable_variables) == 2
    assert list(criteria(model)) == ["head/kernel"]

    backbone.trainable = True
    assert len(model.trainable_variables) == 4
    kp.prune(model)
    assert list(criteria(model)) == ["hidden/kernel", "head/kernel"]
    assert kp.report(model).skipped == {}


def test_prune_keeps_masks_of_a_pruned_backbone():
    inputs = keras.Input((8,))
    backbone = keras.Model(inputs, layers.Dense(6, "relu", name="hidden")(inputs), name="backbone")
    kp.cut(kp.prune(backbone, HALF))
    inputs = keras.Input((8,))
    task = keras.Model(inputs, layers.Dense(3, name="head")(backbone(inputs)))
    kp.prune(task, {"head": MOST})
    assert criteria(task) == {"hidden/kernel": HALF, "head/kernel": MOST}
    assert kept(task) == [24, 18]
    task.compile("adam", "mse", run_eagerly=TENSORFLOW)
    task.fit(X, Y, epochs=2, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(), verbose=0)])
    assert kept(task) == [24, 2]
    assert_zeros(task)
    kp.strip(task)
    assert not kp.layers.pruned_weights(backbone)


def test_prune_counts_zeros_as_pruned_by_default(capsys):
    model = kp.prune(half_zero_model(), HALF)
    assert kept(model) == [64, 48]
    assert "prune: 64 of 176 connections are zero and count as pruned. Pass keep_zeros=False" in capsys.readouterr().out
    model = kp.prune(half_zero_model(), HALF, keep_zeros=False)
    assert kept(model) == [128, 48]
    assert capsys.readouterr().out == ""


def test_prune_after_strip_restores_the_masks():
    model = kp.prune(small_model(), HALF)
    kp.cut(model)
    expected, before = model(X), masks(model)
    assert_same(masks(kp.prune(kp.strip(model), MOST)), before)
    assert_same(model(X), expected)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ({"kernel_initializer": "zeros"}, "all its entries are zero"),
        ({"kernel_constraint": "non_neg"}, "its constraint NonNeg makes zeros"),
        ({"kernel_initializer": "identity"}, "its initializer Identity makes zeros"),
    ],
)
def test_prune_does_not_count_zeros_that_are_not_cuts(arguments, reason, capsys):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="fc", **arguments)])
    kernel = array(model.layers[0].kernel).copy()
    kernel[0] = 0
    model.layers[0].kernel.assign(kernel)
    assert density(kp.prune(model)) == 1
    printed = capsys.readouterr().out
    assert printed == f"prune: the zeros of {model.layers[0].kernel.path} do not count as pruned, since {reason}.\n"


class Subclassed(keras.Model):
    def __init__(self, head):
        super().__init__()
        self.body, self.head = layers.Dense(8, "relu", name="body"), head

    def call(self, inputs):
        return self.head(self.body(inputs))


UNBUILT = {
    "sequential": lambda: keras.Sequential([layers.Dense(8, name="body"), layers.Dropout(0.2), layers.Dense(3)]),
    "subclassed": lambda: Subclassed(layers.Dense(3)),
    "nested": lambda: Subclassed(keras.Sequential([layers.Dense(8), layers.Dense(3)])),
}


@pytest.mark.parametrize("name", UNBUILT)
def test_prune_gives_unbuilt_models_masks_when_built(name):
    keras.utils.set_random_seed(1)
    expected = UNBUILT[name]()(X)
    keras.utils.set_random_seed(1)
    model = kp.prune(UNBUILT[name](), HALF)
    assert not kp.layers.pruned_weights(model)
    assert_same(model(X), expected)
    assert {one.criterion for one in kp.layers.pruned_weights(model)} == {HALF}
    kp.cut(model)
    assert_zeros(model, 0.5)
    outputs = model(X)
    refill(model)
    assert_same(model(X), outputs)


@pytest.mark.skipif(TENSORFLOW, reason="on TensorFlow, fit does not build a model before it begins")
@pytest.mark.parametrize("name", ["sequential", "nested"])
def test_fit_prunes_unbuilt_models(name):
    model = kp.prune(UNBUILT[name](), HALF)
    model.compile("adam", "mse")
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(start=1), verbose=0)])
    assert_zeros(model, 0.5)


READER = """
import sys
sys.modules["keras_prune"] = None  # Not installed where the model is served.
import keras, numpy
model = keras.models.load_model(sys.argv[1])
numpy.save(sys.argv[2], keras.ops.convert_to_numpy(model(numpy.ones((2, 8), "float32"))))
"""


def test_stripped_model_loads_without_keras_prune(tmp_path):
    model = kp.prune(small_model(), HALF)
    kp.cut(model)
    kp.strip(model).save(tmp_path / "model.keras")
    paths = [str(tmp_path / name) for name in ("model.keras", "outputs.npy")]
    subprocess.run(
        [sys.executable, "-c", READER, *paths], check=True, env={**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    )
    np.testing.assert_allclose(np.load(paths[1]), array(model(np.ones((2, 8), "float32"))), rtol=1e-6)


def called_twice():
    inputs, dense = keras.Input((8,)), layers.Dense(8, "tanh", name="tied")
    return keras.Model(inputs, layers.Dense(3)(dense(dense(inputs)))), X, Y


TOKENS = np.random.default_rng(3).integers(0, 9, size=(16, 5))
ONE_HOT = np.eye(9, dtype="float32")[TOKENS]


def embedding_in_a_graph():
    inputs, embedding = keras.Input((5,), dtype="int32"), layers.Embedding(9, 4, name="tied")
    scores = layers.Dense(9, "softmax")(embedding(inputs))
    return keras.Model(inputs, ops.matmul(scores, embedding.embeddings)), TOKENS, ONE_HOT[:, :, :4]


def embedding_in_a_call():
    class Language(keras.Model):
        def __init__(self):
            super().__init__()
            self.embedding, self.hidden = layers.Embedding(9, 4, name="tied"), layers.Dense(4, "tanh")

        def call(self, inputs):
            return ops.matmul(self.hidden(self.embedding(inputs)), ops.transpose(self.embedding.embeddings))

    model = Language()
    model(TOKENS)
    return model, TOKENS, ONE_HOT


def tied_layer():
    class Tied(layers.Layer):
        """Multiplies by the table of an embedding."""

        def __init__(self, embedding, **kwargs):
            super().__init__(**kwargs)
            self.embedding = embedding

        def call(self, inputs):
            return ops.matmul(inputs, ops.transpose(self.embedding.embeddings))

    inputs, embedding = keras.Input((5,), dtype="int32"), layers.Embedding(9, 4, name="tied")
    return (
        keras.Model(inputs, Tied(embedding, name="head")(layers.Dense(4, "tanh")(embedding(inputs)))),
        TOKENS,
        ONE_HOT,
    )


class ZerosAfterEveryBatch(keras.callbacks.Callback):
    """Asserts that pruned weights are zero, and counts the batches after the cut."""

    seen = 0

    def on_train_batch_end(self, batch, logs=None):
        if JAX:
            self.model.jax_state_sync()
        assert_zeros(self.model)
        self.seen += density(self.model) < 1


@pytest.mark.parametrize("make", [called_twice, embedding_in_a_graph, embedding_in_a_call, tied_layer])
def test_tied_weights_have_one_mask_and_exact_zeros(make):
    model, x, y = make()
    expected = model(x)
    kp.prune(model, HALF)
    assert_same(model(x), expected)
    assert len({id(weight.variable) for weight in kp.layers.pruned_weights(model)}) == len(masks(model)) == 2
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=JAX, run_eagerly=False)
    probe = ZerosAfterEveryBatch()
    callbacks = [kp.PruningCallback(kp.OneShot(start=2, unit="step"), verbose=0), probe]
    model.fit(x, y, batch_size=4, epochs=2, shuffle=False, verbose=0, callbacks=callbacks)
    assert probe.seen == 6
    assert density(model) == 0.5
    outputs = model(x)
    refill(model)  # Every read of the weight is masked.
    assert_same(model(x), outputs)


@pytest.mark.parametrize("criterion", [kp.StdThreshold(2.0), lambda layer: kp.StdThreshold(2.0)])
@pytest.mark.parametrize("inputs", [[keras.Input((8,))], []])
def test_prune_warns_if_wrappers_keep_their_criteria(criterion, inputs):
    model = keras.Sequential([*inputs, kp.Prune(layers.Dense(4), HALF), layers.Dense(3)])
    with pytest.warns(UserWarning, match=r"keep their own criteria: \['dense.*Received: criterion="):
        kp.prune(model, criterion)
    model(X)
    assert list(criteria(model).values()) == [HALF, kp.StdThreshold(2.0)]


def test_strip_warns_if_nothing_was_pruned():
    with pytest.warns(UserWarning, match="none of its connections was ever pruned"):
        kp.strip(kp.prune(small_model()))


def test_fit_warns_if_nothing_prunes_the_model():
    model = kp.prune(small_model(), HALF)
    model.compile("sgd", "mse", run_eagerly=not JAX)

    def messages(*callbacks):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(X, Y, verbose=0, callbacks=list(callbacks))
        return [str(one.message) for one in caught if "has trained the dense model" in str(one.message)]

    assert len(messages()) == 1
    assert messages(kp.PruningCallback(kp.OneShot(start=2))) == []  # The callback has warned that there is no cut.
    assert messages(keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: kp.cut(model))) == []
    assert messages() == []  # Retraining after a cut.


EXPECTED_MASKS = [
    (kp.RandomSparsity(0.7, seed=3), "208304904696 208364"),
    (kp.StdThreshold(0.8), "1504ba22f42e 084f48"),
    (kp.TargetSparsity(0.5, kp.Blocks((2, 2))), "000ffff3c30c cccccc"),
    (kp.TargetSparsity(0.5, kp.NOfM(2, 4)), "1589fa23742f 186fcc"),
    (kp.budgets.CommonQuality(3), "1504ba22a42c 084e48"),
]


@pytest.mark.parametrize(("criterion", "expected"), EXPECTED_MASKS)
def test_cuts_of_equal_weights_are_equal_on_every_backend(criterion, expected):
    random = np.random.default_rng(7)
    model = keras.Sequential([keras.Input((8,)), layers.Dense(6), layers.Dense(4)])
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    kp.prune(model, criterion)
    kp.cut(model, 0.5)
    kp.cut(model)
    assert " ".join(np.packbits(mask).tobytes().hex() for mask in masks(model)) == expected


def test_layers_of_a_pruned_model_list_plain_weights():
    def model(wrap):
        return keras.Sequential(
            [keras.Input((8,)), wrap(layers.Dense(6, name="fc")), layers.Dropout(0.5), layers.Dense(3)]
        )

    def numbers(model):
        lines = []
        model.summary(print_fn=lambda line, **_: lines.append(line))
        totals = [line for line in "\n".join(lines).splitlines() if "params" in line]
        of_layers = [(layer.count_params(), [w.shape for w in layer.get_weights()]) for layer in model.layers]
        return totals, of_layers, model.count_params()

    expected = numbers(model(lambda layer: layer))
    pruned = kp.prune(model(lambda layer: layer), HALF)
    kp.cut(pruned)
    assert numbers(pruned) == expected
    assert numbers(model(kp.Prune)) == expected
    kernel = array(pruned.layers[0].kernel)
    pruned.layers[0].set_weights(pruned.layers[0].get_weights())
    assert_same(pruned.layers[0].get_weights()[0], kernel)


def test_tensorboard_draws_the_weights_of_a_pruned_model(tmp_path):
    pytest.importorskip("tensorboard")
    pytest.importorskip("tensorflow")
    model = kp.prune(small_model(), HALF)
    model.compile("adam", "mse", run_eagerly=TENSORFLOW)
    board = keras.callbacks.TensorBoard(tmp_path, histogram_freq=1, write_graph=False, write_images=True)
    model.fit(X, Y, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(), verbose=0), board])
    assert list(tmp_path.glob("train/*"))
    assert_zeros(model, 0.5)


def encoder_with_attention():
    inputs = keras.Input((5, 8))
    encoder = keras.Sequential([keras.Input((5, 8)), layers.LSTM(8, return_sequences=True, name="rnn")], name="encoder")
    hidden = encoder(inputs)
    attended = layers.MultiHeadAttention(2, 4, name="attention")(hidden, hidden)
    return keras.Model(inputs, layers.Dense(3, name="head")(attended), name="net")


PATHS_READER = """
import json, sys
import keras, keras_prune as kp
for path in sys.argv[1:]:
    weights = kp.layers.pruned_weights(keras.models.load_model(path))
    print(json.dumps([[f"{one.layer.name}/{one.name}", one.criterion.sparsity] for one in weights]))
"""


def test_mapping_names_single_weights_and_inner_layers(tmp_path):
    named = [
        ({"encoder/.*/recurrent_kernel": 0.9}, [["lstm_cell/recurrent_kernel", 0.9]]),
        ({"attention/query": 0.9}, [["query/kernel", 0.9]]),
        (
            {"attention/query/kernel": 0.9, "attention": 0.5, "attention/value": None},
            [["query/kernel", 0.9], ["key/kernel", 0.5], ["attention_output/kernel", 0.5]],
        ),
    ]
    paths = [str(tmp_path / f"{number}.keras") for number in range(len(named))]
    for (criterion, expected), path in zip(named, paths, strict=True):
        model = kp.prune(encoder_with_attention(), criterion)
        assert criteria(model) == {name: kp.TargetSparsity(sparsity) for name, sparsity in expected}
        kp.cut(model)
        assert_zeros(model)
        model.save(path)
    command = [sys.executable, "-c", PATHS_READER, *paths]
    environment = {**os.environ, "KERAS_BACKEND": keras.backend.backend()}
    printed = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
    assert [json.loads(line) for line in printed.splitlines()] == [expected for _, expected in named]


class HoldsItself(keras.Model):
    """A model with a list that is an item of itself."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3, name="fc")
        self.everything = [self.dense]
        self.everything.append(self.everything)

    def call(self, inputs):
        return self.dense(inputs)


def test_prune_takes_models_with_a_list_that_holds_itself():
    model = HoldsItself()
    expected = model(X)
    assert_same(kp.prune(model, HALF)(X), expected)
    kp.cut(model)
    assert kp.report(model).density == 0.5
    assert not kp.layers.pruned_weights(kp.strip(model))


def test_zeros_of_plain_models_count_in_every_function():
    model = half_zero_model()
    assert kp.report(model).kept == 64 + 48
    # 112 of 176 are left, half of 176 are wanted: the zeros are the first to go.
    shares = kp.budgets.shares(model, kp.budgets.Uniform(2))
    assert shares == {"hidden": HALF, "head": HALF}
    (hidden, head) = kp.cut(kp.prune(model, shares))
    assert (hidden.cut, hidden.kept, head.cut, head.kept) == (0, 64, 24, 24)
    model = half_zero_model()
    kernel = array(model.layers[0].kernel)[:, 1::2]
    (hidden, _) = kp.cut(kp.prune(model, kp.StdThreshold(1.0)))
    left = np.abs(kernel) >= kernel[kernel != 0].std()  # The zeros are not in the standard deviation.
    assert hidden.kept == left.sum()


def test_prune_by_names_of_all_layers_takes_linear_time():
    def calls(number):
        model = keras.Sequential([keras.Input((2,)), *(layers.Dense(2, name=f"fc-{i}") for i in range(number))])
        criteria = {re.escape(layer.name): kp.TargetSparsity(0.5) for layer in model.layers}
        return calls_of(lambda: kp.prune(model, criteria))

    calls(1)  # Compilation in the first call does not count.
    assert growth_of([calls(number) for number in (8, 16, 32)]) < 1.02
