"""The BUILD files, executed with stubs of Bazel's rules, against the sources and their imports."""

import ast
import re
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest

ROOT = Path(__file__).resolve().parents[1]
LOCK = (ROOT / "requirements_lock.txt").read_text()
LOCKED = {name.replace("-", "_") for name in re.findall(r"^[\w-]+(?===)", LOCK, re.MULTILINE)}
# Packages that are installed under another name than they are imported.
DISTRIBUTIONS = {"absl": "absl_py", "sklearn": "scikit_learn"}
# Keras imports its backend, pytest the conftest files, and `_lazy.import_after` the layers of compat.
NOT_IMPORTED = {"//:conftest", "//keras_prune/compat:compat", "//tests:conftest", "@pypi//tensorflow"}


def files_of_repository(pattern):
    """Returns the files that match a pattern, without build folders and virtual environments."""
    return {file for file in ROOT.glob(f"**/{pattern}") if not {"build", ".venv"} & set(file.relative_to(ROOT).parts)}


def targets_in(build):
    """Returns `{label: (sources, dependencies)}` of a BUILD file, with labels in full."""
    package, found = build.parent.relative_to(ROOT).as_posix().removeprefix("."), {}

    def full(label):
        if label.startswith(":"):
            return f"//{package}{label}"
        return label if ":" in label or label[0] == "@" else f"{label}:{label.rpartition('/')[2]}"

    def glob(patterns, exclude=()):
        files = {file.relative_to(build.parent).as_posix() for one in patterns for file in build.parent.glob(one)}
        return sorted(files.difference(glob(exclude) if exclude else ()))

    def rule(name, srcs=(), pyi_srcs=(), deps=(), **_):
        assert full(f":{name}") not in found
        found[full(f":{name}")] = [build.parent / file for file in [*srcs, *pyi_srcs]], {full(one) for one in deps}

    def load(label, *_):
        if label.startswith("//"):
            execute(ROOT / label[2:].replace(":", "/"))

    def execute(file):
        exec(compile(file.read_text(), file, "exec"), names)

    names = {"glob": glob, "load": load, "native": SimpleNamespace(package_name=lambda: package)}
    names |= dict.fromkeys(("exports_files", "package"), lambda *_, **__: None)
    names |= dict.fromkeys(("py_binary", "py_library", "py_test"), rule)
    execute(build)
    return found


TARGETS = {label: target for build in files_of_repository("BUILD") for label, target in targets_in(build).items()}
OWNERS = {file: label for label, (files, _) in TARGETS.items() for file in files}


def imported_label(module):
    """Returns the label that a module comes from. Python's own modules and optional packages have none."""
    parts = module.split(".")
    for folder in (ROOT, ROOT / "tests", ROOT / "examples", ROOT / "experiments"):
        for end in range(len(parts), 0, -1):
            for ending in (".py", "/__init__.py"):
                if (file := folder / ("/".join(parts[:end]) + ending)) in OWNERS:
                    return OWNERS[file]
    name = DISTRIBUTIONS.get(parts[0], parts[0])
    return f"@pypi//{name}" if name in LOCKED else None


def imports(file):
    """Yields the names that a file imports, `a.b` and `a.b.c` for `from a.b import c`."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_build_files_hold_each_source_once():
    sources = Counter(file for files, _ in TARGETS.values() for file in files)
    assert files_of_repository("*.py") | files_of_repository("*.pyi") == set(sources)
    assert set(sources.values()) == {1}


@pytest.mark.parametrize("label", sorted(TARGETS))
def test_build_files_depend_on_all_imports(label):
    files, dependencies = TARGETS[label]
    imported = {imported_label(module) for file in files for module in imports(file)} - {None, label}
    assert imported <= dependencies
    assert not files or dependencies <= imported | NOT_IMPORTED
    assert {one for one in dependencies if one.startswith("//")} <= set(TARGETS)
    assert {one.removeprefix("@pypi//") for one in dependencies if one.startswith("@")} <= LOCKED
