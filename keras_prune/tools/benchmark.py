"""Measures on this machine which runtime and weight format is fastest for a pruned model, and says whether it pays.

    python -m keras_prune.tools.benchmark pruned.keras                 # the model, and each of its dense layers
    python -m keras_prune.tools.benchmark --layers=alexnet,vgg16       # the paper's largest layers, at its densities
    python -m keras_prune.tools.benchmark --layers=alexnet --densities=0.02,0.05,0.1,0.2,0.5    # where sparse pays
    KERAS_BACKEND=jax python -m keras_prune.tools.benchmark --layers=vgg16 --device=gpu:0      # without TensorFlow

Prints a table, what is absent and why, and the advice. Writes `benchmark.json`, `benchmark.csv` and, where matplotlib
is installed, `speed_ups_*.png` and `density_*.png` to the output directory. Speeds hold for the machine they were
measured on, and for nothing else running beside.
"""

import csv
import importlib.util
import json
import os
import sys

from absl import flags
from rich.console import Console

from keras_prune.benchmark.advice import advice
from keras_prune.benchmark.engines import ENGINES
from keras_prune.benchmark.runner import benchmark
from keras_prune.benchmark.workloads import layer_workloads, model_workloads
from keras_prune.models.prune_model import strip
from keras_prune.tools.command_line import load_model, run, written_aside

FLAGS = flags.FLAGS
flags.DEFINE_list("layers", [], "Layers to measure instead of a model: alexnet, vgg16, or alexnet/fc6 and so on.")
flags.DEFINE_list("densities", [], "Shares of connections left for --layers; the paper's if not given.")
flags.DEFINE_list("engines", [], "Engines to run, by the names in the table; all if not given.")
flags.DEFINE_list("batch_sizes", ["1", "64"], "Inputs per call.")
flags.DEFINE_string("device", "cpu:0", "Device to run on: cpu:0 or gpu:0.")
flags.DEFINE_integer("threads", None, "Cores to use (Linux); all if not given.", lower_bound=1)
flags.DEFINE_integer("rounds", 10, "Turns of every engine, each of about 30 ms.", lower_bound=1)
flags.DEFINE_string("output_dir", "output/benchmark", "Where the results go.")


def main(*paths):
    """Measures, writes the files, and returns the table with the advice, and the same for `--json`."""
    batch_sizes, densities = _numbers("batch_sizes", int), _numbers("densities", float)
    if FLAGS.threads:
        _use_cores(FLAGS.threads)
    if FLAGS.device.startswith("gpu"):
        _prepare_gpu()
    if paths:
        if FLAGS.layers or densities:
            raise ValueError("A model has layers and densities of its own. Received: --layers or --densities beside it")
        workloads = model_workloads(strip(load_model(*paths)))
    else:
        if not FLAGS.layers:
            raise ValueError("--layers names layers, such as alexnet,vgg16/fc6. Received: none, and no model")
        workloads = [workload for name in FLAGS.layers for workload in layer_workloads(name, densities)]
    engines = _engines()
    _check_folder(FLAGS.output_dir)
    results = benchmark(workloads, batch_sizes, FLAGS.device, FLAGS.rounds, engines, Console(stderr=True))
    told = advice(results)
    os.makedirs(FLAGS.output_dir, exist_ok=True)
    values = results.as_dict() | {"advice": [str(choice) for choice in told.choices]}
    _write(results, values, batch_sizes)
    return f"{results}\n{told}\nresults in {FLAGS.output_dir}", values


def _numbers(flag, kind):
    try:
        return [kind(entry) for entry in FLAGS[flag].value]
    except ValueError as error:
        raise ValueError(f"--{flag} is a list of numbers such as 1,64. Received: {FLAGS[flag].value}") from error


def _engines():
    names = [engine.name for engine in ENGINES]
    if unknown := set(FLAGS.engines) - set(names):
        raise ValueError(f"--engines are some of {names}. Received: {sorted(unknown)}")
    return [engine for engine in ENGINES if engine.name in (FLAGS.engines or names)]


def _check_folder(path):
    """Refuses a folder that cannot be made, before anything is measured for it."""
    there = os.path.realpath(path)
    while not os.path.exists(there):
        there = os.path.dirname(there)
    if not (os.path.isdir(there) and os.access(there, os.W_OK)):
        raise ValueError(
            f"--output_dir is a folder that can be written, or made. Received: --output_dir={path}, where {there} is "
            f"{'not to be written' if os.path.isdir(there) else 'no folder'}"
        )


def _use_cores(count):
    # The one setting that every runtime follows, as long as none has started its threads.
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"--threads needs Linux. Received: --threads={count} on {sys.platform}")
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise ValueError(f"--threads is at most {len(cores)}, the cores of this process. Received: --threads={count}")
    os.sched_setaffinity(0, cores[:count])


def _prepare_gpu():
    # By default both TensorFlow and JAX take nearly all of the memory when they start.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if importlib.util.find_spec("jax"):
        import jax

        # Without it JAX multiplies sparse matrices by gathers and scatters instead of by cuSPARSE.
        jax.config.update("jax_bcoo_cusparse_lowering", True)


def _write(results, values, batch_sizes):
    def place(name):
        return os.path.join(FLAGS.output_dir, name)

    with written_aside(place("benchmark.json"), ".json") as path, open(path, "w", encoding="utf-8") as file:
        json.dump(values, file, indent=1, allow_nan=False)
    rows = results.as_rows()
    if rows:
        with (
            written_aside(place("benchmark.csv"), ".csv") as path,
            open(path, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    if importlib.util.find_spec("matplotlib") is None:
        print("no figures: matplotlib is not installed", file=sys.stderr)
        return
    import matplotlib.pyplot as plt

    from keras_prune.benchmark.figures import speed_ups, time_against_density

    plt.switch_backend("Agg")
    dense = [row[0] for row in results.rows() if any(m.baseline for m in row) and not all(m.baseline for m in row)]
    drawings = {}
    for batch_size in batch_sizes:
        places = [m for m in dense if m.batch_size == batch_size]
        if places:
            drawings[f"speed_ups_batch_{batch_size}"] = speed_ups, (batch_size,)
        for workload in dict.fromkeys(m.workload for m in places):
            if len({m.density for m in places if m.workload == workload}) > 1:
                name = f"density_{workload.replace('/', '_')}_batch_{batch_size}"
                drawings[name] = time_against_density, (workload, batch_size)
    for name, (draw, arguments) in drawings.items():
        with written_aside(place(f"{name}.png"), ".png") as path:
            figure = draw(results, *arguments).figure
            figure.savefig(path)
            plt.close(figure)


if __name__ == "__main__":
    # One or the other: a model file, or the layers of --layers.
    run(main, [] if any(argument.startswith(("--layers", "-layers")) for argument in sys.argv) else ["MODEL"])
