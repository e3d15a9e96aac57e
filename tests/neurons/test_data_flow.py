"""Neurons are removed or kept with the neurons that they read and feed."""

import json

import keras
import numpy as np
import pytest
from helpers import array
from keras import layers
from neurons.sparse_networks import assert_same_outputs, conv_net, cut_inputs, randomize, residual_net, row

from keras_prune.neurons import dead_neurons, remove_dead_neurons
from keras_prune.neurons.data_flow import constants, needed, operations, removals


def test_passes_are_pure_functions_over_a_graph():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(3, "relu"), layers.ReLU(), layers.Dense(2)])
    model.set_weights(list(map(np.array, ([[1, 0, 1], [1, 0, 0]], [0, 3, 0], [[1, 0], [2, 0], [0, 0]], [0, 0]))))
    graph = operations(model)
    assert [type(one.layer).__name__ for one in graph] == ["InputLayer", "Dense", "ReLU", "Dense"]
    flows = constants(graph)
    assert [flow.constant.tolist() for flow in flows[1:]] == [[False, True, False]] * 2 + [[False, True]]
    assert flows[2].outputs.value.tolist() == [0, 3, 0]
    needs = needed(graph, flows)
    assert [need.neurons.tolist() for need in needs[1:]] == [[True, False, False]] * 2 + [[True, True]]
    kept = removals(graph, flows, needs)
    assert kept[0] is None
    assert [one.neurons.tolist() for one in kept[1:]] == [[True, False, False]] * 2 + [[True, True]]
    assert kept[3].constants.tolist() == [6, 0]
    assert str(removals(graph, flows, needed(graph, flows))) == str(kept)


@pytest.mark.parametrize(
    ("first", "last", "dead"),
    [([[1, 1], [0, 1], [0, 1]], [[1, 1], [0, 0]], (0, 1)), ([[1, 0], [1, 0], [1, 0]], [[1, 1], [1, 1]], (1, 0))],
    ids=["no outputs", "no inputs"],
)
def test_neurons_go_if_all_their_neighbors_go(first, last, dead):
    model = randomize(keras.Sequential([keras.Input((3,)), *[layers.Dense(2, "tanh") for _ in range(4)]]), density=1)
    for layer, kernel in zip(model.layers, [first, np.eye(2), np.eye(2), last], strict=True):
        layer.kernel.assign(kernel)
    report = dead_neurons(model)
    assert [(row.without_inputs, row.without_outputs) for row in report.rows] == [dead] * 3 + [(0, 0)]
    assert report.rows[0].ignored_inputs == (2 if dead == (0, 1) else 0)
    assert_same_outputs(remove_dead_neurons(model), model)


def test_neurons_before_a_merge_stay():
    model = randomize(residual_net(), density=1)
    cut_inputs(model.get_layer("start"), 0)
    cut_inputs(model.get_layer("end"), 1)
    kernel = array(model.get_layer("end").kernel) * (np.arange(8) > 2)[:, None]
    model.get_layer("end").kernel.assign(kernel)
    report = dead_neurons(model)
    assert (row(report, "start").left, row(report, "end").left) == (1, 1)
    assert row(report, "end").note == "Add 'add' merges several inputs or is called more than once"
    assert row(report, "inner").without_outputs == 3
    assert [row.name for row in report.rows] == ["start", "inner", "end", "head"]
    assert "end: Add 'add' merges several inputs or is called more than once\n" in str(report)
    small = remove_dead_neurons(model)
    assert [small.get_layer(name).filters for name in ("start", "inner", "end")] == [4, 5, 4]
    assert_same_outputs(small, model)


def test_neurons_around_a_shared_layer_stay():
    first, second = keras.Input((3,)), keras.Input((3,))
    shared = layers.Dense(4, "tanh", name="shared")
    a, b = shared(layers.Dense(5, "tanh", name="a")(first)), shared(layers.Dense(5, "tanh", name="b")(second))
    model = keras.Model([first, second], layers.Dense(2)(layers.Concatenate()([a, b])))
    for name in ("a", "b", "shared"):
        cut_inputs(randomize(model, density=1).get_layer(name), 0)
    report = dead_neurons(model)
    assert row(report, "shared").neurons is None
    assert row(report, "a").note == "Dense 'shared' merges several inputs or is called more than once"
    small = remove_dead_neurons(model)
    assert small.count_params() == model.count_params()
    assert_same_outputs(small, model)


def test_neurons_around_a_layer_of_two_models_stay():
    trunk, head = layers.Dense(4, "relu", name="trunk"), layers.Dense(2, name="head")
    inner_inputs, inputs = keras.Input((6,)), keras.Input((6,))
    inner = keras.Model(inner_inputs, head(trunk(inner_inputs)), name="inner")
    model = randomize(keras.Model(inputs, [trunk(inputs), inner(inputs)]), density=1)
    head.kernel.assign(head.kernel * np.array([[0], [0], [0], [1]]))
    assert_same_outputs(remove_dead_neurons(model, verbose=0), model)
    assert "'trunk' is shared by several models" in row(dead_neurons(model), "trunk").note


