"""Structures of inputs and outputs other than one array or a flat list or dict of them; what is text is refused."""

import keras
import numpy as np
import pytest

import keras_prune as kp
from keras_prune.export.verification import cause, keras_outputs, sample_runs, with_graph

layers = keras.layers
needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModel is TensorFlow's")


def dense_outputs(inputs, units):
    return [layers.Dense(unit)(inputs) for unit in units]


NESTED = {
    "a list in a dict": (lambda a, b, c: {"b": a, "a": [b, c]}, {"b": 1, "a_0": 2, "a_1": 3}),
    "a list of one in a dict": (lambda a, b, c: {"a": [b]}, {"a_0": 2}),
    "a dict in a list": (lambda a, b, c: [{"z": a, "b": b}, c], {"output_0_z": 1, "output_0_b": 2, "output_1": 3}),
    "a list in a list": (lambda a, b, c: [[a, b], c], {"output_0_0": 1, "output_0_1": 2, "output_1": 3}),
}


@pytest.mark.parametrize(("pack", "units"), NESTED.values(), ids=NESTED)
def test_nested_outputs_are_named_by_their_places(pack, units):
    inputs = keras.Input((4,), name="pixels")
    model = keras.Model(inputs, pack(*dense_outputs(inputs, (1, 2, 3))))
    flat = with_graph(model, None)
    outputs = keras_outputs(flat, sample_runs(flat, None, 2))
    assert {name: array.shape[-1] for name, array in outputs.items()} == units
    assert {id(weight) for weight in flat.weights} == {id(weight) for weight in model.weights}


@pytest.mark.parametrize(
    "pack",
    [lambda a, b, c: a, lambda a, b, c: [a, b], lambda a, b, c: {"x/y": a, "x_y": b}],
    ids=["one", "list", "dict"],
)
def test_a_model_with_flat_outputs_stays_as_it_is(pack):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, pack(*dense_outputs(inputs, (1, 2, 3))))
    assert with_graph(model, None) is model


def test_places_that_give_the_same_name_are_refused():
    inputs = keras.Input((4,))
    left, right = dense_outputs(inputs, (1, 1))
    with pytest.raises(ValueError, match=r"rename some\. Received: outputs named \['a_0', 'a_0'\]"):
        with_graph(keras.Model(inputs, {"a": [left], "a_0": right}), None)


class Sum(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(3)

    def call(self, inputs):
        outputs = self.dense(sum(keras.tree.flatten(inputs)))
        return {"both": [outputs, -outputs]}


ones = np.ones((2, 4), "float32")


@pytest.mark.filterwarnings("ignore:When providing `inputs` as a dict")
@pytest.mark.parametrize(
    ("data", "names"),
    [
        (ones, ["inputs"]),
        ([ones, 2 * ones], ["input_0", "input_1"]),
        ({"p": [ones, 2 * ones]}, ["p_0", "p_1"]),
        ({"p/q": ones, "r": 2 * ones}, ["p_q", "r"]),
    ],
)
def test_a_subclassed_model_takes_nested_inputs(data, names):
    model = Sum()
    expected = keras.ops.convert_to_numpy(model(data)["both"][1])
    graph = with_graph(model, data)
    assert [tensor._keras_history.operation.name for tensor in graph.inputs] == names
    outputs = keras_outputs(graph, sample_runs(graph, data, 2))
    np.testing.assert_allclose(outputs["both_1"][0], expected, rtol=1e-6)


@needs_tensorflow
def test_nested_inputs_and_outputs_are_exported_by_their_names(tmp_path):
    import tensorflow as tf

    data = {"p": [ones, 2 * ones]}
    model = Sum()
    expected = model(data)["both"]
    report = kp.export_xla(model, tmp_path, ["saved_model", "stablehlo"], data=data)
    serve = tf.saved_model.load(report.paths["saved_model"]).signatures["serving_default"]
    outputs = serve(p_0=data["p"][0], p_1=data["p"][1])
    np.testing.assert_allclose(outputs["both_0"], expected[0], rtol=1e-5)
    np.testing.assert_allclose(outputs["both_1"], expected[1], rtol=1e-5)


def test_text_is_refused():
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    with pytest.raises(ValueError, match=r"Neither LiteRT nor XLA takes text: .*of dtypes \['string'\]"):
        sample_runs(with_graph(model, None), np.array([["a"]]), 1)


def test_the_cause_of_an_error_is_told_on_one_line_of_bounded_length():
    assert cause(ValueError("Exception.\n\n\x1b[1mthe reason\x1b[0m.\n")) == "Exception. the reason"
    assert len(cause(ValueError("word " * 1000))) <= 1000
    assert cause(KeyError()) == "KeyError()"
