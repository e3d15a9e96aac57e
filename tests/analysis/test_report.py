"""Tests of `report`."""

import functools
import json
import math

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_prune as kp
from keras_prune import networks
from keras_prune.analysis.report import Report, Row
from keras_prune.layers import skip_reasons
from keras_prune.models.flops import flop
from keras_prune.models.graph import Graph

IMAGES = np.random.default_rng(0).normal(size=(6, 8, 8, 2)).astype("float32")
X = np.random.default_rng(1).normal(size=(12, 8)).astype("float32")


def last_digit(printed):
    """The value of the last digit that the paper prints: 1e5 for 3.7M, 1e3 for 470K."""
    unit = 1
    while printed >= 1 and printed % (10 * unit) == 0:
        unit *= 10
    return unit


@functools.cache
def paper_network(name):
    """Returns layers with their weights, and how many activations the next layer reads, without allocating weights."""
    with keras.StatelessScope(initialize_variables=False):
        model = getattr(networks, name)()
    # Otherwise the end of the next scope would initialize the variables, 0.5 GB for VGG-16.
    keras.utils.clear_session()
    found = [layer for layer in model.layers if layer.weights]
    graph = Graph(model)
    sizes = [graph.activations_behind(layer) for layer in found]
    return [(layer, math.prod(layer.kernel.shape)) for layer in found], sizes


def small_convolutional_model():
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            layers.Conv2D(4, 3, name="conv"),
            layers.ReLU(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, "relu", name="fc1"),
            layers.Dropout(0.5, name="drop"),
            layers.Dense(3, name="fc2"),
        ]
    )


def cut(model):
    kp.cut(model)
    return model


def share_of_nonzeros(tensor):
    return np.mean(ops.convert_to_numpy(tensor) != 0)


@pytest.mark.parametrize("name", list(networks.TABLES))
def test_weights_and_operations_are_those_of_the_paper(name):
    *printed_rows, printed_total = networks.TABLES[name]
    weight_layers, _ = paper_network(name)
    measured = [(layer.name, weights, flop(layer, weights)) for layer, weights in weight_layers]
    assert [row.layer for row in printed_rows] == [layer for layer, _, _ in measured]
    total = ("total", *(sum(column) for column in zip(*((w, f) for _, w, f in measured), strict=True)))
    for (_, weights, operations), printed in zip([*measured, total], [*printed_rows, printed_total], strict=True):
        assert abs(weights - printed.weights) < last_digit(printed.weights)
        assert abs(operations - printed.flop) < last_digit(printed.flop)


@pytest.mark.parametrize("name", list(networks.TABLES))
def test_totals_are_weighted_as_in_the_paper(name):
    *printed_rows, printed_total = networks.TABLES[name]
    weight_layers, sizes = paper_network(name)
    rows = [
        Row(p.layer, w, round(w * p.density / 100), int(p.flop), p.activation / 100, p.flop_density / 100, None, size)
        for p, (_, w), size in zip(printed_rows, weight_layers, sizes, strict=True)
    ]
    report = Report(rows, {}, [])
    assert 100 * report.activation == pytest.approx(printed_total.activation, abs=1)
    assert 100 * report.density == pytest.approx(printed_total.density, abs=1)
    assert 100 * report.flop_density == pytest.approx(printed_total.flop_density, abs=1)


def test_flop_density_is_density_times_activations_before_it():
    model = cut(kp.prune(small_convolutional_model(), kp.TargetSparsity(0.5)))
    rows = {row.name: row for row in kp.report(model, IMAGES).rows}
    hidden = ops.relu(model.get_layer("conv")(IMAGES))
    dense = model.get_layer("fc1")(ops.reshape(ops.max_pool(hidden, 2, 2), (6, -1)))
    assert rows["conv"].activation == pytest.approx(share_of_nonzeros(hidden))  # Before the pooling.
    assert rows["fc1"].activation == pytest.approx(share_of_nonzeros(dense))
    assert rows["conv"].flop_density == 0.5  # The model's own input counts as dense.
    assert rows["fc1"].flop_density == pytest.approx(0.5 * share_of_nonzeros(hidden))
    assert rows["fc2"].flop_density == pytest.approx(0.5 * share_of_nonzeros(dense))
    assert rows["fc2"].activation == 1


def test_last_layer_counts_as_dense_despite_its_activation():
    inner = keras.Sequential([keras.Input((4,)), layers.Dense(3), layers.ReLU()], name="inner")
    flat = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), layers.Dense(3), layers.ReLU()])
    nested = keras.Sequential([keras.Input((8,)), layers.Dense(4, "relu"), inner])
    for model in (flat, nested):
        first, last = kp.report(model, X).rows
        assert first.activation < 1
        assert last.activation == 1


