"""Stubs for editors and type checkers against the modules that import lazily."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "keras_prune"


@pytest.mark.parametrize("module", ["__init__", "results"])
def test_stubs_name_lazy_imports(module):
    source, stub = (ast.parse((PACKAGE / f"{module}{ending}").read_text()) for ending in (".py", ".pyi"))
    table = next(ast.literal_eval(node) for node in ast.walk(source) if isinstance(node, ast.Dict))
    # A submodule is listed under its own name, as `""`.
    lazy = {(origin, name) if name else tuple(origin.rsplit(".", 1)) for origin, of in table.items() for name in of}
    imports = [node for node in stub.body if isinstance(node, ast.ImportFrom)]
    stubbed = {(node.module, alias.name) for node in imports for alias in node.names}
    assert stubbed == lazy
    assert ast.literal_eval(stub.body[-1].value) == sorted(name for _, name in lazy)
