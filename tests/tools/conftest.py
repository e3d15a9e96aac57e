import os
import pathlib
import subprocess
import sys

import keras
import pytest

from keras_prune.tools.command import main

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
    """Function that runs a subcommand in this process and returns its output, or else the error."""

    def run_subcommand(*arguments, status=0):
        capsys.readouterr()
        returned = main([*map(str, arguments)])
        output = capsys.readouterr()
        assert returned == status, output.err
        assert not status or not output.out
        return output.err.strip() if status else output.out

    return run_subcommand


@pytest.fixture
def start():
    """Function that runs the command in another process."""

    def start_command(*arguments, **environment):
        command = [sys.executable, "-m", "keras_prune.tools.command", *map(str, arguments)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)} | environment
        return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)

    return start_command