def test_strip_does_not_change_the_report():
    model = cut(kp.prune(small_convolutional_model(), kp.TargetSparsity(0.7)))
    before, after = kp.report(model, IMAGES), kp.report(kp.strip(model), IMAGES)
    assert [row._replace(dropout=None) for row in before.rows] == after.rows
    for total in ("weights", "kept", "flop", "activation", "flop_density", "compression"):
        assert getattr(before, total) == getattr(after, total)
    assert before.compression == pytest.approx(1 / 0.3, rel=0.01)


def test_report_of_a_stripped_model_pruned_again_is_unchanged():
    model = cut(kp.prune(small_convolutional_model(), kp.TargetSparsity(0.7)))
    before = kp.report(model, IMAGES)
    after = kp.report(kp.prune(kp.strip(model)), IMAGES)
    assert before.compression > 3
    assert [row._replace(dropout=None) for row in after.rows] == [row._replace(dropout=None) for row in before.rows]
    assert (after.storage, after.skipped) == (before.storage, before.skipped)


def test_row_has_the_current_rate_of_the_dropout():
    model = kp.prune(small_convolutional_model(), kp.TargetSparsity(0.75))
    assert [row.dropout for row in kp.report(model).rows] == [None, 0.5, None]
    model.get_layer("drop").pruning.follow(0.25)
    assert [row.dropout for row in kp.report(model).rows] == [None, 0.25, None]
    assert "0.25" in str(kp.report(model)).splitlines()[5]


def test_activations_are_unknown_without_inputs():
    report = kp.report(cut(kp.prune(small_convolutional_model(), kp.TargetSparsity(0.5))))
    assert {row.activation for row in report.rows} == {None} == {report.activation}
    assert {row.flop_density for row in report.rows} == {0.5} == {report.flop_density}


def test_skipped_layers_have_reasons():
    model = keras.Sequential(
        [
            keras.Input((6, 8)),
            layers.Conv1D(4, 3, name="frozen", trainable=False),
            layers.Dropout(0.1, name="behind_frozen"),
            layers.Conv1D(4, 3, name="pruned"),
            layers.SpatialDropout1D(0.1, name="spatial"),
            layers.Dropout(0.0, name="without_a_rate"),
            layers.Flatten(),
            layers.Dense(4, name="not_asked_for"),
            layers.Dense(4, name="quantized"),
            layers.Dense(2, name="head"),
        ]
    )
    model.get_layer("quantized").quantize("int8")
    assert kp.report(model).skipped == {}  # No layer of a plain model is skipped.
    with pytest.warns(UserWarning, match="quantized: its weights are quantized"):
        kp.prune(model, {"pruned|head": kp.StdThreshold()})
    report = kp.report(model)
    assert report.skipped == {
        "frozen": skip_reasons.FROZEN,
        "behind_frozen": skip_reasons.SOURCE_NOT_PRUNED,
        "spatial": skip_reasons.FIXED_RATE,
        "not_asked_for": skip_reasons.NO_CRITERION,
        "quantized": skip_reasons.QUANTIZED,
    }
    assert "left out: frozen - its weights are not trainable" in str(report).splitlines()


def test_dropouts_of_prune_wrappers_are_known():
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dropout(0.2, name="of_the_inputs"),
            kp.Prune(layers.Dense(4, name="fc")),
            layers.Dropout(0.5, name="drop"),
            kp.Prune(layers.Dense(2, name="head")),
        ]
    )
    kp.prune(model)
    report = kp.report(model)
    assert [row.dropout for row in report.rows] == [0.5, None]
    assert report.skipped == {"of_the_inputs": skip_reasons.DROPS_INPUTS}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.first = kp.Prune(layers.Dense(4, "relu", name="first"))
        self.drop = layers.Dropout(0.5, name="drop")
        self.inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, "relu", name="second")], name="inner")

    def call(self, inputs):
        return self.inner(self.drop(self.first(inputs)))


def test_subclassed_models_are_measured_as_far_as_possible():
    model = Subclassed()
    outputs = model(X)
    report = kp.report(model, X)
    assert [(row.name, row.flop, row.activation) for row in report.rows] == [
        ("first", 2 * 8 * 4, None),
        ("inner/second", 2 * 4 * 3, pytest.approx(share_of_nonzeros(outputs))),
    ]
    assert report.skipped["drop"] == skip_reasons.NO_GRAPH