def test_neurons_of_a_layer_that_feeds_itself_stay():
    inputs = keras.Input((4,))
    shared = layers.Dense(4, "tanh", name="shared")
    model = keras.Model(inputs, layers.Dense(2)(shared(layers.ReLU()(shared(inputs)))))
    cut_inputs(randomize(model, density=1).get_layer("shared"), 0)
    assert_same_outputs(remove_dead_neurons(model), model)


def test_neurons_before_dropout_at_inference_stay():
    inputs = keras.Input((4,))
    hidden = layers.Dense(6, "sigmoid", name="hidden")(inputs)
    model = keras.Model(inputs, layers.Dense(2)(layers.Dropout(0.5, name="x")(hidden, training=True)))
    cut_inputs(randomize(model, density=1).get_layer("hidden"), 0)
    found = row(dead_neurons(model), "hidden")
    assert (found.left, found.note) == (1, "Dropout 'x' is called with training=True")


def test_branches_fold_a_constant_each():
    inputs = keras.Input((4,))
    trunk = layers.Dense(5, "sigmoid", name="trunk")(inputs)
    left, right = layers.Dense(2)(trunk), layers.Dense(3)(layers.BatchNormalization()(trunk))
    model = randomize(keras.Model(inputs, [left, right]), density=1)
    cut_inputs(model.get_layer("trunk"), [1, 2])
    small = remove_dead_neurons(model)
    assert small.get_layer("trunk").units == 3
    assert_same_outputs(small, model)


def test_outputs_inside_the_model_stay():
    inputs = keras.Input((4,))
    hidden = layers.Dense(5, "sigmoid", name="hidden")(inputs)
    model = randomize(keras.Model(inputs, [hidden, layers.Dense(2, name="head")(hidden)]), density=1)
    cut_inputs(model.get_layer("hidden"), 1)
    cut_inputs(model.get_layer("head"), 0)
    small = remove_dead_neurons(model)
    assert [tensor.shape for tensor in small.outputs] == [(None, 5), (None, 2)]
    assert row(dead_neurons(model), "hidden").note == "they are the model's outputs"
    assert_same_outputs(small, model)


def test_inputs_stay_and_ignored_ones_are_counted():
    model = keras.Sequential(
        [keras.Input((4, 4, 1)), layers.Flatten(), layers.Dense(6, "relu", name="fc"), layers.Dense(2)]
    )
    randomize(model, density=1).layers[1].kernel.assign(np.ones((16, 6)) * (np.arange(16) < 11)[:, None])
    found = row(dead_neurons(model), "fc")
    assert (found.ignored_inputs, found.inputs) == (5, 16)
    assert remove_dead_neurons(model).input_shape == (None, 4, 4, 1)


def test_layers_keep_one_neuron_if_all_are_dead():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            layers.Dense(4, "relu"),
            layers.Dense(5, "sigmoid", name="dead"),
            layers.BatchNormalization(),
            layers.Dense(2),
        ]
    )
    cut_inputs(randomize(model, density=1).get_layer("dead"), slice(None))
    found = row(dead_neurons(model), "dead")
    assert (found.without_inputs, found.left) == (4, 1)
    assert found.note == "one neuron stays, because a layer needs one"
    small = remove_dead_neurons(model)
    assert [layer.units for layer in small.layers if isinstance(layer, layers.Dense)] == [1, 1, 2]
    assert_same_outputs(small, model)


def test_report_is_written_as_json_and_names_paths():
    nested = keras.Sequential([keras.Input((3,)), layers.Dense(4, "tanh", name="fc"), layers.Dense(2)], name="nested")
    cut_inputs(randomize(nested, density=1).layers[0], 1)
    report = dead_neurons(keras.Sequential([keras.Input((3,)), nested]))
    values = json.loads(json.dumps(report.to_dict()))
    assert {name: values[name] for name in ("neurons", "kept", "left")} == {"neurons": 6, "kept": 5, "left": 0}
    assert values["rows"][0] == {**report.rows[0]._asdict(), "kept": 3}
    assert report.rows[0].name == "nested/fc"
    assert repr(report) == "<DeadNeurons: 1 of 6 neurons can go>"


def test_report_counts_the_inputs_of_depthwise_layers():
    model = conv_net(layers.DepthwiseConv2D(2, depth_multiplier=2, name="depthwise"))
    cut_inputs(randomize(model, density=1).layers[0], [1, 4])
    found = row(dead_neurons(model), "depthwise")
    assert (found.neurons, found.kept, found.inputs) == (12, 8, 4)
