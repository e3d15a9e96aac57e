"""Nested structures of inputs and outputs, and inputs that an exported file cannot take."""

import keras
import numpy as np
import pytest
from helpers import array

import keras_prune as kp
from keras_prune import _keras
from keras_prune.export.sample import gather, take_sample, with_graph

layers = keras.layers
needs_tensorflow = pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="SavedModels need TensorFlow")


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
    outputs = take_sample(flat, None, 2).outputs
    assert {name: array.shape[-1] for name, array in outputs.items()} == units
    assert {id(weight) for weight in flat.weights} == {id(weight) for weight in model.weights}


@pytest.mark.parametrize(
    "pack",
    [lambda a, b, c: a, lambda a, b, c: [a, b], lambda a, b, c: {"x/y": a, "x_y": b}],
    ids=["one", "list", "dict"],
)
def test_with_graph_keeps_models_with_flat_outputs(pack):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, pack(*dense_outputs(inputs, (1, 2, 3))))
    assert with_graph(model, None) is model


def test_with_graph_rejects_places_with_the_same_name():
    inputs = keras.Input((4,))
    left, right = dense_outputs(inputs, (1, 1))
    with pytest.raises(ValueError, match=r"Rename some\. Received: outputs=\['a_0', 'a_0'\]"):
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
    ("x", "names"),
    [
        (ones, ["inputs"]),
        ([ones, 2 * ones], ["input_0", "input_1"]),
        ({"p": [ones, 2 * ones]}, ["p_0", "p_1"]),
        ({"p/q": ones, "r": 2 * ones}, ["p_q", "r"]),
    ],
)
def test_with_graph_of_subclassed_model_takes_nested_inputs(x, names):
    model = Sum()
    expected = array(model(x)["both"][1])
    graph = with_graph(model, x)
    assert [_keras.origin_of(tensor)[0].name for tensor in graph.inputs] == names
    outputs = take_sample(graph, x, 2).outputs
    np.testing.assert_allclose(outputs["both_1"][0], expected, rtol=1e-6)


@needs_tensorflow
def test_export_xla_keeps_names_of_nested_structures(tmp_path):
    import tensorflow as tf

    x = {"p": [ones, 2 * ones]}
    model = Sum()
    expected = model(x)["both"]
    assert kp.export_xla(model, tmp_path / "module", "stablehlo", x).relative_difference < 1e-5
    kp.export_xla(model, tmp_path / "saved", x=x)
    loaded = tf.saved_model.load(tmp_path / "saved")
    outputs = loaded.signatures["serving_default"](p_0=x["p"][0], p_1=x["p"][1])
    np.testing.assert_allclose(outputs["both_0"], expected[0], rtol=1e-5)
    np.testing.assert_allclose(outputs["both_1"], expected[1], rtol=1e-5)


def test_take_sample_rejects_text():
    inputs = keras.Input((1,), dtype="string")
    model = keras.Model(inputs, keras.layers.Identity()(inputs))
    with pytest.raises(ValueError, match=r"Neither LiteRT nor XLA takes text\. .*of dtypes \['string'\]"):
        take_sample(model, np.array([["a"]]), 1)


class Batches(keras.utils.PyDataset):
    def __init__(self, batches):
        super().__init__()
        self.batches = batches

    def __len__(self):
        return len(self.batches)

    def __getitem__(self, index):
        return self.batches[index]


def two_inputs():
    inputs = [keras.Input((2,), name="left"), keras.Input((3,), name="right")]
    return keras.Model(inputs, layers.Concatenate()(inputs))


LEFT, RIGHT = np.arange(12.0).reshape(6, 2), np.arange(18.0).reshape(6, 3)
SLICES = [slice(0, 4), slice(4, 6)]  # The last batch is smaller.
AS_BATCHES = {
    "a generator": lambda batches: (batch for batch in batches),
    "a function": lambda batches: lambda: iter(batches),
    "a PyDataset": Batches,
}


@pytest.mark.parametrize("wrap", AS_BATCHES.values(), ids=AS_BATCHES)
@pytest.mark.parametrize(
    "batch",
    [
        lambda left, right: [left, right],
        lambda left, right: {"left": left, "right": right},
        lambda left, right: ((left, right), left),
        lambda left, right: ({"left": left, "right": right}, left, left),
    ],
    ids=["inputs", "names", "targets", "weights"],
)
def test_gather_takes_batches_of_inputs(wrap, batch):
    gathered = gather(two_inputs(), wrap([batch(LEFT[part], RIGHT[part]) for part in SLICES]))
    left, right = (gathered[name] for name in (("left", "right") if isinstance(gathered, dict) else (0, 1)))
    np.testing.assert_array_equal(left, LEFT)
    np.testing.assert_array_equal(right, RIGHT)


@needs_tensorflow
def test_gather_takes_the_first_inputs_of_an_endless_dataset():
    import tensorflow as tf

    dataset = tf.data.Dataset.from_tensor_slices((LEFT, RIGHT)).repeat().batch(64)
    gathered = gather(keras.Sequential([keras.Input((2,)), layers.Dense(1)]), dataset)
    np.testing.assert_array_equal(gathered, np.resize(LEFT, (1000, 2)))


@pytest.mark.parametrize("x", [LEFT, [LEFT, RIGHT], (LEFT, RIGHT), {"left": LEFT}, None, "left", 1.0])
def test_gather_keeps_other_values(x):
    assert gather(two_inputs(), x) is x


@pytest.mark.parametrize("batches", [[], [[LEFT, RIGHT], {"left": LEFT, "right": RIGHT}], [[1.0, 2.0]]])
def test_gather_rejects_other_iterables(batches):
    with pytest.raises(ValueError, match=r"a function that returns one, or a tf.data.Dataset.*Received: x=.*batches"):
        gather(two_inputs(), iter(batches))
