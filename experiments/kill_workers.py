"""Kills workers that train one pruned model together, restarts them, and compares the result with an unbroken run.

    python experiments/kill_workers.py                         # 15 kills of two workers and 15 of three, in 20 minutes
    KERAS_BACKEND=jax python experiments/kill_workers.py       # the same with JAX processes
    python experiments/kill_workers.py --table                 # Markdown, from docs/data/kill_workers.json alone

A SIGKILL is sent to one worker, to all at once, or to all when some have saved an epoch that others have not. When one
worker dies, the others hang or fail. A cluster manager then ends and restarts all of them, as this script does. At the
end, every array in the saved models of all workers must be equal to the bit, including weights, masks, thresholds and
the optimizer.
"""

import contextlib
import json
import os
import pathlib
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import zipfile

import h5py
import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("workers", ["2", "3"], "Numbers of workers.")
flags.DEFINE_integer("kills", 30, "Kills, over all numbers of workers.", lower_bound=1)
flags.DEFINE_integer("epochs", 60, "Epochs of a run.", lower_bound=1)
flags.DEFINE_integer("seed", 0, "Seed of the times of the kills.")
flags.DEFINE_integer("patience", 300, "Seconds without a save or an end after which a run has failed.")
flags.DEFINE_string("results", "docs/data/kill_workers.json", "File of the counts.")
flags.DEFINE_bool("table", False, "Only print the table of what was counted.")
flags.DEFINE_list("worker", None, "Index, number and address of a JAX process to run. The script starts these itself.")

ROOT = pathlib.Path(__file__).resolve().parents[1]
KIND = os.environ.get("KERAS_BACKEND", "tensorflow")
HOW = ("one", "all", "between saves")


class Run:
    """Context that starts workers that train in a directory, and ends them."""

    def __init__(self, directory, count):
        self.directory, self.count = pathlib.Path(directory), count

    def __enter__(self):
        self.directory.mkdir(exist_ok=True)
        addresses = _free_addresses(self.count)
        self.processes = [self._start(index, addresses) for index in range(self.count)]
        return self

    def __exit__(self, *exception):
        self.kill(self.processes)

    def _start(self, index, addresses):
        environment = {**os.environ, "KERAS_BACKEND": KIND, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "2"}
        if KIND == "jax":
            script, flag = __file__, [f"--worker={index},{self.count},{addresses[0]}"]
        else:
            script, flag = ROOT / "examples/several_workers.py", []
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
        command = [sys.executable, script, *flag, f"--epochs={FLAGS.epochs}"]
        with open(self.directory / f"worker_{index}.log", "wb") as log:
            return subprocess.Popen(command, cwd=self.directory, env=environment, stdout=log, stderr=log)

    def kill(self, processes):
        for process in processes:
            process.kill()
        for process in processes:
            process.wait()

    def saved(self):
        """Returns the newest epoch that each worker has saved."""
        folders = [
            self.directory / f"output/several_workers/backup/worker_{i}_of_{self.count}" for i in range(self.count)
        ]
        return [
            max((int(re.search(r"\d+", file.name)[0]) for file in one.glob("after_*")), default=0) for one in folders
        ]

    def wait(self, condition):
        """Waits for a condition of the newest epochs. Returns `False` if a worker ended first."""
        end = time.monotonic() + FLAGS.patience
        while not condition(self.saved()):
            if any(process.poll() is not None for process in self.processes):
                return False
            if time.monotonic() > end:
                self.fail("is late")
            time.sleep(0.0005)
        return True

    def finish(self):
        """Waits for the end of the run, and returns all arrays of the model of each worker."""
        end = time.monotonic() + FLAGS.patience
        while any(process.poll() is None for process in self.processes):
            if time.monotonic() > end or any(process.poll() for process in self.processes):
                self.fail("did not end")
            time.sleep(0.1)
        return [_arrays(self.directory / f"output/several_workers/worker_{i}.keras") for i in range(self.count)]

    def fail(self, what):
        logs = [log.read_text(errors="replace")[-3000:] for log in sorted(self.directory.glob("*.log"))]
        raise SystemExit(f"The run of {self.count} workers {what}.\n" + "\n\n".join(logs))


def _free_addresses(count):
    with contextlib.ExitStack() as sockets:
        held = [sockets.enter_context(socket.create_server(("localhost", 0))) for _ in range(count)]
        return [f"localhost:{one.getsockname()[1]}" for one in held]


def _arrays(model):
    """Returns the bytes of each array in a saved model."""
    found = {}
    with zipfile.ZipFile(model) as archive, archive.open("model.weights.h5") as file, h5py.File(file) as weights:
        weights.visititems(lambda name, one: found.update({name: one[()].tobytes()} if hasattr(one, "dtype") else {}))
    return found


