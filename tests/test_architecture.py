"""Rules for the sources that ruff and import-linter do not check."""

import ast
import re
from pathlib import Path

import keras_prune as kp

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "keras_prune"
# The methods of a named tuple that begin with an underscore are public, and so is os._exit.
PUBLIC = {"_asdict", "_exit", "_fields", "_make", "_replace"}


def nodes(folder):
    """Yields the nodes of all sources in a folder, each with its place."""
    for file in sorted(folder.rglob("*.py")):
        for node in ast.walk(ast.parse(file.read_text())):
            yield node, f"{file.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def functions(folder):
    return [(node, place) for node, place in nodes(folder) if isinstance(node, ast.FunctionDef)]


def is_private(name):
    return name.startswith("_") and not name.endswith("__") and name not in PUBLIC


def uses_private_name(node):
    """Returns whether an expression or import uses a private name of another module or class."""
    if isinstance(node, ast.Attribute):
        own = isinstance(node.value, ast.Name) and node.value.id in ("self", "cls")
        return is_private(node.attr) and not own
    if isinstance(node, ast.ImportFrom):
        names = [alias.name for alias in node.names if alias.name not in ("_arguments", "_keras", "_lazy")]
        return any(map(is_private, names)) or node.module.startswith(("keras.src", "tensorflow.python"))
    if isinstance(node, ast.Import):
        return any(alias.name.startswith(("keras.src", "tensorflow.python")) for alias in node.names)
    return False


def test_private_names_are_used_in_the_keras_module_only():
    found = [place for node, place in nodes(PACKAGE) if uses_private_name(node)]
    assert [place for place in found if not place.startswith("keras_prune/_keras.py")] == []


def test_modules_have_at_most_300_lines():
    lengths = {file.relative_to(ROOT): len(file.read_text().splitlines()) for file in PACKAGE.rglob("*.py")}
    assert {file: length for file, length in lengths.items() if length > 300} == {}


def test_functions_have_at_most_60_lines():
    def lines(function):
        documented = ast.get_docstring(function) is not None
        docstring = function.body[0].end_lineno - function.body[0].lineno + 1 if documented else 0
        return function.end_lineno - function.lineno + 1 - docstring

    assert [place for function, place in functions(PACKAGE) if lines(function) > 60] == []


def test_functions_have_at_most_seven_parameters():
    def parameters(function):
        arguments = function.args
        names = [argument.arg for argument in arguments.posonlyargs + arguments.args + arguments.kwonlyargs]
        return len(names) - (names[:1] in (["self"], ["cls"]))

    assert [place for function, place in functions(PACKAGE) if parameters(function) > 7] == []


def test_root_holds_public_modules_only():
    modules = {file.stem for file in PACKAGE.glob("*.py")}
    private = {"__init__", "_arguments", "_keras", "_lazy", "_processes", "_shards"}
    assert modules - private <= set(kp.__all__)
    assert len(modules) <= 9


def test_value_errors_say_what_was_received():
    raised = [
        (ast.unparse(node.exc), place) for node, place in nodes(PACKAGE) if isinstance(node, ast.Raise) and node.exc
    ]
    # A message that begins in lower case is a reason, which the caller completes.
    sentences = [(error, place) for error, place in raised if re.match(r"ValueError\(f?['\"][^a-z]", error)]
    assert len(sentences) > 50
    assert [place for error, place in sentences if "received" not in error.lower()] == []


def test_names_of_tests_have_at_most_60_characters():
    tests = [(node.name, place) for node, place in functions(ROOT / "tests") if node.name.startswith("test_")]
    assert [place for name, place in tests if len(name) > len("test_") + 60] == []
