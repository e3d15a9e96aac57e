"""The advice: which runtime and which pattern to deploy a model with, from measurements on the machine at hand."""

from typing import NamedTuple

from keras_prune.benchmark.engines import ENGINES
from keras_prune.benchmark.results import Measurement, Results
from keras_prune.benchmark.runner import benchmark
from keras_prune.benchmark.workloads import model_workloads
from keras_prune.models.rebuild import plain_model

_ENGINES = {engine.name: engine for engine in ENGINES}


class Choice(NamedTuple):
    """What the measurements say about one workload and batch size.

    Attributes:
        dense: The fastest dense float32 `Measurement`.
        sparse: The sparse ones that are faster than that beyond the quartiles of both, fastest first, one for each
            runtime. None of them: stay dense.
        quantized: The fastest one that rounds weights to 8 bits, if it is faster than all of these; else `None`. It
            owes that to the rounding, not to the zeros.
    """

    dense: Measurement
    sparse: list[Measurement]
    quantized: Measurement | None

    def __str__(self):
        place = f"{self.dense.workload} at {self.dense.density:.1%}, batch {self.dense.batch_size}"
        dense = f"{self.dense.engine} ({self.dense.microseconds:,.0f} us, {self.dense.weight_bytes / 1e6:,.2f} MB)"
        if self.sparse:
            found = [
                f"{m.engine}{', if pruned in blocks of 4x1,' if _ENGINES[m.engine].pattern else ''} {self._gain(m)}"
                for m in self.sparse
            ]
            line = f"{place}: {'; '.join(found)}; the fastest dense engine is {dense}."
        else:
            line = f"{place}: stay dense, with {dense}; no sparse engine is clearly faster."
        if self.quantized:
            line += (
                f" With weights rounded to 8 bits, zeros or not, {self.quantized.engine} {self._gain(self.quantized)}."
            )
        return line

    def _gain(self, measurement):
        speed_up = self.dense.microseconds / measurement.microseconds
        return f"is {speed_up:.1f}x as fast ({measurement.weight_bytes / 1e6:,.2f} MB)"


class Advice(NamedTuple):
    """Which runtime and pattern to deploy a model with; `print` it.

    Attributes:
        choices: List of `Choice`, one for each row of the results that has a dense engine.
        results: The `Results` that it rests on.
    """

    choices: list[Choice]
    results: Results

    def __str__(self):
        lines = [str(choice) for choice in self.choices]
        return "\n".join(lines + [f"left out: {name} - {reason}" for name, reason in self.results.left_out.items()])


def advice(results: Results) -> Advice:
    """Returns what the results of a benchmark say for every workload and batch size."""
    choices = []
    for row in results.rows():
        baselines = [m for m in row if m.baseline]
        if not baselines:
            continue
        dense = min(baselines, key=lambda m: m.microseconds)
        faster = [m for m in row if not m.baseline and m.high < dense.low]
        faster.sort(key=lambda m: m.microseconds)
        sparse: dict[str, Measurement] = {}
        for measurement in faster:
            if not _ENGINES[measurement.engine].quantized:
                sparse.setdefault(_ENGINES[measurement.engine].runtime(), measurement)
        quantized = faster[0] if faster and _ENGINES[faster[0].engine].quantized else None
        choices.append(Choice(dense, list(sparse.values()), quantized))
    return Advice(choices, results)


def compare_runtimes(model, batch_size: int = 1, device: str = "cpu:0") -> Advice:
    """Measures a model, and its dense layers each on its own, with every engine that is installed, and says what to do.

    Whole models run on TensorFlow, LiteRT and, with KERAS_BACKEND=jax, on JAX; the other runtimes know single layers.
    The command line `python -m keras_prune.tools.benchmark` does the same for several batch sizes, with a progress bar.

    Args:
        model: Built Keras model, pruned or plain. It is not changed. One that is subclassed or has not one input and
            one output is not measured as a whole.
        batch_size: Integer, inputs per call. Defaults to `1`.
        device: String, `"cpu:0"` or `"gpu:0"`. Defaults to `"cpu:0"`.

    Returns:
        `Advice`.

    Raises:
        ValueError: If an argument is none of the above, or the model is not built or not of Keras 3.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4, name="fc")], name="tiny")
    >>> advice = kp.compare_runtimes(model)  # doctest: +SKIP
    >>> print(advice)  # doctest: +SKIP
    tiny at 100.0%, batch 1: stay dense, with LiteRT (2 us, 0.00 MB); no sparse engine is clearly faster.
    tiny/fc at 100.0%, batch 1: stay dense, with LiteRT (1 us, 0.00 MB); no sparse engine is clearly faster.
    """
    with plain_model(model) as plain:
        return advice(benchmark(model_workloads(plain), [batch_size], device, rounds=5))
