"""Layer kinds are the same for every part of the package."""

import keras
import pytest
from keras import layers

import keras_prune as kp
from keras_prune.layers import kinds, skip_reasons
from keras_prune.models.graph import Graph


def following(*behind):
    return keras.Sequential([keras.Input((6,)), layers.Dense(4, name="fc"), *behind, layers.Dense(2, name="head")])


def test_kinds_hold_keras_layers_once():
    for name in filter(str.isupper, dir(kinds)):
        kind = getattr(kinds, name)
        assert all(issubclass(one, layers.Layer) for one in kind)
        assert len(set(kind)) == len(kind)


def test_computes_like_refuses_another_call():
    class Same(layers.ReLU):
        pass

    class Other(layers.ReLU):
        def call(self, inputs):
            return -inputs

    assert kinds.computes_like(Same(), kinds.ELEMENTWISE)
    assert not kinds.computes_like(Other(), kinds.ELEMENTWISE)


@pytest.mark.parametrize("kind", [layers.SpatialDropout1D, layers.GaussianDropout, layers.AlphaDropout])
def test_report_names_every_dropout_whose_rate_stays(kind):
    model = keras.Sequential([keras.Input((6, 3)), layers.Dense(4, name="fc"), kind(0.5, name="drop")])
    assert kp.report(kp.prune(model)).skipped["drop"] == skip_reasons.FIXED_RATE


@pytest.mark.parametrize("kind", [layers.AlphaDropout, layers.GaussianNoise])
def test_graph_looks_through_every_dropout(kind):
    model = following(kind(0.1), layers.Dropout(0.5, name="drop"))
    assert Graph(model).source(model.get_layer("drop")).layer.name == "fc"


@pytest.mark.parametrize("kind", [layers.RMSNormalization, layers.UnitNormalization])
def test_graph_looks_through_every_normalization(kind):
    model = following(kind(), layers.ReLU(name="last"))
    assert Graph(model).activation(model.get_layer("fc")).name == "last"
