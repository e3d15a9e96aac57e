"""Models of a class of the user's own: every layer that its attributes hold is pruned, saved, loaded and stripped."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp

JAX, TENSORFLOW = (keras.backend.backend() == name for name in ("jax", "tensorflow"))
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 6)).astype("float32")
HALF = kp.TargetSparsity(0.5)
register = keras.saving.register_keras_serializable(package="test_subclassed")


@register
class Block(layers.Layer):
    """A layer of the user's own that makes layers and a weight in `build`."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.inner = layers.Dense(self.units, "relu")
        self.inner.build(input_shape)
        self.mix = self.add_weight(shape=(self.units, self.units), name="mix")

    def call(self, inputs):
        return ops.matmul(self.inner(inputs), self.mix)

    def get_config(self):
        return {**super().get_config(), "units": self.units}


@register
class Network(keras.Model):
    """Layers in attributes, lists, tuples and dictionaries, shared ones, nested models, and some made in `build`."""

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
    """Made of two models; the step of its own never calls the model as a whole."""

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


def numbers(tensor):
    return ops.convert_to_numpy(tensor)


def built(name):
    model = MODELS[name]()
    model(X)
    # A few steps take TensorFlow less time than compiling them would.
    model.compile("adam", "mse", jit_compile=JAX, run_eagerly=TENSORFLOW)
    model.fit(X, Y, verbose=0)
    return model


def trained(model):
    callback = kp.PruningCallback(kp.OneShot(at=1), verbose=0)
    model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback])
    return model


def kept(model):
    return [layer.connections for layer in kp.graph.pruned_layers(model)]


