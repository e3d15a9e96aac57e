"""Tests of `PruningBackup`, with which a killed run ends like an unbroken one."""

import os
import pathlib
import random
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, arrays, assert_same, kept

import keras_prune as kp
from keras_prune._processes import gather
from keras_prune.layers.masks import PrunedWeight
from keras_prune.models import checks
from keras_prune.training import backup
from keras_prune.training.backup import common_epoch

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")
EPOCHS = 8


def run(directory, *callbacks, unit="epoch", epochs=EPOCHS):
    """Trains like the script of a user, and returns the state of the model, including masks."""
    keras.utils.set_random_seed(7)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.GaussianNoise(0.1),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.Dropout(0.4),
            keras.layers.Dense(3, name="head"),
        ]
    )
    model = kp.prune(model, kp.StdThreshold(1.5))
    steps = keras.backend.backend() == "tensorflow"
    model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=steps, jit_compile=False)
    schedule = kp.Iterative(rounds=3, epochs_per_round=2, start=1)
    if unit == "step":
        schedule = kp.Polynomial(start=2, end=22, frequency=5, unit="step")
    callbacks = [kp.PruningCallback(schedule, verbose=0), *callbacks, kp.PruningBackup(directory)]
    model.fit(X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    # Not the seeds: they are set before each epoch.
    return [keras.ops.convert_to_numpy(one) for one in model.variables if "seed" not in one.path]


class KilledError(BaseException):
    """No library catches it."""


def killed_in(monkeypatch, target, name, call):
    """Makes the `call`-th call of `target.name` kill the run before it does anything. Later calls work again."""
    original = getattr(target, name)
    calls = []

    def killing(*arguments, **keywords):
        calls.append(arguments)
        if len(calls) == call:
            raise KilledError
        return original(*arguments, **keywords)

    monkeypatch.setattr(target, name, killing)


MOMENTS = {
    "in a cut, between two layers": (PrunedWeight, "cut", 4),
    "in a save, before the file has its name": (os, "replace", 3),
    "in a save, between two layers": (keras.layers.Dense, "save_own_variables", 6),
    "after a save, before the older file is gone": (pathlib.Path, "unlink", 3),
    "between two cuts": (kp.PruningBackup, "on_epoch_begin", 4),
}


@pytest.mark.parametrize("unit", ["epoch", "step"])
@pytest.mark.parametrize("moment", MOMENTS)
def test_killed_run_ends_as_an_unbroken_one(moment, unit, tmp_path, monkeypatch):
    whole = run(tmp_path / "whole", unit=unit)
    with monkeypatch.context() as patch:
        killed_in(patch, *MOMENTS[moment])
        with pytest.raises(KilledError):
            run(tmp_path / "killed", unit=unit)
    for weight, expected in zip(run(tmp_path / "killed", unit=unit), whole, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert [file.name for file in (tmp_path / "killed").iterdir()] == [f"after_epoch_{EPOCHS}.weights.h5"]


class CountEpochs(keras.callbacks.Callback):
    epochs = 0

    def on_epoch_begin(self, epoch, logs=None):
        self.epochs += 1


@pytest.mark.filterwarnings("error:The run ended before the first cut")
def test_finished_run_does_not_train_again(tmp_path):
    whole, count = run(tmp_path), CountEpochs()
    for weight, expected in zip(run(tmp_path, count), whole, strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert count.epochs == 0


class Subclassed(keras.Model):
    """Creates its layers in the constructor, and has no `build`."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = keras.layers.Dense(6, "relu"), keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(self.hidden(inputs))


def fit_subclassed(callback, epochs, kill=None):
    keras.utils.set_random_seed(0)
    model = Subclassed()
    model(X[:1])
    kp.prune(model, kp.TargetSparsity(0.5))
    model.compile("adam", "mse", run_eagerly=keras.backend.backend() == "tensorflow", jit_compile=False)
    callbacks = [kp.PruningCallback(kp.OneShot(start=1), verbose=0), callback, *([kill] if kill else [])]
    history = model.fit(X, Y, batch_size=32, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return history.epoch, arrays([weight.value for weight in model.weights]), kept(model)


class KillAfterTwo(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        if epoch == 2:
            raise KilledError


@pytest.mark.parametrize("callback", [kp.PruningBackup, keras.callbacks.BackupAndRestore])
def test_subclassed_model_resumes_from_its_backup(callback, tmp_path):
    with pytest.raises(KilledError):
        fit_subclassed(callback(tmp_path / "killed"), 4, KillAfterTwo())
    epochs, *resumed = fit_subclassed(callback(tmp_path / "killed"), 4)
    _, *whole = fit_subclassed(callback(tmp_path / "whole"), 4)
    assert epochs == [2, 3]
    for one, other in zip(resumed[0], whole[0], strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6)
    assert resumed[1] == whole[1] == [24, 9]


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the other backends build a model before fit begins"
)
def test_backup_rejects_unbuilt_models(tmp_path):
    model = Subclassed()
    model.compile("sgd", "mse")
    with pytest.raises(
        ValueError, match=r"Call the model on a batch.*Received: unbuilt model 'subclassed.*backup_dir="
    ):
        model.fit(X, Y, verbose=0, callbacks=[kp.PruningBackup(tmp_path)])


@pytest.mark.parametrize("damage", ["truncated", "altered", "of another kind", "of another model"])
def test_backup_that_is_damaged_is_rejected(damage, tmp_path):
    def small(units):
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(units)])
        model.compile("sgd", "mse", run_eagerly=keras.backend.backend() == "tensorflow")
        return model

    small(3).fit(X, Y, epochs=1, verbose=0, callbacks=[kp.PruningBackup(tmp_path)])
    (file,) = tmp_path.iterdir()
    content = file.read_bytes()
    if damage != "of another model":
        damaged = {"truncated": content[:-1], "of another kind": b"content", "altered": bytearray(content)}
        damaged["altered"][len(content) // 2] ^= 1
        file.write_bytes(damaged[damage])
    model, targets = (small(4), Y[:, [0, 1, 2, 2]]) if damage == "of another model" else (small(3), Y)
    with pytest.raises(
        ValueError, match=r"damaged or of another model.* Received: backup_dir='.*', whose after_epoch_1\.weights\.h5"
    ):
        model.fit(X, targets, epochs=2, verbose=0, callbacks=[kp.PruningBackup(tmp_path)])


def test_later_fits_of_a_restored_model_train_all_epochs(tmp_path):
    def small():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        return model

    small().fit(X, Y, epochs=3, verbose=0, callbacks=[kp.PruningBackup(tmp_path / "first")])
    model = small()
    assert not model.fit(X, Y, epochs=3, verbose=0, callbacks=[kp.PruningBackup(tmp_path / "first")]).epoch
    assert model.fit(X, Y, epochs=2, verbose=0).epoch == [0, 1]
    assert model.fit(X, Y, epochs=4, verbose=0, callbacks=[kp.PruningBackup(tmp_path / "first")]).epoch == [3]
    assert model.fit(X, Y, epochs=2, verbose=0, callbacks=[kp.PruningBackup(tmp_path / "second")]).epoch == [0, 1]


def w(index, count, *epochs):
    return [f"worker_{index}_of_{count}/after_epoch_{epoch}.weights.h5" for epoch in epochs]


ONE = ["after_epoch_4.weights.h5"]
SEEN = {
    "nothing": ([[], []], 0),
    "the same two epochs": ([w(0, 2, 4, 5), w(1, 2, 4, 5)], 5),
    "a kill between two saves": ([w(0, 2, 4, 5), w(1, 2, 3, 4)], 4),
    "a kill between a save and the deletion": ([w(0, 2, 3, 4, 5), w(1, 2, 4, 5)], 5),
    "a kill between the first saves": ([w(0, 2, 1), []], 0),
    "a shared directory": ([w(0, 2, 4, 5) + w(1, 2, 3, 4)] * 2, 4),
    "files of one are lost": ([w(0, 2, 4, 5), []], None),
    "a copy for one alone": ([w(0, 2, 5), []], None),
    "nothing in common": ([w(0, 2, 4, 5), w(1, 2, 7, 8)], None),
    "machines that changed places": ([w(1, 2, 4, 5), w(0, 2, 4, 5)], None),
    "more workers than before": ([w(0, 2, 4, 5) + w(1, 2, 4, 5)] * 3, None),
    "fewer workers than before": ([w(0, 3, 4, 5) + w(1, 3, 4, 5) + w(2, 3, 4, 5)] * 2, None),
    "runs of two and of three workers": ([w(0, 2, 4, 5) + w(0, 3, 7), w(1, 2, 4, 5)], None),
    "several workers before": ([w(0, 2, 4, 5)], None),
    "one process before": ([ONE, ONE], None),
    "one process": ([ONE], 4),
}


@pytest.mark.parametrize("case", SEEN)
def test_processes_agree_on_an_epoch_or_refuse(case):
    names, epoch = SEEN[case]
    assert common_epoch(names) == epoch


def test_backup_of_several_workers_is_refused_by_one(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    (tmp_path / "worker_0_of_2").mkdir()
    (tmp_path / "worker_0_of_2/after_epoch_3.weights.h5").touch()
    with pytest.raises(
        ValueError, match=r"another number of processes.*backup_dir=.*1 processes see \[\['worker_0_of_2/"
    ):
        next(kp.PruningBackup(tmp_path).epochs(model, 4))


def test_backup_that_is_damaged_in_another_process_is_rejected(monkeypatch, tmp_path):
    def train():
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        model.compile("sgd", "mse")
        return list(kp.PruningBackup(tmp_path).epochs(model, 2))

    def with_another(values, model):
        return np.array([values, True]) if isinstance(values, bool) else gather(values, model)

    train()
    monkeypatch.setattr(backup, "gather", with_another)
    with pytest.raises(ValueError, match=r"after_epoch_2\.weights\.h5 failed in the processes \[1\]"):
        train()


def test_backup_resumes_a_custom_loop(tmp_path):
    def train(directory, kill=None):
        keras.utils.set_random_seed(0)
        model = kp.prune(keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)]), kp.TargetSparsity(0.75))
        model.compile(keras.optimizers.Adam(0.01), "mse", run_eagerly=TENSORFLOW, jit_compile=False)
        trained = []
        for epoch in kp.PruningBackup(directory).epochs(model, 4):
            kp.cut(model, kp.OneShot(start=2)(epoch))
            model.train_on_batch(X[16 * epoch :][:16], Y[16 * epoch :][:16])
            if epoch == kill:
                break  # The backup is not told that the epoch ended.
            trained.append(epoch)
        return trained, arrays(model.variables)

    train(tmp_path / "killed", kill=3)
    epochs, resumed = train(tmp_path / "killed")
    assert epochs == [3]
    assert_same(resumed, train(tmp_path / "whole")[1])


def test_custom_loop_without_an_optimizer_is_refused(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    with pytest.raises(ValueError, match="Compile the model with the optimizer of the loop"):
        next(kp.PruningBackup(tmp_path).epochs(model, 4))


def test_weights_spread_over_processes_are_refused_at_the_start(monkeypatch, tmp_path):
    monkeypatch.setattr(checks, "is_spread", lambda value: True)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="spread over processes"):
        next(kp.PruningBackup(tmp_path).epochs(model, 4))


SCRIPT = """
import sys, time
import numpy as np
import keras
import test_backup
class Told(keras.callbacks.Callback):
    def on_epoch_begin(self, epoch, logs=None):
        print("epoch", epoch, flush=True)
weights = test_backup.run(sys.argv[1], Told(), epochs=40)
np.savez(sys.argv[2], *weights)
"""


@pytest.mark.slow
def test_process_killed_many_times_ends_as_an_unbroken_one(tmp_path):
    output = tmp_path / "killed.npz"
    folders = pathlib.Path(__file__).resolve().parents[:3]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, folders))}
    chance, kills, epochs = random.Random(0), 0, []
    while kills < 40:
        command = [sys.executable, "-c", SCRIPT, str(tmp_path / "killed"), str(output)]
        process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
        line = process.stdout.readline()
        epochs.append(line)
        time.sleep(chance.uniform(0, 0.15))
        process.send_signal(signal.SIGKILL)
        kills += process.wait() == -signal.SIGKILL
        if output.exists():
            break
    else:
        process = subprocess.run(command, env=environment, check=True)
    print(f"{kills} kills, started in {sorted(set(epochs))}")
    assert kills >= 5
    weights = np.load(output)
    for name, expected in zip(weights, run(tmp_path / "whole", epochs=40), strict=True):
        np.testing.assert_array_equal(weights[name], expected)
