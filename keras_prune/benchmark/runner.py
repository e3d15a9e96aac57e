"""Compare the outputs of the benchmark's engines with the dense outputs, and time the engines in turns."""

import contextlib
import sys
from collections.abc import Sequence

import keras
import numpy as np
from keras import ops

from keras_prune.benchmark.engine import Engine, UnsupportedModelError
from keras_prune.benchmark.engines import ENGINES, available
from keras_prune.benchmark.results import Measurement, Results, this_machine, with_speed_ups
from keras_prune.benchmark.workloads import Workload
from keras_prune.sparse.timing import interleave
from keras_prune.terminal.progress import steps


def benchmark(
    workloads: Sequence[Workload],
    batch_sizes: Sequence[int] = (1, 64),
    device: str = "cpu:0",
    rounds: int = 10,
    engines=ENGINES,
) -> Results:
    """Measures all engines on all workloads and batch sizes.

    The engines of one workload and batch size run in turns within the same minute, so that their ratios hold even if
    the machine slows down. An engine that fails, or whose outputs differ from the dense result, is reported instead of
    timed. A workload that Keras cannot run is reported too.

    Args:
        workloads: List of `Workload`.
        batch_sizes: Integers, inputs per call. Defaults to `(1, 64)`.
        device: String, `"cpu:0"` or `"gpu:0"`. Defaults to `"cpu:0"`.
        rounds: Integer, number of turns of each engine. A turn takes about 30 ms. Defaults to `10`.
        engines: List of `Engine` classes. Defaults to `ENGINES`, all.

    Returns:
        `Results`.

    Raises:
        ValueError: If `batch_sizes` or `rounds` are not positive integers, or no installed engine has the device.

    Example:

    >>> from keras_prune.benchmark.runner import benchmark
    >>> from keras_prune.benchmark.scipy_engines import SciPyCSR
    >>> from keras_prune.benchmark.workloads import model_workloads
    >>> layer = keras.layers.Dense(32, use_bias=False, name="fc")
    >>> workloads = model_workloads(keras.Sequential([keras.Input((64,)), layer], name="small"))
    >>> benchmark(workloads, batch_sizes=[1], rounds=1, engines=[SciPyCSR])
    <Results: 2 measurements on cpu:0>
    """
    for name, numbers in (("batch_sizes", batch_sizes), ("rounds", [rounds])):
        if not numbers or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"`{name}` must be integers of at least 1. Received: {name}={list(numbers)}")
    present, absent = available(device, engines)
    rows: list[Measurement] = []
    refused: dict[tuple[str, str], str] = {}
    skipped: dict[str, str] = {}
    total = len(workloads) * len(present) * (1 + len(batch_sizes) * rounds)
    with steps("benchmark", total) as advance, full_float32(device):
        for workload in workloads:
            advance(0, f"{workload.name} at {workload.density:.1%}")
            try:
                with keras.device(device):
                    models = {pattern: workload.build(pattern) for pattern in {one.pattern for one in present}}
                    loaded, reasons = load(present, models, device)
                advance(len(present))
                for inputs, expected in _references(models, batch_sizes) if loaded else []:
                    calls, differences, failures = verify(loaded, inputs, expected)
                    reasons |= failures
                    times = interleave(calls, rounds, 0.03, advance)
                    rows += measure(workload, len(inputs), loaded, times, differences)
            except UnsupportedModelError as error:
                skipped[workload.name] = str(error)
                continue
            refused |= {(workload.name, engine): reason for engine, reason in reasons.items()}
    return Results(rows, refused, skipped, absent, this_machine(device))


