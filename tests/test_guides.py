"""The code of the guides runs, and prints what they show."""

import re
from pathlib import Path

import keras
import pytest
from pages import blocks, without_numbers

GUIDES = Path(__file__).resolve().parents[1] / "docs/guides"
OF_OTHER_BACKENDS = re.compile(rf"^import (?!{keras.backend.backend()}\b)(tensorflow|jax|torch)\b", re.MULTILINE)


@pytest.mark.parametrize("guide", ["training", pytest.param("models", marks=pytest.mark.slow)])
def test_guides_print_what_they_show(guide, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "guide"}
    for code, shown in blocks(GUIDES / f"{guide}.md"):
        if not OF_OTHER_BACKENDS.search(code):
            exec(code, names)
            assert without_numbers(capsys.readouterr().out) == without_numbers(shown), code
