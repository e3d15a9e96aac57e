"""`deployment_plan` names the layers that a runtime makes smaller or faster, and the layers that prevent it."""

import importlib.util
import json

import keras
import numpy as np
import pytest
from helpers import criteria
from keras import layers

import keras_prune as kp

needs_litert = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow" or importlib.util.find_spec("ai_edge_litert") is None,
    reason="writes .tflite files with TensorFlow and reads them with ai-edge-litert",
)
BLOCKS, SINGLE = kp.Blocks((4, 1)), kp.Pattern()


def mobile(**changes):
    """A network that XNNPACK can run sparsely, with some layers replaced by name."""
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


def test_plan_prunes_dense_layers_in_blocks():
    model = keras.Sequential(
        [keras.Input((784,)), layers.Dense(301, name="fc1"), layers.Dense(8, name="odd"), layers.Dense(2, name="fc3")]
    )
    plan = kp.deployment_plan(model)
    assert {row.name: row.pattern for row in plan.rows} == {"fc1": BLOCKS, "odd": SINGLE, "fc3": BLOCKS}
    assert [row.faster_from for row in plan.rows] == [0.85, None, 0.85]
    assert "inputs, 301, is not a multiple of 4" in plan.rows[1].reason
    assert [row.weights for row in plan.rows] == [784 * 301, 301 * 8, 16]


def test_plan_without_a_sparse_kernel_is_smaller_only():
    inputs = keras.Input((8, 8, 4))
    x = layers.Conv2D(8, 3, name="conv")(inputs)
    x = layers.Reshape((36, 8))(x)
    x = layers.Dense(8, name="sequence")(x)
    x = layers.LSTM(8, name="lstm")(x)
    found = rows(keras.Model(inputs, x))
    assert {name: row.faster_from for name, row in found.items()} == {
        "conv": None,
        "sequence": None,
        "lstm/lstm_cell": 0.85,
    }
    assert found["sequence"].pattern == SINGLE
    assert "one input has 36" in found["sequence"].reason
    assert all(0.3 <= row.smaller_from <= 0.35 for row in found.values())


@pytest.mark.parametrize("kind", [layers.LSTM, layers.GRU])
def test_plan_ignores_initial_states(kind):
    inputs, state = keras.Input((8, 4)), keras.Input((8,))
    states = [state, state] if kind is layers.LSTM else [state]
    given = rows(keras.Model([inputs, state], kind(8, name="rnn")(inputs, initial_state=states)))
    assert given == rows(keras.Model(inputs, kind(8, name="rnn")(inputs)))
    assert [row.pattern for row in given.values()] == [BLOCKS]


class Composite(layers.Layer):
    """A custom layer around another layer."""

    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside = inside

    def build(self, input_shape):
        self.inside.build(input_shape)

    def compute_output_shape(self, input_shape):
        return self.inside.compute_output_shape(input_shape)

    def call(self, inputs):
        return self.inside(inputs)


def dense(name="fc"):
    return layers.Dense(8, name=name)


COMPOSITES = {
    "own": (lambda: Composite(dense(), name="own"), (8,), {"own/fc": True}),
    "own, many rows": (lambda: Composite(dense(), name="own"), (6, 8), {"own/fc": "has 6"}),
    "own, any rows": (lambda: Composite(dense(), name="own"), (None, 8), {"own/fc": "has any number"}),
    "own, one row": (lambda: Composite(dense(), name="own"), (1, 8), {"own/fc": True}),
    "nested": (lambda: Composite(Composite(dense(), name="in"), name="own"), (8,), {"own/in/fc": True}),
    "time": (lambda: layers.TimeDistributed(dense(), name="time"), (6, 8), {"time/fc": "has 6"}),
    "own in time": (
        lambda: layers.TimeDistributed(Composite(dense(), name="own"), name="time"),
        (6, 5, 8),
        {"time/own/fc": "has 30"},
    ),
    "LSTM in time": (
        lambda: layers.TimeDistributed(layers.LSTM(8, name="lstm"), name="time"),
        (6, 5, 8),
        {"time/lstm/lstm_cell": "has 6"},
    ),
    "norm": (lambda: layers.SpectralNormalization(dense(), name="norm"), (8,), {"norm/fc": True}),
    "bidirectional": (
        lambda: layers.Bidirectional(layers.GRU(8, name="gru"), name="bi"),
        (5, 8),
        {"bi/forward_gru/gru_cell": True, "bi/backward_gru/gru_cell": True},
    ),
    "cells": (
        lambda: layers.RNN(
            layers.StackedRNNCells([layers.LSTMCell(8, name="a"), layers.GRUCell(8, name="b")], name="cells"),
            name="rnn",
        ),
        (5, 8),
        {"rnn/cells/a": True, "rnn/cells/b": True},
    ),
}


