"""The examples of docs/developers/architecture.md run."""

import pathlib
import re

import pytest
from helpers import TORCH

GUIDE = pathlib.Path(__file__).resolve().parents[1] / "docs/developers/architecture.md"


@pytest.mark.skipif(TORCH, reason="PyTorch has no XLA export")
def test_developer_guide_examples_run(tmp_path, monkeypatch, capsys):
    pytest.importorskip("scipy")
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.DOTALL)
    exec("\n".join(blocks), {"__name__": "guide"})
    output = capsys.readouterr().out
    assert "NumPy dense" in output
    assert (tmp_path / "model.pickle").exists()
