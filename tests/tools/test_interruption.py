import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest

import keras_prune as kp

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(os.name == "nt", reason="Windows has no such signals")

# A slow import of Keras, which turns an interruption into another error.
SLOW_IMPORT = """
import pathlib, time
pathlib.Path("ready").touch()
try:
    time.sleep(60)
except BaseException as error:
    raise SystemError("initialization raised an error") from error
"""
# A model file that takes long to write.
SLOW_SAVE = """
import pathlib, time
import keras

def save(self, path):
    pathlib.Path(path).write_bytes(b"half")
    pathlib.Path("ready").touch()
    {wait}

keras.Model.save = save
"""
SWALLOWING = """
    for _ in range(60):
        try:
            time.sleep(1)
        except KeyboardInterrupt:
            pathlib.Path("swallowed").touch()
"""


# Shells ignore SIGINT in background processes, and their child processes inherit that.
START = """
import runpy, signal
signal.signal(signal.SIGINT, signal.default_int_handler)
runpy.run_module("keras_prune.tools.command", run_name="__main__")
"""


def popen(arguments, **options):
    command = [sys.executable, "-c", START, *arguments]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture
def interrupt(folder):
    """Function that sends signals to the command when it says that it is ready, and returns status and errors."""

    def interrupt_command(*arguments, numbers, source, name="slow"):
        (folder / f"{name}.py").write_text(source)
        path = os.pathsep.join([str(folder), str(ROOT)])
        process = popen(arguments, env=os.environ | {"PYTHONPATH": path})
        try:
            for file, number in zip(("ready", "swallowed"), numbers, strict=False):
                end = time.time() + 120
                while not (folder / file).exists() and process.poll() is None and time.time() < end:
                    time.sleep(0.02)
                process.send_signal(number)
            out, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        for file in ("ready", "swallowed", f"{name}.py"):
            (folder / file).unlink(missing_ok=True)
        assert out == ""
        return process.returncode, err

    return interrupt_command


def names(folder):
    return sorted(file.name for file in folder.iterdir() if file.name != "__pycache__")


PRUNE = ["prune", "dense.keras", "out.keras", "--sparsity=0.5"]


@pytest.mark.parametrize(
    ("number", "word", "status"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_signals_in_imports_end_in_one_line(interrupt, folder, number, word, status):
    found = interrupt(*PRUNE, numbers=[number], source=SLOW_IMPORT, name="keras")
    assert found == (status, f"{word}; nothing was written\n")
    assert names(folder) == ["dense.keras"]


def test_interruption_removes_unfinished_files(interrupt, folder):
    source = SLOW_SAVE.format(wait="time.sleep(60)")
    found = interrupt(*PRUNE, "--modules=slow", numbers=[signal.SIGINT], source=source)
    assert found == (130, "interrupted; nothing was written\n")
    assert names(folder) == ["dense.keras"]


def test_second_signal_ends_a_library_that_swallows_the_first(interrupt, folder):
    source = SLOW_SAVE.format(wait=SWALLOWING.strip())
    numbers = [signal.SIGINT, signal.SIGTERM]
    found = interrupt(*PRUNE, "--modules=slow", numbers=numbers, source=source)
    assert found == (130, "interrupted; nothing was written\n")
    assert names(folder) == ["dense.keras"]


@pytest.mark.slow
def test_swallowed_signal_ends_the_command_after_a_while(interrupt, folder):
    source = SLOW_SAVE.format(wait=SWALLOWING.strip())
    found = interrupt(*PRUNE, "--modules=slow", numbers=[signal.SIGTERM], source=source)
    assert found == (143, "terminated; nothing was written\n")
    assert names(folder) == ["dense.keras"]


@pytest.mark.slow
def test_interruption_names_the_rounds_that_are_complete(interrupt, folder):
    model = keras.models.load_model("dense.keras")
    model.compile("sgd", "mse", metrics=["mae"])
    model.save("dense.keras")
    np.savez("train.npz", x=np.ones((40, 16), "float32"), y=np.ones((40, 4), "float32"))
    second = "plain = keras.Model.save\nkeras.Model.save = lambda *_: (save if '01' in str(_[1]) else plain)(*_)"
    source = SLOW_SAVE.format(wait="time.sleep(60)").replace("keras.Model.save = save", second)
    arguments = ["--rounds=2", "--data=train.npz", "--monitor=mae", "--max_drop=9", "--directory=rounds"]
    status, error = interrupt(*PRUNE[:3], *arguments, "--modules=slow", numbers=[signal.SIGINT], source=source)
    assert status == 130
    assert error.splitlines()[-1] == "interrupted; rounds/round_00.keras, rounds/rounds.json written before"
    assert names(folder / "rounds") == ["round_00.keras", "rounds.json"]


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
@pytest.mark.parametrize("arguments", [PRUNE, ["export", "dense.keras", "out.kprune"]])
def test_kills_at_random_times_leave_whole_files(folder, number, arguments):
    model = keras.Sequential([keras.Input((1000,)), *(keras.layers.Dense(1000) for _ in range(6))])
    model.save("dense.keras")
    output, draw = folder / arguments[2], random.Random(int(number))
    started = time.time()
    assert popen(arguments).wait(timeout=120) == 0
    whole = time.time() - started
    for _ in range(8):
        output.unlink()
        process = popen(arguments)
        time.sleep(draw.uniform(0.3, 1.0) * whole)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
        if number != signal.SIGKILL:
            assert process.returncode in (0, 128 + number)
            assert error.count("\n") == (process.returncode != 0)
            assert set(names(folder)) <= {"dense.keras", arguments[2]}
        if output.exists():
            keras.models.load_model(output) if output.suffix == ".keras" else kp.load_sparse(output)
        else:
            output.touch()
