import os
import pathlib
import subprocess
import sys

import keras
import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The current folder, which holds a small model in `dense.keras`."""
    monkeypatch.chdir(tmp_path)
    layers = [keras.Input((16,)), keras.layers.Dense(12, name="fc1"), keras.layers.Dense(4, name="fc2")]
    keras.Sequential(layers, name="net").save("dense.keras")
    return tmp_path


@pytest.fixture
def run(capsys):
    """Function that runs a tool in this process and returns its output, or the error for a status other than 0."""

    def run_tool(tool, *arguments, status=0):
        capsys.readouterr()
        returned = tool.main([*map(str, arguments)])
        output = capsys.readouterr()
        assert returned == status, output.err
        return output.err.splitlines()[-1] if status else output.out

    return run_tool


@pytest.fixture
def start():
    """Function that runs a tool in another process."""

    def start_tool(tool, *arguments):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
        command = [sys.executable, "-m", f"keras_prune.tools.{tool}", *map(str, arguments)]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    return start_tool
