"""Files, copies and checkpoints of pruned models of any class keep masks and criteria."""

import copy
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from helpers import JAX, TENSORFLOW, array, assert_same, assert_zeros, criteria, kept, masks, refill
from keras import layers, ops

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 6)).astype("float32")
HALF = kp.TargetSparsity(0.5)
register = keras.saving.register_keras_serializable(package="test_record")


@register
class Block(layers.Layer):
    """A layer that creates layers and a weight in `build`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.inner = layers.Dense(self.units, "relu", name="inner")
        self.inner.build(input_shape)
        self.mix = self.add_weight(shape=(self.units, self.units), name="mix")

    def call(self, inputs):
        return ops.matmul(self.inner(inputs), self.mix)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Network(keras.Model):
    """Layers in attributes, lists, tuples and dicts, shared layers, nested models, and layers created in `build`."""

    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.first = layers.Dense(units, "relu", name="first")
        self.shared = self.first
        self.blocks = [Block(units, name=f"block_{i}") for i in range(2)]
        self.pair = (layers.LayerNormalization(name="norm"), layers.Dense(units, name="in_tuple"))
        self.heads = {"left": layers.Dense(3, name="left"), "more": [layers.Dense(3, name="right")]}
        self.tower = keras.Sequential(
            [layers.Dense(units, "relu", name="in_tower"), layers.Dropout(0.5, name="tower_drop")], name="tower"
        )
        self.drop = layers.Dropout(0.1, seed=1, name="drop")
        self.tracker = keras.metrics.Mean(name="tracker")

    def build(self, input_shape):
        hidden = (input_shape[0], self.units)
        self.late = [layers.Dense(self.units, name="late")]
        self.first.build(input_shape)
        for layer in (*self.blocks, *self.pair, *self.late, self.tower, self.heads["left"], self.heads["more"][0]):
            layer.build(hidden)
        self.scale = self.add_weight(shape=(self.units,), initializer="ones", name="scale")

    def call(self, inputs, training=False):
        hidden = self.first(inputs)
        for layer in (*self.blocks, *self.pair, *self.late):
            hidden = layer(hidden)
        hidden = self.drop(self.tower(hidden, training=training) * self.scale, training=training)
        return ops.concatenate([self.heads["left"](hidden), self.heads["more"][0](hidden)], axis=-1)


@register
class Autoencoder(keras.Model):
    """Consists of two models. Its training step never calls the model as a whole."""

    def __init__(self, encoder, decoder, **kwargs):
        super().__init__(**kwargs)
        self.encoder, self.decoder = encoder, decoder

    def call(self, inputs):
        return self.decoder(self.encoder(inputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((self.decoder(self.encoder(x, training=training)) - x) ** 2)

    def get_config(self):
        models = (keras.saving.serialize_keras_object(model) for model in (self.encoder, self.decoder))
        return {**super(keras.Model, self).get_config(), **dict(zip(("encoder", "decoder"), models, strict=True))}

    @classmethod
    def from_config(cls, config):
        encoder, decoder = (keras.saving.deserialize_keras_object(config.pop(name)) for name in ("encoder", "decoder"))
        return cls(encoder, decoder, name=config["name"])


def mlp(outputs, name):
    return keras.Sequential(
        [
            keras.Input((6 if name == "encoder" else 2,)),
            layers.Dense(10, "relu", name=f"{name}_1"),
            layers.Dropout(0.4, name=f"{name}_drop"),
            layers.Dense(outputs, name=f"{name}_2"),
        ],
        name=name,
    )


def autoencoder():
    return Autoencoder(mlp(2, "encoder"), mlp(6, "decoder"))


def inside_a_functional_model():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(6, name="head")(Network(name="inner")(inputs)))


MODELS = {"network": Network, "autoencoder": autoencoder, "functional": inside_a_functional_model}
CONNECTIONS = {"network": 48 + 4 * 64 + 3 * 64 + 2 * 24, "autoencoder": 160, "functional": 48 + 7 * 64 + 48 + 36}


def built(name):
    model = MODELS[name]()
    model(X)
    # A few steps take TensorFlow less time than compiling them would.
    model.compile("adam", "mse", jit_compile=JAX, run_eagerly=TENSORFLOW)
    model.fit(X, Y, verbose=0)
    return model


def trained(model):
    callback = kp.PruningCallback(kp.OneShot(start=1), verbose=0)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    return model


def sequential():
    fc, head = layers.Dense(8, "relu", name="fc"), layers.Dense(6, name="head")
    return keras.Sequential([keras.Input((6,)), fc, head], name="net")


def cut_model(criterion=HALF):
    model = kp.prune(sequential(), criterion)
    kp.cut(model)
    return model


@pytest.mark.parametrize("name", MODELS)
def test_models_of_any_class_are_pruned_saved_and_stripped(name, tmp_path):
    model = built(name)
    kind, before = type(model), array(model(X))
    kp.prune(model, HALF)
    assert isinstance(model, kind)
    assert_same(model(X), before)
    assert sum(weight.size for weight in kp.layers.pruned_weights(model)) == CONNECTIONS[name]
    trained(model)
    assert_zeros(model, 0.5)
    expected = array(model(X))
    model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    assert isinstance(loaded, kind)
    assert_same(loaded(X), expected)
    assert_same(masks(loaded), masks(model))
    assert criteria(loaded) == criteria(model)
    loaded.fit(X, Y, epochs=2, verbose=0)  # Trains on with its masks.
    assert_zeros(loaded, 0.5)
    plain = kp.strip(model)
    assert type(plain) is kind
    assert_same(plain(X), expected)
    plain.save(tmp_path / "plain.keras")
    assert_same(keras.models.load_model(tmp_path / "plain.keras")(X), expected)


def test_layer_shared_by_nested_models_has_one_mask():
    shared = layers.Dense(6, name="shared")
    towers = [keras.Sequential([keras.Input((6,)), shared, layers.Dense(6)]) for _ in range(2)]
    inputs = keras.Input((6,))
    model = kp.prune(keras.Model(inputs, towers[1](towers[0](inputs))), HALF)
    assert len(masks(model)) == 3
    kp.cut(model)
    expected = model(X)
    refill(model)
    assert_same(model(X), expected)


class ByHand(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = kp.Prune(layers.Dense(16, "relu", name="by_hand"), HALF)
        self.head = layers.Dense(6)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def test_wrapper_in_a_subclassed_model_is_cut_and_stripped():
    model = ByHand()
    model(X)
    model.compile("sgd", "mse", jit_compile=JAX)
    trained(model)
    assert_zeros(model, 0.5)
    expected = array(model(X))
    assert kp.strip(model) is model
    assert not kp.layers.pruned_weights(model)
    assert_same(model(X), expected)


@pytest.mark.skipif(not TENSORFLOW, reason="the other backends build a model before fit begins")
def test_callback_rejects_models_without_weights():
    model = ByHand()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Call the model on a batch.*Received: model=.*unbuilt layers.*'by_hand'"):
        model.fit(X, Y, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot())])


class OddConstructor(keras.Model):
    """Has no `get_config`, and a constructor that Keras cannot call again."""

    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def compile(self, rate):
        super().compile(keras.optimizers.SGD(rate), "mse", run_eagerly=TENSORFLOW)

    def call(self, inputs):
        return self.inner(inputs)


def test_prune_takes_models_with_odd_constructors(tmp_path):
    model = OddConstructor(layers.Dense(6))
    model(X)
    model.compile(rate=0.1)
    kp.prune(model, HALF)
    assert model.compiled
    trained(model)
    assert_zeros(model, 0.5)
    model.save_weights(tmp_path / "model.weights.h5")
    other = kp.prune(OddConstructor(layers.Dense(6)), HALF)
    other(X)
    other.load_weights(tmp_path / "model.weights.h5")
    assert_same(other(X), model(X))
    assert_same(masks(other), masks(model))
    assert type(kp.strip(model)) is OddConstructor


@register
class OtherLayersEveryTime(keras.Model):
    made = 0

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        type(self).made += 1
        extra = [layers.ReLU(name="extra")] if self.made > 1 else []
        self.inner = [*extra, layers.Dense(6, name="fc")]

    def call(self, inputs):
        for layer in self.inner:
            inputs = layer(inputs)
        return inputs


@pytest.mark.filterwarnings("ignore")
def test_loading_rejects_models_that_make_other_layers(tmp_path):
    model = OtherLayersEveryTime()
    model(X)
    kp.prune(model).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match=r"other layers than when it was saved.*Expected: Dense.*Received: model"):
        keras.models.load_model(tmp_path / "model.keras")


def test_saving_a_plain_model_keeps_masks_of_inner_models(tmp_path):
    inner = cut_model()
    inputs = keras.Input((6,))
    outer = keras.Model(inputs, layers.Dense(6, name="top")(inner(inputs)))
    assert type(outer).__module__.startswith("keras.")
    outer.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_same(loaded(X), outer(X))
    assert_same(masks(loaded), masks(inner))
    assert kept(loaded) == [24, 24]
    assert criteria(loaded) == {"fc/kernel": HALF, "head/kernel": HALF}


def test_saving_zeros_weights_moved_since_the_cut(tmp_path):
    model = cut_model()
    expected = array(model(X))
    refill(model)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert_zeros(loaded, 0.5)
    assert_same(loaded(X), expected)


def test_weight_files_pass_between_plain_and_pruned(tmp_path):
    plain, pruned = sequential(), cut_model()
    before = masks(pruned)
    plain.save_weights(tmp_path / "plain.weights.h5")
    pruned.save_weights(tmp_path / "pruned.weights.h5")
    stripped = kp.strip(cut_model())
    stripped.load_weights(tmp_path / "pruned.weights.h5")
    assert_same(stripped.get_weights(), pruned.get_weights())
    assert_same(stripped(X), pruned(X))
    other = kp.prune(sequential(), HALF)
    other.load_weights(tmp_path / "pruned.weights.h5")
    assert_same(masks(other), before)
    pruned.load_weights(tmp_path / "plain.weights.h5")  # Plain weights: the masks stay.
    assert_same(masks(pruned), before)
    assert_zeros(pruned, 0.5)
    kernels = [array(model.layers[0].kernel) for model in (pruned, plain)]
    np.testing.assert_array_equal(kernels[0][before[0]], kernels[1][before[0]])


def test_load_weights_rejects_other_masks(tmp_path):
    class Two(layers.Layer):
        def build(self, input_shape):
            self.first, self.second = (self.add_weight(shape=(6, 6), name=name) for name in ("first", "second"))

        def call(self, inputs):
            return inputs @ self.first @ self.second

    def model(criterion):
        return kp.prune(keras.Sequential([keras.Input((6,)), Two(name="two")]), criterion)

    model(HALF).save_weights(tmp_path / "both.weights.h5")
    with pytest.raises(ValueError, match=r"masks of other weights in layer 'two'.*Expected: .*Received: "):
        model({"two/first": HALF}).load_weights(tmp_path / "both.weights.h5")


def test_h5_file_holds_the_plain_model_with_zeros(tmp_path):
    model = cut_model()
    expected = array(model(X))
    refill(model)
    with pytest.warns(UserWarning, match=r"An .h5 file holds the plain model, with its zeros"):
        model.save(tmp_path / "model.h5")
    assert_zeros(model, 0.5)  # Pruned as before.
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert not kp.layers.pruned_weights(loaded)
    np.testing.assert_allclose(array(loaded(X)), expected, rtol=1e-5)
    assert_same(masks(kp.prune(loaded)), masks(model))


@register
class Pair(layers.Layer):
    """Two layers of one kind in sequence."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.pair = [layers.Dense(6, name=f"dense_{i}") for i in range(2)]

    def build(self, input_shape):
        for layer in self.pair:
            layer.build(input_shape)

    def call(self, inputs):
        return self.pair[1](self.pair[0](inputs))


