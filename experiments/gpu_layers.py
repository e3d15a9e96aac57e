"""Section `layers` of `gpu.py`, which times all engines in turns on one layer at a time."""

import concurrent.futures
import functools
import math
import sys
import time

import gpu_events
import gpu_jax_engines
import gpu_problems
import gpu_tensorflow_engines
import gpu_torch_blocks
import gpu_torch_engines
import numpy as np
from absl import app, flags

ENGINES = (
    *gpu_torch_engines.ENGINES,
    *gpu_torch_blocks.ENGINES,
    *gpu_jax_engines.ENGINES,
    *gpu_tensorflow_engines.ENGINES,
)
CPU_CACHE = 1 << 20  # Bytes that the copies of the weights exceed in a small run.
MOST_COPIES = 96
MOST_PRODUCTS = 32
INPUT_BYTES = 1 << 29  # The most bytes of the copies of the inputs.
WEIGHT_BYTES = 1 << 32  # The most bytes of the copies of the weights if each product needs its own.
FLAGS = flags.FLAGS
flags.DEFINE_bool("small", False, "Tiny shapes.")
flags.DEFINE_enum("device", "gpu", ["cpu", "gpu"], "Device to run on.")
flags.DEFINE_float("until", math.inf, "Unix time at which no new row is started.")
flags.DEFINE_list("skip", [], "Engines to leave out.")
flags.DEFINE_list("done", [], "Rows to leave out, such as alexnet/fc6:64.")


def main(_):
    present, absent = [], {}
    for engine in ENGINES:
        why = "it ended the process in an earlier row" if engine.name in FLAGS.skip else engine.missing(FLAGS.device)
        if why:
            absent[engine.name] = why
        else:
            present.append(engine)
    if any(engine.library == "jax" for engine in present):
        import jax

        # Otherwise the sparse products of JAX are gathers and scatters on a GPU.
        jax.config.update("jax_bcoo_cusparse_lowering", True)
    card = gpu_torch_engines.card() if any(engine.library == "torch" for engine in present) else {}
    gpu_events.emit("machine", machine=gpu_events.machine(FLAGS.device) | card, absent=absent)
    cache = int(2.5 * card.get("l2_bytes", 64 << 20)) if FLAGS.device == "gpu" else CPU_CACHE
    layers = gpu_problems.SMALL_LAYERS if FLAGS.small else gpu_problems.LAYERS
    problem = functools.lru_cache(lambda name: gpu_problems.Problem(name, *layers[name]))
    longest = 0.0
    for batch in (1, 8) if FLAGS.small else (1, 64, 1024):
        for name in layers:
            if f"{name}:{batch}" in FLAGS.done:
                continue
            started = time.time()
            if started + longest > FLAGS.until:
                gpu_events.emit("stopped", row=f"{name}:{batch}")
                return
            measure(problem(name), batch, present, cache)
            longest = max(longest, time.time() - started)


def measure(problem, batch, engines, cache):
    """Times all engines on one layer and batch size, and emits the row."""
    row = {"layer": problem.name, "inputs": problem.inputs, "outputs": problem.outputs, "density": problem.density}
    row |= {"batch": batch, "entries": [], "refused": {}}
    loaded, errors, calls = check(problem, batch, engines, row["refused"])
    counts = {engine.name: count(engine, cache, min(calls[engine.name])) for engine in loaded}
    failed = prepare_all(loaded, counts)
    row["refused"] |= failed
    loaded = [engine for engine in loaded if engine.name not in failed]
    times, host = rounds(loaded, counts, row["refused"])
    for name, seconds in times.items():
        engine = next(engine for engine in loaded if engine.name == name)
        low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75]) * 1e6
        entry = {"engine": name, "kind": engine.kind, "microseconds": median, "low": low, "high": high}
        entry |= {"rounds": len(seconds), "copies": counts[name][0], "products": counts[name][1]}
        entry |= {"clock": engine.clock, "error": errors[name], **engine.details}
        entry |= {"call_microseconds": float(np.median(calls[name]) * 1e6), "weight_bytes": engine.weight_bytes}
        row["entries"].append(entry | {"host_microseconds": host[name] * 1e6})
    gpu_events.emit("row", row=row)
    for engine in loaded:
        engine.close()


