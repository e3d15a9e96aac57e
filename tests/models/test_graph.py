"""The graph of a model lists its layers, and finds the layer before each dropout."""

import keras
import pytest
from helpers import calls_of, growth_of
from keras import layers

import keras_prune as kp
from keras_prune.layers import skip_reasons
from keras_prune.layers.traversal import models_in
from keras_prune.models.graph import Graph, dropout_sources, has_graph, leaf_layers, pruned_dropouts


def source_of_the_only_dropout(model):
    (source,) = dropout_sources(model).values()
    return source


@pytest.mark.parametrize(
    "between",
    [
        lambda: [],
        lambda: [layers.Activation("relu")],
        lambda: [layers.BatchNormalization(), layers.ReLU(), layers.MaxPooling2D(), layers.Flatten()],
        lambda: [layers.PReLU(), layers.GlobalAveragePooling2D()],
        lambda: [layers.LayerNormalization(), layers.Reshape((16, 4)), layers.Permute((2, 1))],
        lambda: [layers.ZeroPadding2D(), layers.AveragePooling2D(2), layers.Dropout(0.0)],
    ],
)
def test_source_is_found_through_transparent_layers(between):
    model = keras.Sequential(
        [keras.Input((6, 6, 2)), layers.Conv2D(4, 3, name="conv"), *between(), layers.Dropout(0.5)]
    )
    assert source_of_the_only_dropout(model).layer.name == "conv"


@pytest.mark.parametrize(
    ("reason", "make"),
    [
        (skip_reasons.DROPS_INPUTS, lambda inputs: inputs),
        (skip_reasons.NO_SOURCE, lambda inputs: layers.Add()([layers.Dense(4)(inputs), inputs])),
        (skip_reasons.NO_SOURCE, lambda inputs: layers.Dense(4)(inputs) * 2),
        (
            skip_reasons.NO_SOURCE,
            lambda inputs: keras.Sequential([layers.Dense(4)], name="block")(layers.ReLU()(inputs)),
        ),
    ],
)
def test_missing_source_has_a_reason(reason, make):
    inputs = keras.Input((4,))
    source = source_of_the_only_dropout(keras.Model(inputs, layers.Dropout(0.5)(make(inputs))))
    assert source.layer is None
    assert source.reason == reason


def test_source_of_a_shared_dropout_is_none():
    inputs, dropout = keras.Input((4,)), layers.Dropout(0.5)
    model = keras.Model(inputs, dropout(layers.Dense(4)(dropout(layers.Dense(4)(inputs)))))
    source = source_of_the_only_dropout(model)
    assert source == (None, skip_reasons.MERGED_INPUTS)


@pytest.mark.parametrize("make", [layers.Dense, lambda *args, **kwargs: kp.Prune(layers.Dense(*args, **kwargs))])
def test_source_may_be_a_pruned_layer(make):
    model = kp.prune(keras.Sequential([keras.Input((4,)), make(4, name="fc"), layers.Dropout(0.5)]))
    assert source_of_the_only_dropout(model).layer is model.layers[0]
    ((rate, weights),) = pruned_dropouts(model)
    assert rate is model.layers[1].pruning
    assert weights == kp.layers.pruned_weights(model.layers[0])


def nested_model():
    block = keras.Sequential(
        [keras.Input((4,)), layers.Dense(4, name="fc"), layers.Dropout(0.5, name="drop")], name="block"
    )
    inputs = keras.Input((4,))
    return keras.Model(inputs, layers.Dense(2, name="head")(block(block(inputs))), name="whole")


def test_nested_models_are_opened_once():
    model = nested_model()
    assert [one.name for one in models_in(model)] == ["whole", "block"]
    kp.prune(model)
    assert [layer.name for layer in leaf_layers(model)][-3:] == ["fc", "drop", "head"]
    assert [weight.layer.name for weight in kp.layers.pruned_weights(model)] == ["fc", "head"]
    ties = [(rate.owner().name, [one.layer.name for one in weights]) for rate, weights in pruned_dropouts(model)]
    assert ties == [("drop", ["fc"])]


class Block(layers.Layer):
    def __init__(self):
        super().__init__()
        self.inner = kp.Prune(layers.Dense(3, name="inner"))

    def build(self, input_shape):
        self.inner.build(input_shape)

    def call(self, inputs):
        return self.inner(inputs)


def test_wrappers_inside_layers_are_found():
    model = keras.Sequential([keras.Input((4,)), Block(), kp.Prune(layers.Dense(2, name="outer"))])
    assert [weight.layer.name for weight in kp.layers.pruned_weights(model)] == ["inner", "outer"]


def test_has_graph_needs_a_built_model():
    model = keras.Sequential([layers.Dense(2)])
    assert not has_graph(model)
    model.build((None, 4))
    assert has_graph(model)


def test_activation_is_found_behind_normalization():
    model = keras.Sequential(
        [
            keras.Input((4,)),
            layers.Dense(4, name="fc"),
            layers.BatchNormalization(),
            layers.ReLU(name="last"),
            layers.Dropout(0.5),
            layers.Dense(2, name="head"),
        ]
    )
    graph = Graph(model)
    assert graph.activation(model.get_layer("fc")).name == "last"
    assert graph.activation(model.get_layer("head")).name == "head"


def test_sources_of_a_chain_take_linear_time():
    def chain(length):
        dropouts = [layers.Dropout(0.1) for _ in range(length)]
        return keras.Sequential([keras.Input((4,)), layers.Dense(4, name="fc"), *dropouts])

    models = [chain(length) for length in (8, 16, 32)]
    assert {source.layer.name for source in dropout_sources(models[0]).values()} == {"fc"}
    assert growth_of([calls_of(lambda model=model: dropout_sources(model)) for model in models]) < 1.1