# Layer, number of its inputs.
WITH_LAYERS_INSIDE = {
    "attention": (lambda: layers.MultiHeadAttention(2, 4), 2),
    "grouped attention": (lambda: layers.GroupQueryAttention(4, 2, 1), 2),
    "bidirectional": (lambda: layers.Bidirectional(layers.SimpleRNN(4)), 1),
    "cells": (lambda: layers.RNN([layers.SimpleRNNCell(4), layers.SimpleRNNCell(4)]), 1),
    "pair": (Pair, 1),
}


@pytest.mark.filterwarnings("ignore:An .h5 file holds the plain model")
@pytest.mark.parametrize("name", WITH_LAYERS_INSIDE)
def test_masks_of_inner_layers_have_their_own_names(name, tmp_path):
    make, number = WITH_LAYERS_INSIDE[name]
    inputs = keras.Input((5, 6))
    model = kp.prune(keras.Model(inputs, make()(*[inputs] * number)), HALF)
    kp.cut(model)
    weights = kp.layers.pruned_weights(model)
    assert len({weight.mask.path for weight in weights}) == len(weights) >= 2
    model.save(tmp_path / "model.h5")
    loaded = kp.prune(keras.models.load_model(tmp_path / "model.h5"))
    assert_same(masks(loaded), masks(model))
    model.save_weights(tmp_path / "model.weights.h5")
    kept_masks = masks(model)
    model.load_weights(tmp_path / "model.weights.h5")
    assert_same(masks(model), kept_masks)


