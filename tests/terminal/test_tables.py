"""Tables fit 100 columns and lose nothing."""

import pytest
from benchmark_rows import measurement, results

import keras_prune as kp
from keras_prune.analysis.report import Report, Row
from keras_prune.analysis.sensitivity import Point, Sensitivity
from keras_prune.deployment.deployment_plan import DeploymentPlan, LayerPlan
from keras_prune.neurons.report import DeadNeurons, LayerNeurons
from keras_prune.terminal.tables import Table, table_with_lines, wrapped

NAME = "backbone/transformer_layer_11_feedforward/block_3_expand/depthwise_convolution"
MANY = 98_765_432
PLAN = LayerPlan(NAME, "dynamic range quantized convolution", MANY, kp.Blocks((16, 1)), 0.51, 0.66, "slow " * 30)
TABLES = {
    "report": Report([Row(NAME, MANY, MANY, 200 * MANY, 0.38, 0.08, 0.5, 10)], {NAME: "why " * 40}),
    "sensitivity": Sensitivity(
        {NAME: [Point(kp.TargetSparsity(0.5, kp.Blocks((4, 1))), 0.3, 0.9)]},
        0.98,
        "sparse_top_k_categorical_accuracy",
        1,
    ),
    "dead neurons": DeadNeurons([LayerNeurons(NAME, MANY, MANY, MANY, MANY, MANY, MANY, "note " * 40)]),
    "deployment plan": DeploymentPlan("XNNPACK", [PLAN], {NAME: "stop " * 40}),
    "benchmark": results([measurement("TensorFlow CSR", MANY)._replace(workload=NAME, batch_size=4096)]),
}


def columns(text):
    """Returns the joined text of each column, without the frame."""
    rows = [line.strip("┃│").replace("┃", "│").split("│") for line in text.splitlines() if line[:1] in "┃│"]
    return ["".join(cell.strip() for cell in column) for column in zip(*rows, strict=True)]


@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_fit_and_keep_long_names(table):
    text = str(table)
    assert max(map(len, text.splitlines())) <= 100
    assert "…" not in text
    assert NAME in columns(text)[0]


@pytest.mark.parametrize("name", ["report", "dead neurons", "deployment plan"])
def test_tables_keep_large_numbers(name):
    assert any(f"{MANY:,}" in column for column in columns(str(TABLES[name])))


def test_names_are_folded_behind_slashes():
    table = Table("title", ["layer"], ["a" * 62])
    table.add_row("encoder/transformer_layer_12/output", "1")
    lines = table_with_lines(table, []).splitlines()
    assert [line.split("│")[1].strip() for line in lines if line.startswith("│")] == [
        "encoder/transformer_layer_12/",
        "output",
    ]


def test_headings_are_wrapped_before_names_get_narrow():
    table = Table("title", ["layer"], ["a long heading of many words"] * 4)
    table.add_row("n" * 30, "1", "2", "3", "4")
    text = table_with_lines(table, [])
    assert "n" * 30 in text
    assert max(map(len, text.splitlines())) <= 100


def test_tables_that_fit_are_not_changed():
    table = Table("t", ["name"], ["of two words"])
    table.add_row("a", "1")
    table.add_section()
    table.add_row("b_c", "2")
    assert table_with_lines(table, ["below"]).splitlines()[1:] == [
        "┏━━━━━━┳━━━━━━━━━━━━━━┓",
        "┃ name ┃ of two words ┃",
        "┡━━━━━━╇━━━━━━━━━━━━━━┩",
        "│ a    │            1 │",
        "├──────┼──────────────┤",
        "│ b_c  │            2 │",
        "└──────┴──────────────┘",
        "below",
    ]


def test_lines_are_wrapped():
    assert [len(line) for line in wrapped(["a" * 60 + " " + "b" * 60, "c"]).splitlines()] == [60, 60, 1]
