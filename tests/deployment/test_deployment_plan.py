"""A plan names what a runtime makes smaller or faster, and the layer that keeps it from it."""

import importlib.util

import keras
import numpy as np
import pytest
from keras import layers

import keras_prune as kp

needs_litert = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="writes .tflite files with TensorFlow and reads them with ai-edge-litert",
)
BLOCKS, SINGLE = kp.Blocks((4, 1)), kp.Pattern()


def mobile(**changes):
    """A network that XNNPACK can run sparsely, but for layers that are replaced by name."""
    names = {
        "pad": lambda: layers.ZeroPadding2D(1),
        "start": lambda: layers.Conv2D(8, 3, strides=2, use_bias=False),
        "normed": layers.BatchNormalization,
        "act": lambda: layers.ReLU(6.0),
        "depthwise": lambda: layers.DepthwiseConv2D(3, padding="same", activation="hard_silu"),
        "pointwise": lambda: layers.Conv2D(16, 1, activation="relu"),
        "pad_2": lambda: layers.ZeroPadding2D(2),
        "depthwise_2": lambda: layers.DepthwiseConv2D(5, strides=2),
        "pointwise_2": lambda: layers.Conv2D(12, 1),
        "mean": layers.GlobalAveragePooling2D,
        "head": lambda: layers.Dense(4),
    }
    model = keras.Sequential([keras.Input((32, 32, 3))])
    for name, make in (names | changes).items():
        layer = make()
        layer.name = name
        model.add(layer)
    return model


def rows(model, runtime="litert"):
    return {row.name: row for row in kp.deployment_plan(model, runtime).rows}


def test_dense_layers_are_pruned_in_blocks_where_litert_has_a_kernel_for_them():
    model = keras.Sequential(
        [keras.Input((784,)), layers.Dense(301, name="fc1"), layers.Dense(8, name="odd"), layers.Dense(2, name="fc3")]
    )
    plan = kp.deployment_plan(model)
    assert plan.patterns == {"fc1": BLOCKS, "odd": SINGLE, "fc3": BLOCKS}
    assert [row.faster_from for row in plan.rows] == [0.85, None, 0.85]
    assert "inputs, 301, are no multiple of 4" in plan.rows[1].reason
    assert [row.weights for row in plan.rows] == [784 * 301, 301 * 8, 16]


def test_layers_without_a_sparse_kernel_become_smaller_and_not_faster():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.Reshape((36, 8))(x)
    x = layers.Dense(8, name="sequence")(x)
    x = layers.LSTM(8, name="lstm")(x)
    found = rows(keras.Model(inputs, x))
    assert {name: row.faster_from for name, row in found.items()} == {"conv": None, "sequence": None, "lstm": 0.85}
    assert found["sequence"].pattern == SINGLE
    assert "one input has 36" in found["sequence"].reason
    assert all(0.3 <= row.smaller_from <= 0.35 for row in found.values())


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_a_recurrent_layer_that_is_given_its_state_has_the_plan_of_one_that_starts_at_zero(kind):
    inputs, state = keras.Input((8, 4)), keras.Input((8,))
    states = [state, state] if kind is layers.LSTM else [state]
    given = rows(keras.Model([inputs, state], kind(8, name="rnn")(inputs, initial_state=states)))
    assert given == rows(keras.Model(inputs, kind(8, name="rnn")(inputs)))
    assert given["rnn"].pattern == BLOCKS


def test_tables_and_layers_that_nobody_measured_promise_nothing():
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(20, 8, name="table")])
    model.add(layers.Reshape((6, 4, 2, 1)))
    model.add(layers.Conv3D(2, 2, name="volume"))
    for row in rows(model).values():
        assert row.smaller_from is row.faster_from is None
        assert row.reason


@pytest.mark.parametrize("runtime", ["litert", "xnnpack"])
def test_a_pruned_model_has_the_plan_of_the_plain_one(runtime):
    model = mobile()
    plain = str(kp.deployment_plan(model, runtime))
    assert str(kp.deployment_plan(kp.prune(model), runtime)) == plain


def test_a_plan_is_a_table_with_every_reason():
    text = str(kp.deployment_plan(mobile(act=layers.Softmax), "xnnpack"))
    assert "stops the sparse subgraph: act - inside it takes no Softmax" in text
    assert "not faster: start, depthwise, pointwise" in text
    assert "4x1" in str(kp.deployment_plan(mobile()))


def test_pointwise_convolutions_of_a_sparse_subgraph_become_faster_from_two_thirds_zeros_on():
    plan = kp.deployment_plan(mobile(), "xnnpack")
    assert plan.stops == {}
    faster = {row.name: row.faster_from for row in plan.rows if row.faster_from}
    assert faster == {"pointwise": pytest.approx(2 / 3), "pointwise_2": pytest.approx(2 / 3)}


