"""Scripts of `experiments` as modules."""

import importlib
import pathlib
import sys

import pytest
from absl import flags


@pytest.fixture
def import_script(monkeypatch):
    """Returns a function that imports a script. Its flags are removed after the test: other scripts have the same."""
    monkeypatch.syspath_prepend(pathlib.Path(__file__).resolve().parents[2] / "experiments")
    flags_before, modules = set(flags.FLAGS), []

    def imported(name):
        modules.append(name)
        return importlib.import_module(name)

    yield imported
    for name in set(flags.FLAGS) - flags_before:
        delattr(flags.FLAGS, name)
    for name in modules:
        sys.modules.pop(name, None)  # The import may have failed.