def count(engine, cache, seconds):
    """Returns the numbers of copies and products in one run, for products of about `seconds`.

    The copies exceed the cache, so that no weight is in it. Slow products have fewer copies, because their arithmetic
    takes longer than reading weights. A run has enough products to hide its start on the host, as long as their inputs
    take little memory. If products that share weights may be joined, each product has its own copy.
    """
    copies = min(MOST_COPIES, math.ceil(cache / engine.weight_bytes), math.ceil(0.05 / seconds))
    inputs = 4 * engine.batch * engine.problem.inputs
    most = 1 if FLAGS.small else MOST_PRODUCTS
    products = min(most, math.ceil(0.003 / seconds), INPUT_BYTES // inputs)
    copies = max(2, min(copies, 4) if FLAGS.small else copies)
    if engine.joins:
        copies = products = max(copies, min(products, WEIGHT_BYTES // engine.weight_bytes))
    return copies, max(copies, products)


def check(problem, batch, engines, refused):
    """Loads the engines and compares their outputs with float64.

    Returns:
        The engines whose outputs are right, their errors, and the seconds of single calls.
    """
    loaded = []
    for engine in engines:
        gpu_events.emit("start", engine=engine.name, row=f"{problem.name}:{batch}")
        try:
            loaded.append(engine(problem, batch, FLAGS.device))
        except Exception as error:
            refused[engine.name] = gpu_events.reason(error)
            healthy(engine)
    refused |= prepare_all(loaded, dict.fromkeys((engine.name for engine in loaded), (1, 1)))
    loaded = [engine for engine in loaded if engine.name not in refused]
    references, right, errors, calls = {}, [], {}, {}
    for engine in loaded:
        if engine.pattern not in references:
            references[engine.pattern] = problem.reference(engine.pattern, batch)
        gpu_events.emit("start", engine=engine.name, row=f"{problem.name}:{batch}")
        try:
            errors[engine.name] = engine.error(references[engine.pattern])
            if not errors[engine.name] <= engine.tolerance:
                raise ValueError(f"the relative error of its outputs is {errors[engine.name]:.1e}")
            engine.call_seconds()
            calls[engine.name] = [engine.call_seconds() for _ in range(3 if FLAGS.small else 9)]
        except Exception as error:
            refused[engine.name] = gpu_events.reason(error)
            healthy(engine)
            continue
        right.append(engine)
    return right, errors, calls


def prepare_all(engines, counts):
    """Prepares the products of every engine, in parallel on JAX, and returns why some failed."""
    failed = {}

    def prepare(engine):
        try:
            engine.prepare(*counts[engine.name])
        except Exception as error:
            return gpu_events.reason(error)
        return None

    jax = [engine for engine in engines if engine.library == "jax"]
    for engine in engines:
        if engine.library != "jax":
            gpu_events.emit("start", engine=engine.name, row="prepare")
            if why := prepare(engine):
                failed[engine.name] = why
                healthy(engine)
    gpu_events.emit("start", engine=",".join(engine.name for engine in jax), row="prepare")
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        reasons = list(pool.map(prepare, jax))
    return failed | {engine.name: why for engine, why in zip(jax, reasons, strict=True) if why}


def rounds(engines, counts, refused):
    """Returns by engine the seconds of one product in each of 15 rounds, in which the engines take turns.

    The second dict has the seconds of one round by the clock of the host.
    """
    repeats, times, host = {}, {}, {}
    for number in range(3 if FLAGS.small else 15):
        for engine in engines:
            if engine.name in refused:
                continue
            gpu_events.emit("start", engine=engine.name, row="time")
            try:
                if number == 0:
                    # At least 3 ms a turn.
                    repeats[engine.name] = max(1, math.ceil(3e-3 / max(engine.seconds(1), 1e-6)))
                    host[engine.name] = engine.host_seconds(repeats[engine.name])
                    host[engine.name] /= repeats[engine.name] * counts[engine.name][1]
                    times[engine.name] = []
                seconds = engine.seconds(repeats[engine.name])
                times[engine.name].append(seconds / repeats[engine.name] / counts[engine.name][1])
            except Exception as error:
                refused[engine.name] = gpu_events.reason(error)
                times.pop(engine.name, None)
                healthy(engine)
    return times, host


def healthy(engine):
    """Ends the process if an engine has left the GPU unusable, so that the next process can continue without it."""
    if FLAGS.device != "gpu" or "torch" not in sys.modules:
        return
    import torch

    try:
        torch.ones(8, device="cuda").sum().item()
    except Exception as error:
        print(f"{engine.name} left the GPU unusable: {gpu_events.reason(error)}")
        sys.exit(3)


if __name__ == "__main__":
    app.run(main)
