"""Runs the engines of the benchmark: each is checked against the dense result, then all are timed in turns."""

import contextlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_prune.benchmark.engine import UnsupportedModelError
from keras_prune.benchmark.engines import ENGINES, available
from keras_prune.benchmark.results import Measurement, Results, this_machine
from keras_prune.benchmark.workloads import Workload
from keras_prune.sparse.timing import interleave


def benchmark(
    workloads: Sequence[Workload],
    batch_sizes: Sequence[int] = (1, 64),
    device: str = "cpu:0",
    rounds: int = 10,
    engines=ENGINES,
    console=None,
) -> Results:
    """Times every engine on every workload and batch size.

    All engines of one row run in turns within the same minute, so that their ratios hold where the absolute times
    drift. An engine that fails or whose outputs differ from the dense result is not timed but reported, and so is a
    workload that Keras itself does not run.

    Args:
        workloads: List of `Workload`.
        batch_sizes: Integers, inputs per call. Defaults to `(1, 64)`.
        device: String, `"cpu:0"` or `"gpu:0"`. Defaults to `"cpu:0"`.
        rounds: Integer, turns of every engine, each of about 30 ms. Defaults to `10`.
        engines: Tuple of `Engine` classes. Defaults to all.
        console: `rich.console.Console` for the progress bar. Defaults to `None`, no bar.

    Returns:
        `Results`.

    Raises:
        ValueError: If an argument is none of the above, or no engine that is installed has such a device.

    Example:

    >>> from keras_prune.benchmark.runner import benchmark
    >>> from keras_prune.benchmark.scipy_engines import SciPyCSR
    >>> from keras_prune.benchmark.workloads import Workload, _random_layer
    >>> workload = Workload("small", 0.1, _random_layer((64, 32), 0.1))
    >>> results = benchmark([workload], batch_sizes=[1], rounds=1, engines=[SciPyCSR])
    >>> len(results.measurements) + len(results.absent)
    1
    """
    for name, numbers in (("batch_sizes", batch_sizes), ("rounds", [rounds])):
        if not numbers or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"{name} must be integers of at least 1. Received: {name}={list(numbers)}")
    present, absent = available(device, engines)
    results = Results([], absent, {}, this_machine(device))
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, disable=console is None, transient=True) as progress, full_float32(device):
        task = progress.add_task("", total=len(workloads) * len(present) * (1 + len(batch_sizes) * rounds))
        for workload in workloads:
            progress.update(task, description=f"{workload.name} at {workload.density:.1%}")
            _run(workload, batch_sizes, device, rounds, present, results, lambda: progress.advance(task))
    return results


@contextlib.contextmanager
def full_float32(device: str):
    """Keeps a GPU from rounding the factors of float32 products to TF32.

    Args:
        device: String, `"cpu:0"` or `"gpu:0"`. On a CPU nothing is changed.
    """
    with contextlib.ExitStack() as stack:
        if device.startswith("gpu"):
            if "jax" in sys.modules:
                stack.enter_context(sys.modules["jax"].default_matmul_precision("highest"))
            if "tensorflow" in sys.modules:
                config = sys.modules["tensorflow"].config.experimental
                stack.callback(config.enable_tensor_float_32_execution, config.tensor_float_32_execution_enabled())
                config.enable_tensor_float_32_execution(False)
        yield


def _run(workload, batch_sizes, device, rounds, engines, results, advance):
    loaded, models = {}, {}
    with keras.device(device):
        try:
            for pattern in dict.fromkeys(engine.pattern for engine in engines):
                models[pattern] = workload.build(pattern)
        except UnsupportedModelError as error:
            results.left_out[workload.name] = str(error)
            return
        for engine in engines:
            advance()
            if models[engine.pattern] is None:
                results.refused[workload.name, engine.name] = f"there is no {engine.pattern} pattern of it to run"
                continue
            try:
                loaded[engine.name] = engine(models[engine.pattern], device)
            except Exception as error:  # What a runtime raises on a model that it does not know is its own business.
                results.refused[workload.name, engine.name] = _reason(error)
    for batch_size in batch_sizes if loaded else []:
        try:
            inputs = _inputs(next(filter(None, models.values())), batch_size)
            expected = {pattern: _outputs(model, inputs) for pattern, model in models.items() if model}
        except Exception as error:
            results.left_out[workload.name] = f"Keras does not run it on random inputs: {_reason(error)}"
            return
        calls, differences = {}, {}
        for name, engine in loaded.items():
            reference = expected[engine.pattern]
            try:
                call = engine.prepare(inputs)
                difference = float(np.abs(engine.to_numpy(call()) - reference).max() / np.abs(reference).max())
            except Exception as error:
                results.refused[workload.name, name] = _reason(error)
                continue
            if difference <= engine.tolerance:
                calls[name], differences[name] = call, difference
            else:
                results.refused[workload.name, name] = (
                    f"its outputs differ from the dense ones by {difference:.1e} of the largest at batch {batch_size}"
                )
        for name, seconds in interleave(calls, rounds, 0.03, advance).items():
            low, median, high = np.quantile(seconds, [0.25, 0.5, 0.75])
            results.measurements.append(
                Measurement(
                    workload=workload.name,
                    density=workload.density,
                    batch_size=batch_size,
                    engine=name,
                    baseline=loaded[name].baseline,
                    microseconds=float(median * 1e6),
                    low=float(low * 1e6),
                    high=float(high * 1e6),
                    calls=len(seconds),
                    weight_bytes=loaded[name].weight_bytes,
                    difference=differences[name],
                )
            )


def _inputs(model, batch_size):
    """Returns random inputs of a model: integers are 0 and 1, and a size that may be any is 1."""
    (tensor,) = model.inputs
    shape = (batch_size, *(size or 1 for size in tensor.shape[1:]))
    draw = np.random.default_rng(1).standard_normal(shape, dtype="float32")
    return (draw if "float" in tensor.dtype else draw > 0).astype(tensor.dtype)


def _reason(error) -> str:
    if isinstance(error, UnsupportedModelError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"it fails with {type(error).__name__}: {lines[0] if lines else 'no reason given'}"


def _outputs(model, inputs):
    return keras.ops.convert_to_numpy(model(inputs, training=False))
