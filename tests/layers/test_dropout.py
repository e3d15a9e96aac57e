"""Dropout rates follow the connections of the layer before. The noise is that of Keras."""

import keras
import numpy as np
import pytest
from helpers import array, arrays, assert_same
from keras import layers

import keras_prune as kp
from keras_prune.models.graph import pruned_dropouts

X = np.random.default_rng(0).normal(size=(16, 8)).astype("float32")


def pruned_dropout(rate, shape=(8,), **kwargs):
    """Returns a dropout inside a pruned model."""
    dtype = kwargs.get("dtype", "float32")
    dropout = layers.Dropout(rate, **kwargs)
    kp.prune(keras.Sequential([keras.Input(shape, dtype=dtype), dropout, layers.Dense(2, dtype=dtype)]))
    return dropout


@pytest.mark.parametrize(("network", "density", "rate"), [("AlexNet", 0.09, 0.15), ("VGG-16", 0.04, 0.10)])
def test_dropout_follows_connections_to_published_rates(network, density, rate):
    rates = pruned_dropout(0.5).pruning
    rates.follow(density)
    assert rates.current_rate == pytest.approx(rate, abs=1e-6)


def test_dropout_does_nothing_outside_training():
    assert_same(pruned_dropout(0.5)(X), X)


@pytest.mark.parametrize(("rate", "dtype"), [(0.1, "float32"), (0.37, "float16")])
def test_dropout_draws_the_noise_of_keras(rate, dtype):
    inputs = np.ones((64, 8), dtype)
    assert_same(
        pruned_dropout(rate, seed=3, dtype=dtype)(inputs, training=True),
        layers.Dropout(rate, seed=3, dtype=dtype)(inputs, training=True),
    )


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_dropout_keeps_the_expectation(dtype):
    dropout = pruned_dropout(0.6, (50,), seed=1, dtype=dtype)
    dropout.pruning.follow(0.25)
    dropped = array(dropout(np.ones((200, 50), dtype), training=True))
    assert dropped.dtype == dtype
    assert np.mean(dropped == 0) == pytest.approx(0.3, abs=0.02)
    np.testing.assert_allclose(dropped[dropped > 0], 1 / 0.7, rtol=1e-3)


def test_dropout_drops_along_its_noise_shape():
    dropout = pruned_dropout(0.5, (5, 8), noise_shape=(None, 1, 8), seed=1)
    dropped = array(dropout(np.ones((4, 5, 8), "float32"), training=True))
    np.testing.assert_array_equal(dropped, np.broadcast_to(dropped[:, :1], dropped.shape))
    assert 0 < np.count_nonzero(dropped) < dropped.size


def test_dropout_drops_everything_at_rate_one():
    assert not array(pruned_dropout(1.0)(X, training=True)).any()


def test_dropout_resumes_noise_and_rate_after_loading(tmp_path):
    model = kp.prune(keras.Sequential([keras.Input((8,)), layers.Dense(8), layers.Dropout(0.5, seed=1)]))
    model.layers[1].pruning.follow(0.09)
    model(X, training=True)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.layers[1].pruning.current_rate == model.layers[1].pruning.current_rate == pytest.approx(0.15)
    assert_same(loaded(X, training=True), model(X, training=True))


def test_dropout_is_tied_to_the_layer_it_drops():
    class Own(layers.Dropout):
        pass

    model = keras.Sequential(
        [
            keras.Input((5, 8)),
            layers.Dropout(0.1, name="on_inputs"),
            layers.Dense(4, name="fc"),
            layers.ReLU(),
            layers.Dropout(0.25, noise_shape=(None, 1, 4), seed=7, name="tied"),
            layers.Dropout(0.0, name="none"),
            layers.SpatialDropout1D(0.5, name="spatial"),
            Own(0.5, name="own"),
            layers.Dense(4, name="unpruned"),
            layers.Dropout(0.5, name="untied"),
        ]
    )
    config = model.get_config()
    kp.prune(model, {"fc": 0.75})
    ties = [(rate.owner().name, [weight.path for weight in weights]) for rate, weights in pruned_dropouts(model)]
    assert ties == [("tied", [model.get_layer("fc").kernel.path])]
    assert [layer.name for layer in model.layers if hasattr(layer, "pruning")] == ["on_inputs", "fc", "tied", "untied"]
    kp.cut(model)
    rates = {
        layer.name: layer.pruning.current_rate
        for layer in model.layers
        if isinstance(layer, layers.Dropout) and hasattr(layer, "pruning")
    }
    assert rates == {"on_inputs": 0.1, "tied": 0.125, "untied": 0.5}
    assert kp.strip(model).get_config() == config
    assert not any(hasattr(layer, "pruning") for layer in model.layers)
    assert np.mean(arrays(model.get_layer("untied")(np.ones((99, 99)), training=True))[0] == 0) > 0.4


def test_callback_ties_dropouts_by_a_mapping():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.fc, self.drop, self.head = (
                layers.Dense(8, name="fc6"),
                layers.Dropout(0.5, name="drop6"),
                layers.Dense(3),
            )

        def call(self, inputs, training=False):
            return self.head(self.drop(self.fc(inputs), training=training))

    model = Own()
    model(X)
    kp.prune(model, kp.TargetSparsity(0.75))
    model.compile("sgd", "mse", run_eagerly=True)
    rates = []
    for adjust in (True, False, {"drop.*": "fc6"}):
        callback = kp.PruningCallback(kp.OneShot(), adjust_dropout=adjust, verbose=0)
        model.fit(X, X[:, :3], verbose=0, callbacks=[callback])
        rates.append(model.drop.pruning.current_rate)
    assert rates == [0.5, 0.5, 0.25]
    for wrong, name in (({"drop.*": "fc7"}, "'fc7'"), ({"fc6": "fc6"}, "'fc6'")):
        callback = kp.PruningCallback(kp.OneShot(), adjust_dropout=wrong, verbose=0)
        with pytest.raises(ValueError, match=rf"Dropouts: \['drop6'\].*where {name} matches none"):
            model.fit(X, X[:, :3], verbose=0, callbacks=[callback])