@pytest.mark.parametrize("duplicate", [lambda model: pickle.loads(pickle.dumps(model)), copy.deepcopy])
@pytest.mark.parametrize("make", [sequential, Network])
def test_pickle_and_deepcopy_keep_masks(duplicate, make):
    model = make()
    model(X)
    kp.cut(kp.prune(model, HALF))
    expected = array(model(X))
    other = duplicate(model)
    assert other is not model
    assert_same(masks(other), masks(model))
    assert criteria(other) == criteria(model)
    assert_same(other(X), expected)
    refill(other)
    assert_same(other(X), expected)
    assert_zeros(model, 0.5)  # The copy has its own weights.


def test_clone_model_makes_a_plain_model():
    model = cut_model()
    clone = keras.models.clone_model(model)
    assert not kp.layers.pruned_weights(clone)
    assert "keras_prune" not in type(clone).__module__
    clone.set_weights(model.get_weights())
    assert_same(clone(X), model(X))


def test_state_tree_carries_masks():
    model, other = cut_model(), kp.prune(sequential(), HALF)
    for one in (model, other):
        one.compile("sgd", "mse")
    tree = model.get_state_tree(value_format="numpy_array")
    assert sum(array.dtype == bool for array in keras.tree.flatten(tree)) == 2
    other.set_state_tree(tree)
    assert_same(masks(other), masks(model))
    assert_same(other(X), model(X))


