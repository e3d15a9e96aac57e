"""Pages and notebook tables of reports hold every part, escape names, and need nothing from outside."""

import functools
import html.parser
import importlib.util
import re
import sys

import keras
import numpy as np
import pytest
from keras import layers

import keras_prune as kp
from keras_prune import analysis
from keras_prune.analysis import html_page
from keras_prune.analysis import report as report_module
from keras_prune.analysis.report import Report, Row
from keras_prune.layers import skip_reasons
from keras_prune.results import Round

ROUNDS = [Round(1.0, 0.98, True, 0.0), Round(2.0, 0.97, True, 1.5), Round(9.0, 0.4, False, 1.5)]
NAME = "<script>alert('&\"')"
needs_matplotlib = pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="the page has figures")
VOID = {"meta", "wbr", "br", "img", "link"}


class Parsed(html.parser.HTMLParser):
    """Elements, texts by element, and attributes of a page in which each element is closed."""

    def __init__(self, text):
        super().__init__()
        self.open, self.elements, self.links, self.ids, self.texts = [], [], [], [], {}
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.handle_startendtag(tag, attrs)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.ids += [value for name, value in attrs if name == "id"]
        self.links += [value for name, value in attrs if name in ("src", "href", "xlink:href", "action", "data")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open:
            self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data


def pruned(criterion=0.75):
    inputs = keras.Input((6, 6, 2))
    x = layers.Flatten()(layers.Conv2D(4, 3, name="conv")(inputs))
    x = layers.Dropout(0.5)(layers.Dense(20, "relu", name=NAME)(x))
    model = kp.prune(keras.Model(inputs, layers.Dense(3, name="head")(x)), {"head": None, ".*": criterion})
    kp.cut(model)
    return model


def page_of(model, rounds=None):
    return html_page.html_page(kp.report(model), rounds)


@functools.cache
def whole_page():
    report = kp.report(pruned())
    return report, html_page.html_page(report, ROUNDS)


def figures(text):
    return [attrs["aria-label"] for tag, attrs in Parsed(text).elements if tag == "svg"]


@needs_matplotlib
def test_page_holds_every_part():
    report, text = whole_page()
    parsed = Parsed(text)
    for part in ("Layers", "Size and operations", "Rounds", "Weights", "Masks", "Left out"):
        assert part in parsed.texts["h2"]
    labels = figures(text)
    assert [label.split(":")[0] for label in labels[1:]] == [
        "histogram of conv",
        f"histogram of {NAME}",
        "histogram of head",
        f"mask of {NAME}",
    ]
    assert "threshold" in labels[1]
    assert "threshold" not in labels[3]
    assert f"{report.kept:,} of {report.weights:,}" in text
    for number in report.total_bytes().values():
        assert f"{number:,.0f}" in text
    assert "0.25" in parsed.texts["td"]  # The rate of the dropout.


@needs_matplotlib
def test_page_needs_nothing_from_outside():
    _, text = whole_page()
    parsed = Parsed(text)
    assert {tag for tag, _ in parsed.elements} & {"script", "link", "iframe", "object"} == set()
    assert not [link for link in parsed.links if not link.startswith(("#", "data:image/png;base64,"))]
    assert all(target.startswith("#") for target in re.findall(r"url\(([^)]*)\)", text))
    assert "@import" not in text
    assert "://" not in text


@needs_matplotlib
def test_page_refers_to_its_own_parts():
    _, text = whole_page()
    parsed = Parsed(text)
    assert len(parsed.ids) == len(set(parsed.ids))
    used = {link.removeprefix("#") for link in parsed.links if link.startswith("#")}
    assert used | set(re.findall(r"url\(#([^)]*)\)", text)) <= set(parsed.ids)


@needs_matplotlib
def test_names_are_escaped():
    report = kp.report(pruned())
    report.skipped[NAME] = NAME
    for text in (html_page.html_page(report), report._repr_html_()):
        assert "<script" not in text
        assert NAME in "".join(Parsed(text).texts["th"])


@needs_matplotlib
def test_page_is_the_same_for_the_same_report():
    report, text = whole_page()
    assert html_page.html_page(report, ROUNDS) == text


@needs_matplotlib
def test_page_shows_the_model_of_the_table():
    model = pruned()
    report = kp.report(model)
    before = html_page.html_page(report)
    model.set_weights([np.ones_like(weight) for weight in model.get_weights()])
    kp.strip(model)
    assert html_page.html_page(report) == before


def zeros():
    return keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer="zeros")])