@pytest.mark.parametrize(("make", "shape", "expected"), COMPOSITES.values(), ids=COMPOSITES)
def test_plan_looks_into_layers_that_hold_others(make, shape, expected):
    model = keras.Sequential([keras.Input(shape), make()])
    plan = kp.deployment_plan(model)
    found = {row.name: row for row in plan.rows}
    assert list(found) == list(expected)
    for name, reason in expected.items():
        assert (found[name].faster_from == 0.85) is (reason is True)
        assert reason is True or found[name].reason.endswith(reason)
        assert found[name].smaller_from
    kp.prune(model, plan.criteria(0.5))
    patterns = [weight.criterion.pattern for weight in kp.layers.pruned_weights(model)]
    assert set(patterns) == {row.pattern for row in plan.rows}


def test_plan_looks_into_a_transformer_encoder():
    keras_hub = pytest.importorskip("keras_hub")
    inputs = keras.Input((6, 8))
    encoder = keras_hub.layers.TransformerEncoder(intermediate_dim=12, num_heads=2, name="encoder")
    found = rows(keras.Model(inputs, encoder(inputs)))
    assert sum(row.weights for row in found.values()) == 4 * 8 * 8 + 2 * 8 * 12
    assert all(row.smaller_from and row.faster_from is None for row in found.values())
    assert "one input has 6" in found["encoder/feedforward_output_dense"].reason


def test_plan_has_no_gains_for_unmeasured_layers():
    model = keras.Sequential([keras.Input((6,), dtype="int32"), layers.Embedding(20, 8, name="table")])
    model.add(layers.Reshape((6, 4, 2, 1)))
    model.add(layers.Conv3D(2, 2, name="volume"))
    for row in rows(model).values():
        assert row.smaller_from is row.faster_from is None
        assert row.reason


@pytest.mark.parametrize("runtime", ["litert", "xnnpack"])
def test_plan_is_that_of_the_plain_model(runtime):
    model = mobile()
    plain = str(kp.deployment_plan(model, runtime))
    assert str(kp.deployment_plan(kp.prune(model), runtime)) == plain


def test_plan_prints_every_reason():
    text = str(kp.deployment_plan(mobile(act=layers.Softmax), "xnnpack"))
    assert "stops the sparse subgraph: act - inside it takes no Softmax" in text
    assert "not faster: start, depthwise, pointwise" in text
    assert "4x1" in str(kp.deployment_plan(mobile()))


def test_xnnpack_makes_pointwise_convolutions_faster():
    plan = kp.deployment_plan(mobile(), "xnnpack")
    assert plan.blockers == {}
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
def test_xnnpack_names_the_blocking_layer(changes, stopped, reason):
    plan = kp.deployment_plan(mobile(**changes), "xnnpack")
    assert list(plan.blockers) == [stopped]
    assert reason in plan.blockers[stopped]
    assert not any(row.faster_from for row in plan.rows)


MEANS = {
    "as it is": (False, lambda x: x, True),
    "Dense": (False, layers.Dense(4), True),
    "kept": (True, lambda x: x, False),
    "kept, Conv2D": (True, layers.Conv2D(4, 1), False),
    "kept, Dense": (True, lambda x: layers.Flatten()(layers.Dense(4)(x)), False),
    "kept, Flatten": (True, lambda x: layers.Dense(4)(layers.Flatten()(x)), True),
}


