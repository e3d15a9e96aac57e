"""BUILD says what the sources say. `python tests/test_build_file.py` writes it anew."""

import ast
import difflib
import graphlib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FOLDERS = ("keras_prune", "examples", "tests")
HEADER = '''"""Written by `python tests/test_build_file.py` from the imports in the sources.

Third-party packages are those of the Python environment: `pip install -e '.[test]'`, then
`bazel test --test_env=PATH //...`.
"""

load("@rules_python//python:defs.bzl", "py_binary", "py_library", "py_test")

package(default_visibility = ["//visibility:public"])

filegroup(
    name = "repository",
    srcs = glob(
        [
            "*",
            ".ci/*",
            "docs/**",
            "examples/**",
            "keras_prune/**",
            "tests/**",
        ],
        exclude = ["**/__pycache__/**"],
    ),
)

py_test(
    name = "doctests",
    srcs = ["tests/pytest_main.py"],
    args = ["keras_prune"],
    data = [":repository"],
    main = "tests/pytest_main.py",
)
'''


def source_files(root):
    """The Python files of the repository, as paths relative to `root`, in the order of BUILD."""
    return [file.relative_to(root) for folder in FOLDERS for file in sorted((root / folder).rglob("*.py"))]


def target_name(file):
    """`keras_prune/export/tflite.py` is `export_tflite`, a package's `__init__.py` bears the name of its folder."""
    parts = file.with_suffix("").parts
    parts = parts[:-1] if parts[-1] == "__init__" else parts
    return "_".join(parts if parts[0] == "examples" else parts[1:] or parts)


def imports(code, modules=()):
    """The dotted names that Python code imports, anywhere in it, `from a import b` as both `a` and `a.b`.

    Of a package from which only `modules` are imported, `a` is left out.
    """
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            if node.level:
                raise ValueError(f"Write imports in full. Received: line {node.lineno}, a relative import")
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            if not all(name in modules for name in names):
                yield node.module
            yield from names


def dependencies(root):
    """For every Python file the other files of the repository that it imports, from its own folder without a prefix."""
    files = source_files(root)
    modules = {".".join(f.parent.parts if f.name == "__init__.py" else f.with_suffix("").parts): f for f in files}
    needed = {}
    for file in files:
        names = list(imports((root / file).read_text(), modules))
        if file.parts[0] != "keras_prune":
            names += [".".join([*file.parent.parts, name]) for name in names]
        needed[file] = sorted({modules[name] for name in names if name in modules} - {file})
    return needed


def target(root, file, needs):
    """The target that should stand in BUILD for `file`, in the format of buildifier; `needs` are all dependencies."""
    folder, code, needed = file.parts[0], (root / file).read_text(), needs[file]
    attributes = {"name": target_name(file)}
    if folder == "tests" and file.name.startswith("test_"):
        kind = "py_test"
        needed = needed + [other for other in needs if other.name == "conftest.py" and other.parent in file.parents]
        attributes["srcs"] = sorted(["tests/pytest_main.py", str(file)])
        attributes["args"] = [str(file)]
        # A test that looks for other files from its own may open any; the settings of pytest are for all tests.
        attributes["data"] = [":repository" if "__file__" in code else "pyproject.toml"]
        attributes["main"] = "tests/pytest_main.py"
    else:
        script = folder == "examples" and not any(file in others for others in needs.values())
        script = script or (folder == "keras_prune" and 'if __name__ == "__main__":' in code)
        kind = "py_binary" if script else "py_library"
        if folder == "tests":
            attributes["testonly"] = True
        attributes["srcs"] = [str(file)]
        if kind == "py_binary":
            attributes["main"] = str(file)
        if file.parts == ("keras_prune", "__init__.py"):
            attributes["data"] = ["keras_prune/py.typed"]
    if needed:
        attributes["deps"] = sorted({f":{target_name(other)}" for other in needed})
    lines = [f"    {attribute} = {starlark(value)}," for attribute, value in attributes.items()]
    return "\n".join([f"{kind}(", *lines, ")\n"])