def kill_once(run, how, chance):
    """Kills a run, and returns whether it was killed before it ended."""
    before = max(run.saved())
    if how == "between saves":
        alive = run.wait(lambda saved: max(saved) > before and len(set(saved)) > 1)
    else:
        early = chance.random() < 0.25  # While the workers start or restore.
        alive = early or run.wait(lambda saved: max(saved) > before)
        moment = time.monotonic() + chance.uniform(0, 10 if early else 1)
        alive = alive and run.wait(lambda _: time.monotonic() > moment)
    if alive:
        run.kill([chance.choice(run.processes)] if how == "one" else run.processes)
        if how == "one":
            time.sleep(chance.uniform(0, 1))  # The others may still finish a save.
    return alive


def experiment(folder, count, kills):
    """Returns the counts of runs with this many kills in all."""
    chance = random.Random(FLAGS.seed + count)
    with Run(folder / "whole", count) as run:
        whole = run.finish()
    counts = dict.fromkeys(HOW, 0)
    row = {"kills": counts, "saved_differently": 0, "runs": 0, "arrays": len(whole[0]), "equal": _all_equal(whole)}
    killed = folder / "killed"
    while sum(counts.values()) < kills:
        how = HOW[sum(counts.values()) % len(HOW)]
        with Run(killed, count) as run:
            if kill_once(run, how, chance):
                counts[how] += 1
            else:
                _finish(run, whole, row)
                continue
        row["saved_differently"] += len(set(run.saved())) > 1
        print(f"{count} workers, kill {sum(counts.values())} ({how}): saved {run.saved()}", flush=True)
    with Run(killed, count) as run:
        _finish(run, whole, row)
    return row


def _finish(run, whole, row):
    row["runs"] += 1
    row["equal"] = _all_equal([*whole, *run.finish()]) and row["equal"]
    shutil.rmtree(run.directory)


def _all_equal(models):
    return all(one == models[0] for one in models)


def train_on_jax(index, count, address):
    """Runs one JAX process of a run, with `fit`."""
    import jax

    jax.distributed.initialize(address, int(count), int(index))
    import keras
    import numpy as np

    import keras_prune as kp

    keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    keras.utils.set_random_seed(0)
    hidden = [keras.layers.Dense(64, "relu"), keras.layers.Dropout(0.3), keras.layers.Dense(12)]
    model = kp.prune(keras.Sequential([keras.Input((64,)), *hidden]), kp.TargetSparsity(0.9))
    model.compile(keras.optimizers.Adam(1e-3), "mse")
    x = np.random.default_rng(0).normal(size=(600, 64)).astype("float32")
    output = pathlib.Path("output/several_workers")
    callbacks = [kp.PruningCallback(kp.Polynomial(start=2, end=8), verbose=0), kp.PruningBackup(output / "backup")]
    model.fit(x, x[:, :12], 60, FLAGS.epochs, verbose=0, shuffle=False, callbacks=callbacks)
    model.save(output / f"worker_{index}.keras")
    jax.experimental.multihost_utils.sync_global_devices("saved")


def print_table():
    print("| workers | kills | of one | of all | between saves | backups differed | runs | arrays | all equal |")
    print("|---|---|---|---|---|---|---|---|---|")
    for kind, rows in measurements.read(FLAGS.results).items():
        for count, row in rows.items():
            kills = " | ".join(str(row["kills"][how]) for how in HOW)
            print(
                f"| {count}, {kind} | {sum(row['kills'].values())} | {kills} | {row['saved_differently']} | "
                f"{row['runs']} | {row['arrays']} | {'yes' if row['equal'] else 'no'} |"
            )


def main(_):
    if FLAGS.worker:
        return train_on_jax(*FLAGS.worker)
    if not FLAGS.table:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # Ends the workers, too.
        measured = measurements.read(FLAGS.results)
        for place, count in enumerate(FLAGS.workers):
            kills = FLAGS.kills * (place + 1) // len(FLAGS.workers) - FLAGS.kills * place // len(FLAGS.workers)
            with tempfile.TemporaryDirectory() as folder:
                row = experiment(pathlib.Path(folder), int(count), kills)
            measured.setdefault(KIND, {})[count] = row
            measurements.write(FLAGS.results, measured)
    print_table()
    equal = all(row["equal"] for rows in measurements.read(FLAGS.results).values() for row in rows.values())
    return 0 if equal else "Runs that were killed ended with other arrays."


if __name__ == "__main__":
    app.run(main)
