import json
import subprocess
import sys
import warnings

import pytest
from absl import flags

import keras_prune as kp
from keras_prune.tools.command import SUBCOMMANDS
from keras_prune.tools.subcommand import finite

HELP = """
import sys
from keras_prune.tools.command import main
for arguments in [["--help"], *([name, "--help"] for name in sys.argv[1:])]:
    assert main(arguments) == 0
heavy = {"keras", "tensorflow", "jax", "torch", "numpy", "rich"} & set(sys.modules)
assert not heavy, heavy
"""


def test_help_imports_neither_keras_nor_numpy():
    command = [sys.executable, "-c", HELP, *SUBCOMMANDS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("usage: keras-prune SUBCOMMAND")


def test_help_lists_each_subcommand(run):
    lines = run("--help").splitlines()
    assert [line.split()[0] for line in lines if line.startswith("  ")] == list(SUBCOMMANDS)
    assert run("-h") == run("help") == run("--help")
    assert run("--version") == f"keras-prune {kp.__version__}\n"


@pytest.mark.parametrize("name", SUBCOMMANDS)
def test_help_of_a_subcommand_fits_the_terminal(name, run):
    text = run(name, "--help")
    assert text.startswith(f"usage: keras-prune {name} ")
    assert f"\n  keras-prune {name} " in text
    assert "--[no]json" in text
    assert max(map(len, text.splitlines())) <= 100


def test_flags_in_examples_exist():
    for subcommand in SUBCOMMANDS.values():
        examples = [line for line in subcommand.usage.splitlines() if "keras-prune" in line]
        used = {word[2:].partition("=")[0] for line in examples for word in line.split() if word.startswith("--")}
        assert used <= set(subcommand.all_flags())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Expected one of prune, report, plan, export, benchmark. Received: nothing"),
        (["prun", "a", "b"], "Did you mean prune? Received: prun"),
        (["inspect"], "Expected one of prune, "),
        (["prune", "dense.keras"], "Expected the files MODEL OUTPUT; keras-prune prune --help shows examples"),
        (["prune", "a", "b", "c"], "Received: a b c"),
        (["prune", "a", "b", "--sparsty=1"], "Did you mean: sparsity"),
        (["prune", "a", "b", "--quality=x"], "--quality=x"),
        (["report", "no.keras"], "Expected a model that Keras saved, but there is no such file. Received: 'no.keras'"),
    ],
)
def test_errors_take_one_line(run, folder, arguments, message):
    error = run(*arguments, status=2)
    assert error.startswith("error: ")
    assert error.count("\n") == 0
    assert message in error


def test_unexpected_errors_take_one_line(run, folder, monkeypatch):
    def report(*_):
        raise KeyError("of a\nlibrary")

    monkeypatch.setattr(kp, "report", report, raising=False)
    assert run("report", "dense.keras", status=2).endswith("(--traceback shows where)")
    with pytest.raises(KeyError):
        run("report", "dense.keras", "--traceback")


def test_missing_backend_is_named(start, folder):
    done = start("report", "dense.keras", KERAS_BACKEND="no_backend")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "set the environment variable KERAS_BACKEND to another" in done.stderr
    assert done.stderr.endswith("Received: KERAS_BACKEND='no_backend'\n")


def test_flags_of_the_process_stay(run, folder):
    before = set(flags.FLAGS)
    run("prune", "dense.keras", "out.keras", "--sparsity=0.5")
    assert set(flags.FLAGS) == before
    assert not flags.FLAGS.is_parsed()


def test_warnings_take_one_line(run, folder, monkeypatch):
    def report(*_):
        warnings.warn("the first\nand the second line", stacklevel=1)
        print("what a library prints")
        raise ValueError("and then this")

    monkeypatch.setattr(kp, "report", report, raising=False)
    lines = run("report", "dense.keras", status=2).splitlines()
    assert lines == ["warning: the first and the second line", "what a library prints", "error: and then this"]


def test_json_holds_no_infinite_numbers():
    values = finite({"rows": [(float("nan"), 1.5), float("inf")], "name": "a", "none": None})
    assert json.dumps(values, allow_nan=False) == '{"rows": [[null, 1.5], null], "name": "a", "none": null}'
