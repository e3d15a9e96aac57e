"""Measures cuts of weights that are split between two JAX processes, and the messages between these.

python experiments/spread_weights.py               # 8 kernels of 2,048 x 2,048, half of each in every process
python experiments/spread_weights.py --table       # Markdown, from the measurements alone
"""

import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time

import measurements
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("layers", 8, "Number of Dense layers.")
flags.DEFINE_integer("width", 2048, "Inputs and outputs of each.")
flags.DEFINE_integer("repeats", 5, "Cuts. The first is not counted.", lower_bound=2)
flags.DEFINE_string("results", "docs/data/spread_weights.json", "File of the measurements.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("process", "", "Index, number of processes and port. The script starts these processes itself.")


def measure(index: int, processes: int, port: str) -> dict:
    """Returns, by criterion, the seconds of each cut, and calls and bytes of `gather` in one of them."""
    import jax
    import keras

    import keras_prune as kp
    from keras_prune.rules import shards

    if processes > 1:
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"localhost:{port}", processes, index)
        mesh = keras.distribution.DeviceMesh((1, processes), ["batch", "model"], keras.distribution.list_devices())
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*kernel"] = (None, "model")
        keras.distribution.set_distribution(keras.distribution.ModelParallel(layout_map=layout))
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(FLAGS.width) for _ in range(FLAGS.layers)]
    model = keras.Sequential([keras.Input((FLAGS.width,)), *layers])
    sent, gather = [], shards.gather

    def counting(values):
        sent.append(values.nbytes)
        return gather(values)

    shards.gather = counting
    rows = {}
    for name, criterion in {
        "StdThreshold": kp.StdThreshold(0.1),
        "TargetSparsity": kp.TargetSparsity(0.9),
        "GlobalMagnitude": kp.budgets.GlobalMagnitude(20),
        "CommonQuality": kp.budgets.CommonQuality(40),
    }.items():
        kp.prune(model, criterion)
        seconds = []
        for repeat in range(FLAGS.repeats):
            sent.clear()
            started = time.perf_counter()
            kp.cut(model, (repeat + 1) / FLAGS.repeats)
            seconds.append(time.perf_counter() - started)
        rows[name] = {"seconds": seconds[1:], "gathers": len(sent), "bytes": sum(sent)}
    share = sum(shard.data.nbytes for shard in layers[0].pruning.pruned_weights[0].mask.value.addressable_shards)
    started = time.perf_counter()
    for _ in range(200):
        gather(np.zeros(256, "int64"))
    return {"cuts": rows, "mask_bytes": share, "gather_seconds": (time.perf_counter() - started) / 200}


def start(processes: int) -> dict:
    """Runs the script in several processes of one device each, and returns the results of the first."""
    with socket.create_server(("localhost", 0)) as server:
        port = server.getsockname()[1]
    environment = {**os.environ, "KERAS_BACKEND": "jax", "XLA_FLAGS": "--xla_force_host_platform_device_count=1"}
    arguments = [f"--{name}={getattr(FLAGS, name)}" for name in ("layers", "width", "repeats")]
    started = [
        subprocess.Popen(
            [sys.executable, __file__, *arguments, f"--process={index},{processes},{port}"],
            env=environment,
            stdout=subprocess.PIPE,
            text=True,
        )
        for index in range(processes)
    ]
    try:
        outputs = [process.communicate(timeout=1800)[0] for process in started]
    finally:
        for process in started:
            process.kill()
    if any(process.returncode for process in started):
        raise SystemExit(f"{processes} processes ended with {[process.returncode for process in started]}")
    return json.loads(outputs[0].splitlines()[-1])


def table(measured: dict) -> str:
    """Returns the Markdown table."""
    weights, layers = measured["weights"], measured["layers"]
    lines = [
        "| criterion | one process, ns a weight | two processes | messages a layer | bytes a layer |",
        "|---|---|---|---|---|",
    ]
    for name, two in measured["2"]["cuts"].items():
        one = measured["1"]["cuts"][name]
        nanoseconds = [f"{1e9 * statistics.median(rows['seconds']) / weights:.1f}" for rows in (one, two)]
        lines.append(
            f"| `{name}` | {' | '.join(nanoseconds)} | {two['gathers'] / layers:.0f} | {two['bytes'] / layers:,.0f} |"
        )
    return "\n".join([*lines, "", f"A message took {1e3 * measured['2']['gather_seconds']:.1f} ms."])


def main(_):
    if FLAGS.process:
        index, processes, port = FLAGS.process.split(",")
        print(json.dumps(measure(int(index), int(processes), port)))
        return
    if not FLAGS.table:
        weights = FLAGS.layers * FLAGS.width**2
        measured = {str(processes): start(processes) for processes in (1, 2)}
        measured |= {"weights": weights, "layers": FLAGS.layers, "machine": platform.processor() or platform.machine()}
        measurements.write(FLAGS.results, measured)
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
