"""The package installs what it imports, and documents what it exports."""

import ast
import dataclasses
import inspect
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import keras
import pytest

import keras_prune as kp

ROOT = Path(__file__).resolve().parents[1]
COMMANDS = [
    "pip install -e '.[examples]' && python examples/mnist.py",
    "pip install -e '.[test]' && pytest",
]
# Distributions whose names differ from those of their modules.
DISTRIBUTIONS = {"absl": "absl_py", "sklearn": "scikit_learn"}

PRUNE_WITHOUT_EXTRAS = """
import builtins

unguarded = builtins.__import__

def guarded(name, globals=None, *args, **kwargs):
    importer = (globals or {}).get("__name__", "")
    if importer.startswith("keras_prune") and name.partition(".")[0] in EXTRAS:
        raise ModuleNotFoundError(f"No module named {name!r}, which {importer} asked for")
    return unguarded(name, globals, *args, **kwargs)

builtins.__import__ = guarded

import keras
import numpy as np
import keras_prune as kp

model = kp.prune(keras.Sequential([keras.Input((4,)), keras.layers.Dense(8)]), kp.TargetSparsity(0.5))
model.compile("sgd", "mse")
model.fit(np.ones((8, 4)), np.ones((8, 8)), verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(), verbose=0)])
print(kp.report(model).kept, np.count_nonzero(kp.strip(model).get_weights()[0]))
"""


@pytest.fixture
def arguments(monkeypatch):
    """Returns the arguments that setup.py passes to setuptools."""
    setuptools = pytest.importorskip("setuptools")
    received = {}
    monkeypatch.setattr(setuptools, "setup", lambda **kwargs: received.update(kwargs))
    monkeypatch.chdir(ROOT)
    runpy.run_path("setup.py")
    return received


def imported_distributions(folder):
    """Returns the third-party distributions that the sources of a folder import."""
    files = list((ROOT / folder).rglob("*.py"))
    nodes = [node for file in files for node in ast.walk(ast.parse(file.read_text()))]
    modules = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    modules += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    names = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    names -= {"keras_prune", *(file.stem for file in files)}
    return {DISTRIBUTIONS.get(name, name) for name in names}


def distributions(requirements):
    """Returns the names in a list of requirements, `scikit-learn>=1.4` as `scikit_learn`."""
    return {re.match(r"[\w-]+", requirement)[0].replace("-", "_") for requirement in requirements}


def test_prune_imports_no_extra():
    extras = {"ai_edge_litert", "matplotlib", "scipy", "sklearn", "tensorflow", "tensorflow_datasets"}
    extras -= {keras.backend.backend()}
    code = f"EXTRAS = {extras}\n{PRUNE_WITHOUT_EXTRAS}"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=False)
    assert run.stdout.strip() == "16 16", run.stderr


@pytest.mark.parametrize("name", kp.__all__)
def test_public_names_have_docstrings_with_examples(name):
    if name == "plots":
        pytest.importorskip("matplotlib")
    value = getattr(kp, name)
    summary, _, rest = inspect.getdoc(value).partition("\n")
    assert summary.endswith(".")
    # The example of a function shows its result.
    result = inspect.isclass(value) and (issubclass(value, tuple) or dataclasses.is_dataclass(value))
    assert result or inspect.ismodule(value) or ">>> " in rest


def test_public_names_are_sorted_and_listed():
    assert kp.__all__ == sorted(set(kp.__all__))
    assert set(kp.__all__) <= set(dir(kp))


def test_version_is_that_of_the_package(arguments):
    assert arguments["version"] == kp.__version__


def test_package_ships_every_folder(arguments):
    folders = {file.parent.relative_to(ROOT) for file in (ROOT / "keras_prune").rglob("*.py")}
    assert {Path(*package.split(".")) for package in arguments["packages"]} == folders


def test_package_ships_its_types(arguments):
    assert "py.typed" in arguments["package_data"]["keras_prune"]
    assert (ROOT / "keras_prune/py.typed").exists()


def test_requirements_cover_all_imports(arguments):
    core, extras = distributions(arguments["install_requires"]), arguments["extras_require"]
    assert "tensorflow" not in core
    # One of the examples is of PyTorch.
    assert imported_distributions("examples") <= core | distributions(extras["examples"] + extras["torch"])
    assert imported_distributions("keras_prune") <= core.union(*map(distributions, extras.values()))


def test_ci_runs_the_commands_of_the_readme():
    blocks = "".join(re.findall(r"^```\w*\n(.*?)^```$", (ROOT / "README.md").read_text(), re.MULTILINE | re.DOTALL))
    assert [line for line in blocks.splitlines() if line in COMMANDS] == COMMANDS
    search = re.search(r"mapfile -t commands < <\((grep .* README.md)\)", (ROOT / ".ci/run").read_text())[1]
    found = subprocess.run(["bash", "-c", search], cwd=ROOT, capture_output=True, text=True, check=True)
    assert found.stdout.splitlines() == COMMANDS


def test_readme_of_the_package_links_files_absolutely(arguments):
    links = re.findall(r"\]\(([^)]+)\)", arguments["long_description"])
    files = [link.partition("/main/")[2] for link in links if link.startswith(arguments["url"])]
    assert len(files) > 20
    assert [file for file in files if not (ROOT / file).exists()] == []
    assert [link for link in links if not link.startswith("https://")] == []


def test_ci_is_executable():
    assert os.access(ROOT / ".ci/run", os.X_OK)
