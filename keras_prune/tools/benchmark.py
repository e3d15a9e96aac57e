"""Measure which runtime and weight format is fastest on this machine.

Prints a table, the reasons for missing engines, and advice. Writes benchmark.json, benchmark.csv
and, if Matplotlib is installed, speed_ups_*.png and density_*.png to the output directory. The
times hold for this machine only. Do not run anything else during the measurement.

Examples:

  keras-prune benchmark pruned.keras                 # the model, and each of its dense layers
  keras-prune benchmark --layers=alexnet,vgg16       # the paper's largest layers, at its densities
  keras-prune benchmark --layers=alexnet --densities=0.02,0.05,0.1,0.2,0.5  # when sparse is faster
  KERAS_BACKEND=jax keras-prune benchmark --layers=vgg16 --device=gpu:0         # without TensorFlow
"""

import contextlib
import csv
import importlib.util
import json
import os
import sys
from typing import Any

from absl import flags

import keras_prune as kp
from keras_prune.tools.files import load_model
from keras_prune.tools.subcommand import Result, Subcommand, numbers


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the subcommand."""
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_list("layers", [], "Layers to measure instead of a model, such as alexnet,vgg16/fc6.", **own)
    flags.DEFINE_list("densities", [], "Shares of connections left in --layers. Default: those of the paper.", **own)
    flags.DEFINE_list("engines", [], "Engines to run, by the names in the table. Default: all.", **own)
    flags.DEFINE_list("batch_sizes", ["1", "64"], "Inputs per call.", **own)
    flags.DEFINE_string("device", "cpu:0", "Device to run on: cpu:0 or gpu:0.", **own)
    flags.DEFINE_integer("threads", None, "Cores to use (Linux). Default: all.", lower_bound=1, **own)
    flags.DEFINE_integer("rounds", 10, "Turns of each engine. A turn takes about 30 ms.", lower_bound=1, **own)
    flags.DEFINE_string("output_dir", "output/benchmark", "Folder for the results.", **own)


def measure(values: flags.FlagValues, path: str | None = None) -> Result:
    """Measures a model, or the layers of `--layers`, and writes the results to `--output_dir`."""
    from keras_prune.benchmark.advice import advice
    from keras_prune.benchmark.runner import benchmark

    batch_sizes, densities = numbers(values, "batch_sizes", int), numbers(values, "densities", float)
    engines, folder = _engines(values.engines), values.output_dir
    _require_writable(folder)
    with _cores(values.threads):
        if values.device.startswith("gpu"):
            _prepare_gpu()
        workloads = _workloads(values, path, densities)
        results = benchmark(workloads, batch_sizes, values.device, values.rounds, engines)
    given = advice(results)
    summary = results.to_dict() | {"advice": [str(choice) for choice in given.choices]}
    os.makedirs(folder, exist_ok=True)
    write(results, summary, folder)
    return Result(f"{results}\n{given}\nresults in {folder}", summary)


def write(results, summary: dict, folder: str) -> None:
    """Writes `benchmark.json`, `benchmark.csv` and the figures."""
    from keras_prune.storage.checked_file import atomic_write

    with atomic_write(os.path.join(folder, "benchmark.json")) as path, open(path, "w", encoding="utf-8") as file:
        json.dump(summary, file, indent=1, allow_nan=False)
    if results.rows:
        with (
            atomic_write(os.path.join(folder, "benchmark.csv")) as path,
            open(path, "w", encoding="utf-8", newline="") as file,
        ):
            writer = csv.DictWriter(file, results.rows[0]._fields)
            writer.writeheader()
            writer.writerows(row.to_dict() for row in results.rows)
    if importlib.util.find_spec("matplotlib") is None:
        print("no figures: matplotlib is not installed", file=sys.stderr)
        return
    import matplotlib.pyplot as plt

    from keras_prune.benchmark.figures import all_figures

    plt.switch_backend("Agg")
    for name, axes in all_figures(results):
        figure: Any = axes.figure
        with atomic_write(os.path.join(folder, f"{name}.png")) as path:
            figure.savefig(path)
        plt.close(figure)


def _workloads(values, path, densities):
    from keras_prune.benchmark.workloads import layer_workloads, model_workloads

    if path is None:
        if not values.layers:
            raise ValueError("Expected a model, or --layers such as alexnet,vgg16/fc6. Received: neither")
        return [workload for name in values.layers for workload in layer_workloads(name, densities)]
    if values.layers or densities:
        raise ValueError(f"--layers and --densities cannot be combined with a model. Received: {path!r} with them")
    return model_workloads(kp.strip(load_model(path, values.modules)))


def _engines(chosen):
    from keras_prune.benchmark.engines import ENGINES

    names = [engine.name for engine in ENGINES]
    if unknown := set(chosen) - set(names):
        raise ValueError(f"--engines must be some of {names}. Received: {sorted(unknown)}")
    return [engine for engine in ENGINES if engine.name in (chosen or names)]


def _require_writable(folder):
    """Raises a `ValueError` before anything is measured if a folder cannot be created."""
    parent = os.path.realpath(folder)
    while not os.path.exists(parent):
        parent = os.path.dirname(parent)
    if not (os.path.isdir(parent) and os.access(parent, os.W_OK)):
        problem = "not writable" if os.path.isdir(parent) else "not a folder"
        raise ValueError(
            f"--output_dir must be a writable folder, but {parent} is {problem}. Received: --output_dir={folder}"
        )


@contextlib.contextmanager
def _cores(count):
    """Context in which this process uses `count` cores. All runtimes read it when they start their threads."""
    if count is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise ValueError(f"--threads requires Linux. Received: --threads={count} on {sys.platform}")
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        raise ValueError(f"--threads must be at most {len(cores)} for this process. Received: --threads={count}")
    os.sched_setaffinity(0, cores[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, cores)


def _prepare_gpu():
    # By default, TensorFlow and JAX each reserve nearly all memory of the GPU.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")
    if importlib.util.find_spec("jax"):
        import jax

        # Otherwise JAX multiplies sparse matrices with gather and scatter instead of cuSPARSE.
        jax.config.update("jax_bcoo_cusparse_lowering", True)


BENCHMARK = Subcommand("benchmark", __doc__, ["[MODEL]"], define, measure)