@pytest.mark.parametrize(
    ("changes", "stopped", "reason"),
    [
        ({"start": lambda: layers.Conv2D(8, 5, strides=2)}, "start", "this is 5x5 of stride 2 with 3"),
        ({"start": lambda: layers.Conv2D(8, 3)}, "start", "3x3 of stride 1 with 3"),
        ({"start": lambda: layers.Conv2D(8, 3, strides=2, padding="same")}, "start", "behind ZeroPadding2D"),
        ({"pad": lambda: layers.ZeroPadding2D(((0, 1), (0, 1)))}, "start", "must be 1 on each side"),
        ({"act": lambda: layers.Activation("tanh")}, "act", "no tanh"),
        ({"act": lambda: layers.MaxPooling2D(2)}, "act", "no MaxPooling2D"),
        ({"depthwise": lambda: layers.DepthwiseConv2D(7, padding="same")}, "depthwise", "this is 7x7 of 1"),
        ({"depthwise": lambda: layers.DepthwiseConv2D(3, padding="valid")}, "depthwise", "must be 1 on each side"),
        ({"depthwise": lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)}, "depthwise", "3x3 and 5x5"),
        ({"depthwise": lambda: layers.Conv2D(8, 3, padding="same")}, "depthwise", "takes 1x1 convolutions"),
        ({"pointwise": lambda: layers.Conv2D(16, 1, strides=2)}, "pointwise", "this is 1x1 of 2"),
        ({"pointwise": lambda: layers.Conv2D(16, 1, groups=2)}, "pointwise", "without dilation and groups"),
        ({"pointwise": lambda: layers.Conv2D(16, 1, activation="tanh")}, "pointwise", "no activation"),
        ({"pad_2": lambda: layers.ZeroPadding2D(1)}, "depthwise_2", "must be 2 on each side"),
        ({"mean": layers.Flatten}, "mean", "no Flatten"),
    ],
)
def test_the_layer_that_stops_a_sparse_subgraph_is_named(changes, stopped, reason):
    plan = kp.deployment_plan(mobile(**changes), "xnnpack")
    assert list(plan.stops) == [stopped]
    assert reason in plan.stops[stopped]
    assert not any(row.faster_from for row in plan.rows)


def test_a_model_that_ends_before_a_mean_is_stopped_at_its_end():
    model = mobile()
    plan = kp.deployment_plan(keras.Model(model.inputs, model.get_layer("pointwise_2").output), "xnnpack")
    assert list(plan.stops) == ["pointwise_2"]


def test_a_nested_model_that_holds_its_mean_has_a_sparse_subgraph():
    flat = mobile()
    backbone = keras.Model(flat.inputs, flat.get_layer("mean").output, name="backbone")
    plan = kp.deployment_plan(keras.Sequential([keras.Input((32, 32, 3)), backbone, layers.Dense(4)]), "xnnpack")
    assert plan.stops == {}
    assert [row.name for row in plan.rows if row.faster_from] == ["pointwise", "pointwise_2"]


def test_where_nested_models_are_not_followed_is_said():
    flat = mobile()
    backbone = keras.Model(flat.inputs, flat.get_layer("pointwise_2").output, name="backbone")
    rest = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    plan = kp.deployment_plan(keras.Sequential([keras.Input((32, 32, 3)), backbone, *rest]), "xnnpack")
    assert list(plan.stops) == ["pointwise_2"]
    assert plan.stops["pointwise_2"].endswith("what stands behind a nested model is not followed")
    squeeze = keras.Sequential([keras.Input((16, 16, 8)), layers.ReLU()], name="squeeze")
    plan = kp.deployment_plan(mobile(act=lambda: squeeze), "xnnpack")
    assert plan.stops == {"act": "nested models are followed each on its own, not from one into another"}


@keras.saving.register_keras_serializable(package="test_deployment")
class OfItsOwn(keras.Model):
    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside = inside

    def call(self, inputs):
        return self.inside(inputs)


def test_a_model_that_cannot_be_followed_is_said_to_be_none_and_the_models_in_it_are_followed():
    model = OfItsOwn(layers.Conv2D(4, 1), name="own")
    model(np.zeros((1, 8, 8, 3), "float32"))
    plan = kp.deployment_plan(model, "xnnpack")
    assert plan.stops == {"own": "only Sequential and Functional models can be followed"}
    around = OfItsOwn(mobile())
    around(np.zeros((1, 32, 32, 3), "float32"))
    assert kp.deployment_plan(around, "xnnpack").stops == {}