@pytest.mark.parametrize("name", MODELS)
def test_every_layer_is_pruned_saved_loaded_and_stripped(name, tmp_path):
    model = built(name)
    before, weights = numbers(model(X)), [numbers(variable.value) for variable in model.variables]
    pruned = kp.prune(model, HALF)
    assert isinstance(pruned, type(model))
    np.testing.assert_array_equal(numbers(pruned(X)), before)
    assert sum(total for _, total in kept(pruned)) == CONNECTIONS[name]
    trained(pruned)
    assert all(kept == total // 2 for kept, total in kept(pruned))
    expected = numbers(pruned(X))
    pruned.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    np.testing.assert_array_equal(numbers(loaded(X)), expected)
    assert kept(loaded) == kept(pruned)
    plain = kp.strip(loaded)
    assert type(plain) is type(model)
    assert not kp.graph.pruned_layers(plain)
    np.testing.assert_array_equal(numbers(plain(X)), expected)
    plain.save(tmp_path / "plain.keras")
    np.testing.assert_array_equal(numbers(keras.models.load_model(tmp_path / "plain.keras")(X)), expected)
    # Nothing of all this has touched the model that was given.
    np.testing.assert_array_equal(numbers(model(X)), before)
    for variable, weight in zip(model.variables, weights, strict=True):
        np.testing.assert_array_equal(numbers(variable.value), weight)


@pytest.mark.parametrize("name", MODELS)
def test_a_loaded_model_trains_on_with_its_masks(name, tmp_path):
    trained(kp.prune(built(name), HALF)).save(tmp_path / "pruned.keras")
    model = keras.models.load_model(tmp_path / "pruned.keras")
    before = kept(model)
    model.fit(X, Y, epochs=2, verbose=0)
    assert kept(model) == before
    for layer in kp.graph.pruned_layers(model):
        for weight in layer.pruned_weights:
            assert not numbers(weight.variable.value)[~numbers(weight.mask.value)].any()


def test_a_layer_in_two_attributes_has_one_mask():
    pruned = kp.prune(built("network"), HALF)
    assert isinstance(pruned.first, kp.Prune)
    assert pruned.shared is pruned.first
    assert sum(layer.name == "first" for layer in kp.graph.pruned_layers(pruned)) == 1


def test_a_layer_that_two_nested_models_share_has_one_mask():
    shared = layers.Dense(6, name="shared")
    towers = [keras.Sequential([keras.Input((6,)), shared, layers.Dense(6)]) for _ in range(2)]
    inputs = keras.Input((6,))
    model = kp.prune(keras.Model(inputs, towers[1](towers[0](inputs))), HALF)
    left, right = (model.layers[i].get_layer("shared") for i in (1, 2))
    assert left is right
    plain = kp.strip(model)
    assert plain.layers[1].get_layer("shared") is plain.layers[2].get_layer("shared")


def test_wrappers_stand_where_the_layers_were():
    pruned = kp.prune(built("network"), HALF)
    inside = [*pruned.blocks, pruned.pair[1], *pruned.late, pruned.heads["left"], *pruned.heads["more"]]
    assert all(isinstance(layer, kp.Prune) for layer in inside)
    assert isinstance(pruned.tower.layers[0], kp.Prune)
    assert isinstance(pruned.tower.layers[1], kp.PrunedDropout)
    assert [layer.name for layer in pruned.layers] == [layer.name for layer in kp.strip(pruned).layers]


def test_criteria_may_be_chosen_by_name():
    pruned = kp.prune(built("network"), {"left|right": HALF, "block.*": kp.TargetSparsity(0.75)})
    assert [layer.name for layer in kp.graph.pruned_layers(pruned)] == ["block_0", "block_1", "left", "right"]
    assert pruned.blocks[1].criterion == kp.TargetSparsity(0.75)


def test_frozen_layers_are_left_alone_and_reported():
    model = built("network")
    model.first.trainable = False
    pruned = kp.prune(model, HALF)
    assert not isinstance(pruned.first, kp.Prune)
    assert kp.report(pruned).skipped["first"] == "it is frozen (trainable=False)"


def test_pruning_twice_is_pruning_once():
    once = trained(kp.prune(built("network"), HALF))
    twice = kp.prune(once)
    assert type(twice) is type(once)
    assert kept(twice) == kept(once)
    np.testing.assert_array_equal(numbers(twice(X)), numbers(once(X)))


class ByHand(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden = kp.Prune(layers.Dense(16, "relu", name="by_hand"), HALF)
        self.head = layers.Dense(6)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def test_a_layer_that_is_wrapped_by_hand_is_cut_and_stripped():
    model = ByHand()
    model(X)
    model.compile("sgd", "mse", jit_compile=JAX)
    trained(model)
    assert model.hidden.density == 0.5
    plain = kp.strip(model)
    assert type(plain.hidden) is layers.Dense
    np.testing.assert_array_equal(numbers(plain(X)), numbers(model(X)))


@pytest.mark.skipif(not TENSORFLOW, reason="the other backends build a model before fit begins")
def test_a_model_without_weights_is_refused_at_the_cut():
    model = ByHand()
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match=r"Call the model on a batch.*Received: unbuilt layers.*'by_hand'"):
        model.fit(X, Y, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot())])


class WithoutConfig(keras.Model):
    def __init__(self, inner):
        super().__init__()
        self.inner = inner

    def call(self, inputs):
        return self.inner(inputs)


class OtherLayersEveryTime(keras.Model):
    made = 0

    def __init__(self):
        super().__init__()
        type(self).made += 1
        self.inner = [layers.Dense(6) for _ in range(self.made)]

    def call(self, inputs):
        return self.inner[0](inputs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: WithoutConfig(layers.Dense(3)), r"needs get_config\(\).*Prune\(layer\).*of class WithoutConfig"),
        (OtherLayersEveryTime, r"must have the same layers.*Received: model with layers \['dense"),
    ],
)
def test_a_class_that_cannot_be_made_from_its_configuration_is_refused(make, message):
    model = make()
    model(X)
    with pytest.raises(ValueError, match=message):
        kp.prune(model)


class OwnCompile(Autoencoder):
    def compile(self, rate):
        super().compile(keras.optimizers.SGD(rate))


def test_what_its_own_compile_was_given_is_lost_with_a_warning():
    model = OwnCompile(mlp(2, "encoder"), mlp(6, "decoder"))
    model(X)
    model.compile(rate=0.1)
    with pytest.warns(UserWarning, match=r"of class OwnCompile comes back without being compiled.*compile it again"):
        pruned = kp.prune(model, HALF)
    assert not pruned.compiled
    pruned.compile(rate=0.1)
    assert kept(trained(pruned))[0][0] < kept(trained(pruned))[0][1]