def ending_in(keepdims, behind):
    flat = mobile(mean=lambda: layers.GlobalAveragePooling2D(keepdims=keepdims))
    return keras.Model(flat.inputs, behind(flat.get_layer("mean").output))


@pytest.mark.parametrize(("keepdims", "behind", "runs"), MEANS.values(), ids=MEANS)
def test_xnnpack_is_misread_behind_a_mean_that_keeps_dimensions(keepdims, behind, runs):
    plan = kp.deployment_plan(ending_in(keepdims, behind), "xnnpack")
    assert (plan.blockers == {}) is runs
    assert runs or "leave it False, or put a Flatten right behind" in plan.blockers["mean"]


@needs_litert
def test_export_keeps_convolutions_dense_that_litert_misreads(tmp_path):
    def because(name):
        model = ending_in(*MEANS[name][:2])
        kp.cut(kp.prune(model, {"pointwise.*": 0.9}))
        return kp.export_tflite(model, tmp_path / "model.tflite", batch_size=1).dense_because

    assert "misreads a sparse subgraph" in because("kept, Conv2D")
    assert because("Dense") == ""


def test_xnnpack_follows_a_nested_model_with_its_mean():
    flat = mobile()
    backbone = keras.Model(flat.inputs, flat.get_layer("mean").output, name="backbone")
    plan = kp.deployment_plan(keras.Sequential([keras.Input((32, 32, 3)), backbone, layers.Dense(4)]), "xnnpack")
    assert plan.blockers == {}
    assert [row.name for row in plan.rows if row.faster_from] == ["backbone/pointwise", "backbone/pointwise_2"]


def test_xnnpack_does_not_follow_into_nested_models():
    flat = mobile()
    backbone = keras.Model(flat.inputs, flat.get_layer("pointwise_2").output, name="backbone")
    rest = [layers.GlobalAveragePooling2D(), layers.Dense(4)]
    plan = kp.deployment_plan(keras.Sequential([keras.Input((32, 32, 3)), backbone, *rest]), "xnnpack")
    assert list(plan.blockers) == ["backbone/pointwise_2"]
    assert plan.blockers["backbone/pointwise_2"].endswith("layers behind a nested model are not followed")
    squeeze = keras.Sequential([keras.Input((16, 16, 8)), layers.ReLU()], name="squeeze")
    plan = kp.deployment_plan(mobile(act=lambda: squeeze), "xnnpack")
    assert plan.blockers == {"act": "each nested model is followed separately, not from one into another"}


@keras.saving.register_keras_serializable(package="test_deployment")
class OfItsOwn(keras.Model):
    def __init__(self, inside, **kwargs):
        super().__init__(**kwargs)
        self.inside = inside

    def call(self, inputs):
        return self.inside(inputs)


def test_xnnpack_follows_models_in_subclassed_ones():
    model = OfItsOwn(layers.Conv2D(4, 1), name="own")
    model(np.zeros((1, 8, 8, 3), "float32"))
    plan = kp.deployment_plan(model, "xnnpack")
    assert plan.blockers == {"own": "only Sequential and Functional models can be followed"}
    around = OfItsOwn(mobile())
    around(np.zeros((1, 32, 32, 3), "float32"))
    assert kp.deployment_plan(around, "xnnpack").blockers == {}


def branches(second):
    """A subgraph that multiplies the feature map by the result of `second` for the input and the map."""
    inputs = keras.Input((32, 32, 3), name="image")
    x = layers.ZeroPadding2D(1)(inputs)
    x = layers.Conv2D(8, 3, strides=2, name="start")(x)
    x = layers.Multiply(name="meet")([x, second(inputs, x)])
    x = layers.Conv2D(8, 1, name="pointwise")(x)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(x))