def test_layers_of_one_name_have_their_own_rows():
    def branch(units, rate, name):
        inner = [keras.Input((8,)), layers.Dense(units, "relu", name="fc"), layers.Dropout(rate), layers.Dense(2)]
        return keras.Sequential(inner, name=name)

    inputs = keras.Input((8,))
    model = keras.Model(inputs, layers.Add()([branch(30, 0.1, "wide")(inputs), branch(4, 0.4, "narrow")(inputs)]))
    report = kp.report(kp.prune(model), X)
    rows = {row.name: row for row in report.rows}
    wide, narrow = rows["wide/fc"], rows["narrow/fc"]
    assert (wide.weights, narrow.weights) == (240, 32)
    assert (wide.dropout, narrow.dropout) == (pytest.approx(0.1), pytest.approx(0.4))
    sizes = [30, 2, 4, 2]
    assert report.activation == pytest.approx(np.average([row.activation for row in report.rows], weights=sizes))


def test_rows_are_the_owners_of_weights():
    model = keras.Sequential([keras.Input((6, 8)), layers.LSTM(4, name="lstm"), layers.Dense(2, name="head")])
    assert [(row.name, row.weights) for row in kp.report(model).rows] == [("lstm/lstm_cell", 192), ("head", 8)]


def test_shared_layers_have_one_row_and_count_one_call():
    shared, inputs = layers.Dense(8, name="shared"), keras.Input((8,))
    (row,) = kp.report(keras.Model(inputs, shared(shared(inputs)))).rows
    assert (row.weights, row.flop) == (64, 128)


class OwnLayer(layers.Layer):
    def build(self, inputs_shape, state_shape=None):
        self.kernel = self.add_weight(shape=(inputs_shape[-1], 2), name="kernel")

    def call(self, inputs, state=None):
        return ops.matmul(inputs, self.kernel)


@pytest.mark.parametrize(
    ("shape", "layer", "operations"),
    [
        ((6, 8), lambda: layers.Dense(4), 2 * 6 * 8 * 4),
        ((6, 8), lambda: layers.Conv1D(4, 3), 2 * 4 * (3 * 8 * 4)),
        ((6, 8), lambda: layers.Conv1D(4, 3, strides=2, padding="same", groups=2), 2 * 3 * (3 * 4 * 4)),
        ((6, 6, 8), lambda: layers.DepthwiseConv2D(3), 2 * 16 * (9 * 8)),
        ((6, 6, 8), lambda: layers.SeparableConv2D(4, 3), 2 * 16 * (9 * 8 + 8 * 4)),
        ((6, 6, 8), lambda: layers.Conv2DTranspose(4, 3, strides=2), 2 * 36 * (9 * 8 * 4)),
        ((4, 4, 4, 2), lambda: layers.Conv3D(3, 2), 2 * 27 * (8 * 2 * 3)),
        ((6, 8), lambda: layers.LSTM(4), 2 * 6 * (8 * 16 + 4 * 16)),
        ((6, 8), lambda: layers.GRU(4, return_sequences=True), 2 * 6 * (8 * 12 + 4 * 12)),
        ((6, 8), lambda: layers.Bidirectional(layers.SimpleRNN(4)), 2 * 6 * (8 * 4 + 4 * 4)),
        ((6,), lambda: layers.Embedding(10, 4), 0),
        ((None, 8), lambda: layers.Dense(4), None),
        ((None, 8), lambda: layers.LSTM(4), None),
        ((5, 6, 6, 2), lambda: layers.ConvLSTM2D(3, 3), None),
        ((6, 8), lambda: layers.EinsumDense("abc,cd->abd", output_shape=(None, 4)), None),
        ((6, 8), OwnLayer, None),
    ],
)
def test_flop_is_twice_the_weights_times_the_positions(shape, layer, operations):
    model = keras.Sequential([keras.Input(shape), layer()])
    for either in (model, kp.prune(model)):
        assert {row.flop for row in kp.report(either).rows} == {operations}
    assert str(kp.report(model)).count(" - ") >= (operations is None)


def test_flop_of_recurrent_layers_with_given_states_is_known():
    inputs, state, carry = keras.Input((5, 8)), keras.Input((4,)), keras.Input((4,))
    model = keras.Model([inputs, state, carry], layers.LSTM(4)(inputs, initial_state=[state, carry]))
    assert kp.report(model).flop == 2 * 5 * (8 * 16 + 4 * 16)


def test_flop_is_unknown_if_only_embeddings_are_known():
    inputs = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(6, 4, name="embedding")(inputs)
    report = kp.report(keras.Model(inputs, layers.Dense(3, name="fc")(embedded)))
    assert [row.flop for row in report.rows] == [0, None]
    assert report.to_dict()["flop"] is None
    assert str(report).splitlines()[-3].split("│")[4].strip() == "-"
    assert kp.report(keras.Model(inputs, embedded)).flop == 0