def branches(second):
    """A subgraph in which the feature map meets what `second` makes of the input and of the map itself."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(8, 3, strides=2, name="start")(x)
    x = layers.Multiply(name="meet")([x, second(inputs, x)])
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_squeeze_and_excitation_stays_inside_the_subgraph():
    def excite(inputs, x):
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Conv2D(2, 1, activation="relu", name="squeeze")(x)
        return layers.Conv2D(8, 1, activation="sigmoid", name="excite")(x)

    plan = kp.deployment_plan(branches(excite), "xnnpack")
    assert plan.stops == {}
    assert [row.name for row in plan.rows if row.faster_from] == ["squeeze", "excite", "pointwise"]


def test_a_branch_from_outside_stops_the_subgraph():
    def other(inputs, x):
        return layers.Conv2D(8, 3, strides=2, padding="same", name="branch")(inputs)

    plan = kp.deployment_plan(branches(other), "xnnpack")
    assert list(plan.stops) == ["branch"]


def test_a_model_without_convolutions_has_no_sparse_subgraph():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="flat")
    assert kp.deployment_plan(model, "xnnpack").stops == {"flat": "it has no Conv2D layer"}


@needs_litert
@pytest.mark.parametrize(
    ("layer", "shape", "kernel"),
    [
        (lambda: layers.Dense(64), (256,), True),
        (lambda: layers.Dense(64), (254,), False),
        (lambda: layers.Conv2D(32, 3), (8, 8, 32), False),
        (lambda: layers.Conv1D(32, 3), (8, 32), False),
        (lambda: layers.DepthwiseConv2D(3), (8, 8, 256), False),
        (lambda: layers.Embedding(64, 64), (4,), None),
    ],
)
def test_the_converter_does_what_the_plan_says(layer, shape, kernel, tmp_path):
    import tensorflow as tf
    from ai_edge_litert.interpreter import Interpreter

    layer = layer()
    inputs = keras.Input(shape, dtype="int32" if isinstance(layer, layers.Embedding) else "float32")
    model = keras.Model(inputs, layer(inputs))
    (row,) = kp.deployment_plan(model).rows
    assert (row.faster_from is not None) == bool(kernel)

    start = model.get_weights()

    def size_and_operators(sparsity, pattern):
        model.set_weights(start)
        kp.cut(kp.prune(model, kp.TargetSparsity(sparsity, pattern)))
        path = tmp_path / "model.tflite"
        optimizations = [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]
        kp.strip(model).export(path, format="litert", verbose=False, optimizations=optimizations)
        operators = {op["op_name"] for op in Interpreter(str(path))._get_ops_details()}
        return path.stat().st_size, operators

    size, operators = size_and_operators(0.9, row.pattern)
    dense, _ = size_and_operators(0.01, SINGLE)
    assert (size < 0.5 * dense) == (row.smaller_from is not None)
    assert ("DENSIFY" in operators) == (kernel is False)
    if row.smaller_from is not None:
        above, _ = size_and_operators(row.smaller_from + 0.05, row.pattern)
        below, _ = size_and_operators(0.28, row.pattern)
        assert above < dense <= below + 100


def nested_layers_of_one_name(inputs):
    models = [keras.Sequential([keras.Input((size,)), layers.Dense(4, name="fc")]) for size in inputs]
    return keras.Sequential([keras.Input((inputs[0],)), models[0], layers.Dense(inputs[1], name="between"), models[1]])


def test_patterns_by_name_are_refused_where_layers_of_one_name_need_different_ones():
    plan = kp.deployment_plan(nested_layers_of_one_name([8, 6]))
    assert [row.pattern for row in plan.rows] == [BLOCKS, BLOCKS, SINGLE]
    with pytest.raises(ValueError, match=r"names of their own.* Received: layers named 'fc'"):
        _ = plan.patterns
    assert kp.deployment_plan(nested_layers_of_one_name([8, 12])).patterns == {"fc": BLOCKS, "between": BLOCKS}


def test_a_runtime_that_it_does_not_know_is_refused():
    with pytest.raises(ValueError, match=r"\"litert\".* Received: runtime='tflite'"):
        kp.deployment_plan(mobile(), "tflite")


@pytest.mark.parametrize("model", [None, np.ones(3), keras.layers.Dense(3)])
def test_what_is_no_model_is_refused(model):
    with pytest.raises(ValueError, match=r"Keras 3 model. Received: model="):
        kp.deployment_plan(model)


def test_a_model_without_connections_is_refused():
    with pytest.raises(ValueError, match="layers with connections"):
        kp.deployment_plan(keras.Sequential([keras.Input((3,)), layers.ReLU()]))