@pytest.mark.skipif(not TENSORFLOW, reason="a checkpoint of TensorFlow")
@pytest.mark.parametrize(("source", "target"), [("pruned", "pruned"), ("plain", "pruned"), ("pruned", "plain")])
def test_tensorflow_checkpoint_passes_between_models(source, target, tmp_path):
    import tensorflow as tf

    def make(kind):
        model = sequential()
        return kp.prune(model, HALF) if kind == "pruned" else model

    saved, restored = make(source), make(target)
    if source == "pruned":
        kp.cut(saved)
    if target == "pruned":
        kp.cut(restored)
    before = masks(restored)
    path = tf.train.Checkpoint(model=saved).save(str(tmp_path / "checkpoint"))
    status = tf.train.Checkpoint(model=restored).restore(path)
    status.expect_partial()
    if target == "pruned":
        assert_same(masks(restored), masks(saved) if source == "pruned" else before)
        kp.cut(restored, None)
        assert_zeros(restored, 0.5)
    if source == "pruned":
        assert_same(restored(X), saved(X))


def test_pickled_model_loads_where_the_package_is_not_imported(tmp_path):
    model = cut_model()
    (tmp_path / "model.pickle").write_bytes(pickle.dumps(model))
    code = """
import pickle, sys
model = pickle.load(open(sys.argv[1], "rb"))
import keras_prune
print([weight.kept for weight in keras_prune.layers.pruned_weights(model)])
"""
    command = [sys.executable, "-c", code, tmp_path / "model.pickle"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == str(kept(model)), done.stderr


def test_pickled_layer_is_plain_and_keeps_its_zeros():
    layer = cut_model().layers[0]
    other = pickle.loads(pickle.dumps(layer))
    assert type(other) is layers.Dense
    assert not kp.layers.pruned_weights(other)
    assert_same(other(X), layer(X))


def test_pickled_wrapper_keeps_masks():
    wrapper = kp.Prune(layers.Dense(4, name="fc"), HALF)
    wrapper(X)
    kp.cut(wrapper)
    other = pickle.loads(pickle.dumps(wrapper))
    assert_same(masks(other), masks(wrapper))
    assert_same(other(X), wrapper(X))


def test_sharded_weights_carry_masks(tmp_path):
    def make():
        return kp.prune(keras.Sequential([keras.Input((6,)), *(layers.Dense(64) for _ in range(4))]), HALF)

    model, other = make(), make()
    kp.cut(model)
    model.save_weights(tmp_path / "model.weights.json", max_shard_size=2e-5)
    assert len(list(tmp_path.glob("*.weights.h5"))) > 1
    other.load_weights(tmp_path / "model.weights.json")
    assert_same(masks(other), masks(model))
    assert_same(other.get_weights(), model.get_weights())


def test_half_pruned_model_is_saved_and_pruned_on(tmp_path):
    model = cut_model({"head": HALF})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert criteria(loaded) == {"head/kernel": HALF}
    assert_same(masks(loaded), masks(model))
    kp.cut(kp.prune(loaded, {"fc": HALF}))
    assert_zeros(loaded, 0.5)


def test_model_cut_out_of_another_keeps_masks_until_it_is_saved(tmp_path):
    model = cut_model()
    part = keras.Model(model.inputs[0], model.layers[0].output)
    assert_same(masks(part), masks(model)[:1])
    part.compile("adam", "mse", run_eagerly=TENSORFLOW)
    part.fit(X, np.ones((32, 8)), verbose=0)
    assert_zeros(part, 0.5)
    part.save(tmp_path / "part.keras")
    loaded = keras.models.load_model(tmp_path / "part.keras")
    assert not kp.layers.pruned_weights(loaded)  # The record belongs to the other model. The zeros are here.
    assert_same(loaded(X), part(X))
    assert_same(masks(kp.prune(loaded)), masks(part))


def test_zeros_of_plain_weights_count_where_nothing_was_cut(tmp_path, capsys):
    sparse = kp.strip(cut_model())
    sparse.save_weights(tmp_path / "sparse.weights.h5")
    loaded, filled, left = (kp.prune(sequential(), HALF) for _ in range(3))
    with pytest.warns(UserWarning, match="The file has no masks. Zeros in its weights count as pruned"):
        loaded.load_weights(tmp_path / "sparse.weights.h5")
    filled.set_weights(sparse.get_weights())
    assert "set_weights: 48 of the weights are zero and count as pruned." in capsys.readouterr().out
    for variable, other in zip(left.weights, sparse.weights, strict=True):
        variable.assign(other)  # No method of the model.
    assert kept(kp.prune(left, HALF)) == kept(loaded) == kept(filled) == [24, 24]