def test_flop_does_not_depend_on_the_data_format():
    kinds = (layers.Conv2D, layers.SeparableConv2D, layers.Conv2DTranspose)
    for kind in kinds:
        last = keras.Sequential([keras.Input((6, 7, 2)), kind(3, 3, data_format="channels_last")])
        first = keras.Sequential([keras.Input((2, 6, 7)), kind(3, 3, data_format="channels_first")])
        assert kp.report(first).flop == kp.report(last).flop > 0


def test_report_of_a_loaded_model_is_the_same(tmp_path):
    model = small_convolutional_model()
    model.save(tmp_path / "model.keras")
    assert str(kp.report(keras.models.load_model(tmp_path / "model.keras"), IMAGES)) == str(kp.report(model, IMAGES))


def test_names_and_numbers_are_not_truncated():
    names = ["a_layer_whose_name_is_long_" * 4, "conv[a]", ":smile:"]
    units = [20_000, 1_000, 2]
    model = keras.Sequential(
        [
            keras.Input((8,)),
            *(layers.Dense(u, name=n, kernel_initializer="ones") for u, n in zip(units, names, strict=True)),
        ]
    )
    text = str(kp.report(model))
    assert "…" not in text
    for expected in (*names[1:], "20,000,000", "40,000,000", "20,162,000 of 20,162,000"):
        assert expected in text
    assert names[0] in "".join(line.split("│")[1].strip() for line in text.splitlines() if "│" in line)


def test_compression_is_infinite_without_connections_left():
    report = kp.report(keras.Sequential([keras.Input((8,)), layers.Dense(3, kernel_initializer="zeros")]))
    assert (report.kept, report.density, report.sparsity, report.compression) == (0, 0, 1, math.inf)
    assert "0 of 24 connections" in str(report)
    assert report.to_dict()["compression"] is None


def test_report_rejects_models_without_connections():
    with pytest.raises(ValueError, match=r"has no connections.*Received: model=.* with layers \['re_lu"):
        kp.report(keras.Sequential([keras.Input((8,)), layers.ReLU()]))


def test_report_has_a_dict_and_a_repr():
    report = kp.report(cut(kp.prune(small_convolutional_model(), kp.TargetSparsity(0.5))), IMAGES)
    values = json.loads(json.dumps(report.to_dict()))
    assert values["rows"] == [row.to_dict() for row in report.rows]
    assert (values["sparsity"], values["compression"], values["activation"]) == (0.5, 2.0, report.activation)
    assert values["storage"]["dense_bytes"] > values["storage"]["stored_bytes"] > values["storage"]["bound_bytes"]
    assert repr(report) == "<Report layers=3, sparsity=0.5, compression=2>"


def test_rows_are_named_by_their_path_in_the_model():
    base = keras.Sequential([keras.Input((4,)), layers.Dense(3, name="fc")], name="base")
    inputs = keras.Input((4,))
    nested = keras.Model(inputs, layers.Dense(2, name="head")(base(inputs)))
    # Not by `layer.path`, which starts with the model in which Keras built the layer first.
    cut_out = keras.Sequential([keras.Input((4,)), *base.layers, layers.Dense(2, name="head")])
    assert [row.name for row in kp.report(nested).rows] == ["base/fc", "head"]
    assert [row.name for row in kp.report(cut_out).rows] == ["fc", "head"]


def stripped_model():
    model = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="fc"), layers.Dense(4, name="head")])
    kp.cut(kp.prune(model, kp.TargetSparsity(0.75)))
    return kp.strip(model)


def test_report_counts_the_update_of_lora():
    model = stripped_model()
    model.layers[0].enable_lora(2)
    assert [row.density for row in kp.report(model).rows] == [0.25, 0.25]  # The update is zero at first.
    model.layers[0].lora_kernel_b.assign(np.ones((2, 8)))
    assert [row.density for row in kp.report(model).rows] == [1, 0.25]
    with pytest.warns(UserWarning, match=r"left out layers with weights. .*/fc: LoRA adds an update"):
        kp.prune(model)
    report = kp.report(model)
    assert [row.density for row in report.rows] == [1, 0.25]
    assert report.skipped == {"fc": skip_reasons.ADAPTED}


@pytest.mark.parametrize(("mode", "density"), [("int8", 0.25), ("float8", 0.25), ("int4", None)])
def test_report_counts_quantized_weights_if_they_are_readable(mode, density):
    model = stripped_model()
    model.layers[0].quantize(mode)
    report = kp.report(model)
    assert {row.name: row.density for row in report.rows}.get("fc") == (density and pytest.approx(density, abs=0.02))
    assert report.skipped == ({} if density else {"fc": skip_reasons.QUANTIZED})