def not_finite():
    model = keras.Sequential([keras.Input((2,)), layers.Dense(2)])
    model.set_weights([np.array([[np.nan, np.inf], [1.0, -1.0]]), np.zeros(2)])
    return model


SOUND = {
    "not pruned": (lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3)]), ["histogram"]),
    "stripped": (lambda: kp.strip(pruned()), ["histogram"] * 3 + ["mask"]),
    "blocks": (lambda: pruned(kp.TargetSparsity(0.5, kp.NOfM(2, 4))), ["histogram"] * 3 + ["mask"]),
    "all zero": (zeros, ["mask"]),
    "not finite": (not_finite, ["histogram"]),
    "one value": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Dense(3, kernel_initializer="ones")]),
        ["histogram"],
    ),
    "embedding": (
        lambda: keras.Sequential([keras.Input((4,)), layers.Embedding(9, 2), layers.LSTM(2)]),
        ["histogram"] * 3,
    ),
    "unknown operations": (
        lambda: keras.Sequential([keras.Input((None,)), layers.Embedding(9, 2), layers.Dense(2)]),
        ["histogram"] * 2,
    ),
}


@pytest.mark.parametrize(("model", "expected"), SOUND.values(), ids=SOUND)
@needs_matplotlib
def test_page_of_any_weights_is_sound(model, expected):
    text = page_of(model())
    assert [label.split()[0] for label in figures(text)] == expected
    assert "nan" not in " ".join(Parsed(text).texts["td"])


@needs_matplotlib
def test_page_of_many_layers_shows_the_largest(monkeypatch):
    html_figures = pytest.importorskip("keras_prune.analysis.html_figures")
    monkeypatch.setattr(html_figures, "HISTOGRAMS", 2)
    monkeypatch.setattr(report_module, "MASKS", 1)
    wide = [layers.Dense(2 + index, name=f"fc{index}") for index in range(5)]
    model = kp.prune(keras.Sequential([keras.Input((4,)), *wide]), 0.5)
    kp.cut(model)
    text = page_of(model)
    assert [label.split(":")[0] for label in figures(text)] == ["histogram of fc3", "histogram of fc4", "mask of fc4"]
    assert "the largest 2 of 5 weights" in text
    assert "the largest 1 of 5 weights" in text
    assert all(f"fc{index}<" in text for index in range(5))


@needs_matplotlib
def test_page_shows_a_history():
    history = keras.callbacks.History()
    history.epoch, history.history = [0, 1], {"sparsity": [0.0, 0.5], "loss": [2.0, 1.0], "val_loss": [2.0, 1.5]}
    assert figures(page_of(zeros(), history))[:2] == ["sparsity by epoch", "val_loss by epoch"]


@needs_matplotlib
def test_save_replaces_the_file(tmp_path):
    report = kp.report(zeros())
    path = tmp_path / "report.html"
    path.write_text("old")
    report.save(path)
    assert path.read_text(encoding="utf-8") == html_page.html_page(report)
    assert [file.name for file in tmp_path.iterdir()] == ["report.html"]


def test_save_without_matplotlib_writes_nothing(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("keras_prune.plots", "keras_prune.analysis.html_f"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delattr(analysis, "html_figures", raising=False)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        kp.report(zeros()).save(tmp_path / "report.html")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("path", ["report.htm", "report", "report.html.txt", None])
def test_save_rejects_other_paths(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=re.escape(f"Received: filepath={path!r}")):
        kp.report(zeros()).save(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("rounds", [[], [0.5], "rounds"])
@needs_matplotlib
def test_save_rejects_other_rounds(tmp_path, rounds):
    with pytest.raises(ValueError, match=r"Received: rounds="):
        kp.report(zeros()).save(tmp_path / "report.html", rounds)
    assert not list(tmp_path.iterdir())


def test_notebooks_get_the_table_without_figures(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_prune.plots", None)
    text = kp.report(pruned())._repr_html_()
    rows = [tag for tag, _ in Parsed(text).elements if tag == "tr"]
    assert len(rows) == 1 + 3 + 1
    assert "width: 25.00%" in text
    assert skip_reasons.NO_CRITERION in text


def test_empty_columns_are_left_out():
    row = Row("fc", 10, 5, None, None, 0.5, None, 0)
    assert "dropout" not in Report([row], {})._repr_html_()
    assert "active outputs" not in Report([row], {})._repr_html_()
    assert "active outputs" in Report([row._replace(activation=0.3)], {})._repr_html_()
    assert "dropout" in Report([row._replace(dropout=0.3)], {})._repr_html_()