def starlark(value):
    """A boolean, a string or a list of strings as buildifier writes it."""
    if isinstance(value, list) and len(value) > 1:
        return "[\n" + "".join(f'        "{entry}",\n' for entry in value) + "    ]"
    return repr(value).replace("'", '"')


def build_file(root):
    """The text of BUILD."""
    needs = dependencies(root)
    return "\n".join([HEADER, *(target(root, file, needs) for file in needs)])


@pytest.fixture
def repository(tmp_path):
    """A small repository: a package, an example and a test."""
    for file, code in {
        "keras_prune/__init__.py": "from keras_prune.masks import mask\n",
        "keras_prune/masks.py": "import numpy\n\n\ndef mask():\n    import keras_prune.export.xla\n",
        "keras_prune/export/__init__.py": "",
        "keras_prune/export/xla.py": "",
        "examples/quickstart.py": "import keras_prune as kp\nimport tables\n",
        "examples/tables.py": "import keras\n",
        "tests/conftest.py": "",
        "tests/test_masks.py": "from keras_prune import export, masks\n",
    }.items():
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(code)
    return tmp_path


def test_build_has_a_target_for_every_source_file_with_the_dependencies_that_it_imports():
    is_now, should_be = (ROOT / "BUILD").read_text(), build_file(ROOT)
    difference = difflib.unified_diff(
        is_now.splitlines(), should_be.splitlines(), "BUILD", "as it should be", lineterm=""
    )
    if is_now != should_be:
        pytest.fail("Run `python tests/test_build_file.py`:\n" + "\n".join(difference), pytrace=False)


def test_every_source_file_is_in_a_target_and_every_dependency_is_a_target():
    rules = [node.value for node in ast.parse((ROOT / "BUILD").read_text()).body if isinstance(node.value, ast.Call)]
    targets = [
        {argument.arg: ast.literal_eval(argument.value) for argument in rule.keywords}
        for rule in rules
        if rule.func.id in ("py_binary", "py_library", "py_test")
    ]
    names = [entry["name"] for entry in targets]
    assert len(set(names)) == len(names)
    assert {label[1:] for entry in targets for label in entry.get("deps", [])} <= set(names)
    assert {source for entry in targets for source in entry["srcs"]} == set(map(str, source_files(ROOT)))


def test_dependencies_point_one_way():
    graphlib.TopologicalSorter(dependencies(ROOT)).prepare()


def test_imports_of_every_form_become_dependencies(repository):
    needed = {str(file): [str(other) for other in others] for file, others in dependencies(repository).items()}
    assert needed == {
        "keras_prune/__init__.py": ["keras_prune/masks.py"],
        "keras_prune/masks.py": ["keras_prune/export/xla.py"],
        "keras_prune/export/__init__.py": [],
        "keras_prune/export/xla.py": [],
        "examples/quickstart.py": ["examples/tables.py", "keras_prune/__init__.py"],
        "examples/tables.py": [],
        "tests/conftest.py": [],
        "tests/test_masks.py": ["keras_prune/export/__init__.py", "keras_prune/masks.py"],
    }


def test_targets_are_libraries_binaries_and_tests(repository):
    text = build_file(repository)
    assert 'py_library(\n    name = "export_xla",\n    srcs = ["keras_prune/export/xla.py"],\n)\n' in text
    binary = text[text.index('py_binary(\n    name = "examples_quickstart"') :]
    assert 'main = "examples/quickstart.py"' in binary[: binary.index(")")]
    assert 'py_library(\n    name = "examples_tables",\n' in text
    test = text[text.index('py_test(\n    name = "test_masks"') :]
    assert all(f'"{label}",\n' in test for label in (":conftest", ":export", ":masks"))


def test_an_import_loop_is_found(repository):
    (repository / "keras_prune/export/xla.py").write_text("import keras_prune\n")
    with pytest.raises(graphlib.CycleError):
        graphlib.TopologicalSorter(dependencies(repository)).prepare()


if __name__ == "__main__":
    (ROOT / "BUILD").write_text(build_file(ROOT))