def test_xnnpack_follows_squeeze_and_excitation():
    def excite(inputs, x):
        x = layers.GlobalAveragePooling2D(keepdims=True)(x)
        x = layers.Conv2D(2, 1, activation="relu", name="squeeze")(x)
        return layers.Conv2D(8, 1, activation="sigmoid", name="excite")(x)

    plan = kp.deployment_plan(branches(excite), "xnnpack")
    assert plan.blockers == {}
    assert [row.name for row in plan.rows if row.faster_from] == ["squeeze", "excite", "pointwise"]


def test_xnnpack_is_blocked_by_a_branch_from_outside():
    def other(inputs, x):
        return layers.Conv2D(8, 3, strides=2, padding="same", name="branch")(inputs)

    plan = kp.deployment_plan(branches(other), "xnnpack")
    assert list(plan.blockers) == ["branch"]


def test_xnnpack_needs_convolutions():
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)], name="flat")
    assert kp.deployment_plan(model, "xnnpack").blockers == {"flat": "it has no Conv2D layer"}


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
def test_plan_agrees_with_the_converter(layer, shape, kernel, tmp_path):
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


def test_plan_criteria_go_into_prune_by_path():
    inner, odd = (keras.Sequential([keras.Input((n,)), layers.Dense(6, name="fc")], name=f"in_{n}") for n in (8, 6))
    model = keras.Sequential([keras.Input((4,)), layers.Dense(8, name="fc"), inner, odd, layers.Dense(2, name="out")])
    plan = kp.deployment_plan(model)
    assert {row.name: row.pattern for row in plan.rows} == {
        "fc": BLOCKS,
        "in_8/fc": BLOCKS,
        "in_6/fc": SINGLE,
        "out": SINGLE,
    }
    kp.prune(model, plan.criteria(kp.StdThreshold(0.5, kp.Blocks((2, 1)))))
    patterns = {weight.path: weight.criterion.pattern for weight in kp.layers.pruned_weights(model)}
    assert list(patterns.values()) == [BLOCKS, BLOCKS, SINGLE, SINGLE]
    assert all(isinstance(one, kp.StdThreshold) and one.quality == 0.5 for one in criteria(model).values())


def test_plan_criteria_take_a_sparsity():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(2, name="a+b")])
    plan = kp.deployment_plan(model)
    assert plan.criteria(0.75) == {r"a\+b": kp.TargetSparsity(0.75, BLOCKS)}
    with pytest.raises(ValueError, match=r"Received: criterion='most' for layer 'a\+b'"):
        plan.criteria("most")
    for rule in (None, kp.budgets.GlobalMagnitude(4)):
        with pytest.raises(ValueError, match=r"must be a Criterion .*Received: criterion=(None|GlobalMagnitude)"):
            plan.criteria(rule)


def test_plan_is_written_as_json():
    plan = kp.deployment_plan(mobile(act=layers.Softmax), "xnnpack")
    values = json.loads(json.dumps(plan.to_dict()))
    assert values["rows"][-1] == plan.rows[-1]._asdict() | {"pattern": "Pattern()"}
    assert values["blockers"] == {"act": "inside it takes no Softmax"}
    assert repr(plan) == "<DeploymentPlan: xnnpack: 100% of the connections can be smaller, 0% faster>"


@pytest.mark.parametrize("kind", [layers.AlphaDropout, layers.SpatialDropout2D])
def test_xnnpack_ignores_layers_that_only_train(kind):
    assert kp.deployment_plan(mobile(act=lambda: kind(0.5)), "xnnpack").blockers == {}


@pytest.mark.parametrize("runtime", ["litert", "xnnpack"])
def test_plan_reads_no_weights(runtime, monkeypatch):
    model = keras.Sequential([keras.Input((8,)), layers.Dense(4), layers.Dense(2)])
    unread = property(lambda self: pytest.fail("The value of a variable was read."))
    monkeypatch.setattr(type(model.layers[0].kernel), "value", unread)
    assert [row.weights for row in kp.deployment_plan(model, runtime).rows] == [32, 8]
