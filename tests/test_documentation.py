"""The site: an API page for each public name, tables and notebooks that are made anew, and one home of the project."""

import importlib
import importlib.util
import inspect
import re
from collections import Counter
from pathlib import Path

import pytest
from pages import BACKEND, blocks, run, without_numbers

import keras_prune as kp

ROOT = Path(__file__).resolve().parents[1]
WITH_TABLES = [page for page in (ROOT / "docs").rglob("*.md") if "<!-- table:" in page.read_text(encoding="utf-8")]
# Pages with code that runs, and what each imports that a test environment may lack.
QUICK_PAGES = {"README.md": ["sklearn"], "docs/guides/training.md": []}
SLOW_PAGES = {
    "docs/guides/how_much.md": ["sklearn"],
    "docs/guides/models.md": [],
    "docs/guides/neurons.md": ["sklearn"],
    "docs/guides/patterns.md": ["sklearn"],
    "docs/guides/saving.md": ["ai_edge_litert", "tensorflow"],
    "docs/guides/sparse_inference.md": [],
    "docs/guides/tfmot.md": [],
    "docs/guides/transfer.md": ["sklearn"],
    "docs/notebooks/getting_started.md": ["matplotlib", "sklearn"],
    "docs/notebooks/keras_hub_gpt2.md": ["keras_hub", "sklearn"],
}
PAGES = [*QUICK_PAGES, *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW_PAGES)]
TFMOT = "keras_prune.compat.tfmot.sparsity.keras"


def public_names(module):
    """Returns the public names of a module, also if it has no `__all__`."""
    own = [
        name
        for name, value in vars(module).items()
        if not (name.startswith("_") or inspect.ismodule(value))
        and getattr(value, "__module__", "keras_prune").startswith("keras_prune")
    ]
    return getattr(module, "__all__", own)


def public_objects():
    """Yields the full name and the value of everything that is public. A name in two modules comes twice."""
    for name in kp.__all__:
        value = getattr(kp, name)
        if inspect.ismodule(value):
            yield from ((f"keras_prune.{name}.{inner}", getattr(value, inner)) for inner in public_names(value))
        else:
            yield f"keras_prune.{name}", value
    tfmot = importlib.import_module(TFMOT)
    yield from ((f"{TFMOT}.{name}", getattr(tfmot, name)) for name in public_names(tfmot))


def documented_names():
    """Returns the names that the API pages have a directive for."""
    pages = sorted((ROOT / "docs/api").glob("*.md"))
    return [name for page in pages for name in re.findall(r"^::: (\S+)$", page.read_text(), re.MULTILINE)]


def test_api_pages_document_each_public_name_once():
    pytest.importorskip("matplotlib")
    names = {}
    for name, value in public_objects():
        names.setdefault(id(value), set()).add(name)
    documented = Counter(documented_names())
    times = {min(same): sum(documented[name] for name in same) for same in names.values()}
    assert {name: count for name, count in times.items() if count != 1} == {}
    assert set(documented) <= set.union(*names.values())


def test_files_agree_on_version_and_home():
    setup, citation = (ROOT / "setup.py").read_text(), (ROOT / "CITATION.cff").read_text()
    home = re.search(r'^REPOSITORY = "(.+)"$', setup, re.MULTILINE)[1]
    assert f"\nrepository-code: {home}\n" in citation
    assert f"\nversion: {kp.__version__}\n" in citation


@pytest.fixture(scope="module")
def tables():
    """Returns the module that makes the tables of the pages."""
    spec = importlib.util.spec_from_file_location("tables", ROOT / "docs/tables.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.skipif(BACKEND != "jax", reason="tables are the same on all backends, and JAX is imported the fastest")
@pytest.mark.parametrize("page", WITH_TABLES, ids=lambda page: page.stem)
def test_tables_of_pages_are_those_of_the_measurements(page, tables):
    text = page.read_text(encoding="utf-8")
    assert tables.made(text) == text


def test_table_that_no_script_prints_is_refused(tables):
    with pytest.raises(ValueError, match=r"prints no table of that title\. Received: 'unknown', not in \['jax"):
        tables.table("experiments/growth.py --table # unknown")


def test_each_page_with_code_is_run():
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    with_code = {page for page in pages if "```python\n" in page.read_text(encoding="utf-8")}
    with_code -= {ROOT / "docs/developers/architecture.md"}  # tests/test_developer_guide.py
    assert with_code == {ROOT / page for page in QUICK_PAGES | SLOW_PAGES}


def test_tables_without_an_end_are_refused(tables):
    with pytest.raises(ValueError, match="needs its own `<!-- end -->`"):
        tables.made("<!-- table: a -->\ntext\n<!-- table: b -->\n<!-- end -->\n")


@pytest.mark.parametrize("page", PAGES)
def test_pages_print_what_they_show(page, tmp_path):
    for module in (QUICK_PAGES | SLOW_PAGES)[page]:
        pytest.importorskip(module)
    path = ROOT / page
    for (code, shown), printed in zip(blocks(path), run(path, tmp_path), strict=True):
        assert without_numbers(printed) == without_numbers(shown), code