@contextlib.contextmanager
def full_float32(device: str):
    """Context in which a GPU does not round the factors of float32 products to TF32.

    Args:
        device: String, `"cpu:0"` or `"gpu:0"`. On a CPU, nothing changes.
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


def load(engines, models, device: str) -> tuple[dict[str, Engine], dict[str, str]]:
    """Loads models into engines.

    Args:
        engines: List of `Engine` classes.
        models: Dict from `Pattern` to the Keras model with this pattern, or to `None` if it cannot have the pattern.
        device: String, such as `"cpu:0"`.

    Returns:
        The engines by name, and by name the reason for each engine that cannot run its model.
    """
    loaded, refused = {}, {}
    for engine in engines:
        if models[engine.pattern] is None:
            refused[engine.name] = f"the workload cannot be pruned in {engine.pattern}"
            continue
        try:
            loaded[engine.name] = engine(models[engine.pattern], device)
        except Exception as error:  # A runtime may raise anything if it cannot run a model.
            refused[engine.name] = _reason(error)
    return loaded, refused


def verify(loaded: dict[str, Engine], inputs, expected) -> tuple[dict, dict[str, float], dict[str, str]]:
    """Compares the outputs of engines with the dense outputs.

    Args:
        loaded: Dict from name to `Engine`.
        inputs: Array of shape `(batch, ...)`.
        expected: Dict from `Pattern` to the outputs of the Keras model with this pattern.

    Returns:
        By name, the functions that run the engines on the inputs, the relative differences of their outputs, and the
        reasons why other engines failed.
    """
    calls, differences, refused = {}, {}, {}
    for name, engine in loaded.items():
        reference = expected[engine.pattern]
        try:
            call = engine.prepare(inputs)
            difference = float(np.abs(engine.to_numpy(call()) - reference).max() / np.abs(reference).max())
        except Exception as error:
            refused[name] = _reason(error)
            continue
        if difference <= engine.tolerance:
            calls[name], differences[name] = call, difference
        else:
            refused[name] = (
                f"the outputs differ from the dense ones by {difference:.1e} of the largest at batch {len(inputs)}"
            )
    return calls, differences, refused


def measure(workload: Workload, batch_size: int, loaded: dict[str, Engine], times, differences) -> list[Measurement]:
    """Returns a `Measurement` for each engine with times.

    Args:
        workload: `Workload`.
        batch_size: Integer.
        loaded: Dict from name to `Engine`.
        times: Dict from name to an array of seconds.
        differences: Dict from name to the relative difference of the outputs.
    """
    rows = []
    for name, seconds in times.items():
        engine = loaded[name]
        low, median, high = (float(quantile) for quantile in np.quantile(1e6 * seconds, [0.25, 0.5, 0.75]))
        rows.append(
            Measurement(
                workload=workload.name,
                density=workload.density,
                batch_size=batch_size,
                engine=name,
                runtime=engine.runtime,
                pattern=engine.pattern,
                baseline=engine.baseline,
                quantized=engine.quantized,
                microseconds=median,
                low=low,
                high=high,
                calls=len(seconds),
                weight_bytes=engine.weight_bytes,
                difference=differences[name],
            )
        )
    return with_speed_ups(rows)


def _references(models, batch_sizes) -> list[tuple]:
    """Returns random inputs of each batch size, and the outputs of the Keras models by pattern."""
    built = {pattern: model for pattern, model in models.items() if model}
    try:
        batches = [_inputs(next(iter(built.values())), batch_size) for batch_size in batch_sizes]
        return [
            (inputs, {pattern: ops.convert_to_numpy(model(inputs, training=False)) for pattern, model in built.items()})
            for inputs in batches
        ]
    except Exception as error:
        raise UnsupportedModelError(f"Keras does not run it on random inputs: {_reason(error)}") from error


def _inputs(model, batch_size):
    """Returns random inputs of a model. Integers are 0 and 1, and dimensions of any size are 1."""
    (tensor,) = model.inputs
    shape = (batch_size, *(size or 1 for size in tensor.shape[1:]))
    draw = np.random.default_rng(1).standard_normal(shape, dtype="float32")
    return (draw if "float" in tensor.dtype else draw > 0).astype(tensor.dtype)


def _reason(error) -> str:
    if isinstance(error, UnsupportedModelError):
        return str(error)
    lines = str(error).strip().splitlines()
    return f"it fails with {type(error).__name__}: {lines[0] if lines else 'no reason given'}"
