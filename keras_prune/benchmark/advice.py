"""Advice on the runtime and the sparsity pattern to deploy a model with, from measurements on this machine."""

import dataclasses
from typing import Any

from keras_prune.benchmark.results import Measurement, Results
from keras_prune.benchmark.runner import benchmark
from keras_prune.benchmark.workloads import model_workloads
from keras_prune.models.rebuild import plain_model
from keras_prune.rules.patterns import Pattern
from keras_prune.terminal.tables import wrapped


@dataclasses.dataclass(frozen=True, repr=False)
class Choice:
    """Engines worth using for one workload and batch size.

    Attributes:
        dense: The fastest dense float32 `Measurement`.
        sparse: List of the fastest sparse `Measurement` of each runtime, fastest first. A runtime is listed only if its
            upper quartile is below the lower quartile of `dense`. If the list is empty, stay dense.
        quantized: The `Measurement` of an engine that rounds weights to 8 bits, if it is faster than all others, else
            `None`. It is fast because of the rounding, not the zeros.
    """

    dense: Measurement
    sparse: list[Measurement]
    quantized: Measurement | None

    def to_dict(self) -> dict[str, Any]:
        """Returns the measurements as JSON types."""
        return {
            "dense": self.dense.to_dict(),
            "sparse": [row.to_dict() for row in self.sparse],
            "quantized": self.quantized and self.quantized.to_dict(),
        }

    def __repr__(self):
        fastest = [*self.sparse, self.dense][0].engine
        return f"<Choice for {self.dense.workload}, batch {self.dense.batch_size}: {fastest}>"

    def __str__(self):
        place = f"{self.dense.workload} at {self.dense.density:.1%}, batch {self.dense.batch_size}"
        dense = f"{self.dense.engine} ({self.dense.microseconds:,.0f} us, {self.dense.weight_bytes / 1e6:,.2f} MB)"
        line = f"{place}: stay dense, with {dense}; no sparse engine is clearly faster."
        if self.sparse:
            found = "; ".join(f"{row.engine}{_condition(row)} {_gain(row)}" for row in self.sparse)
            line = f"{place}: {found}; the fastest dense engine is {dense}."
        if self.quantized:
            line += f" With weights rounded to 8 bits, zeros or not, {self.quantized.engine} {_gain(self.quantized)}."
        return line


@dataclasses.dataclass(frozen=True, repr=False)
class Advice:
    """Result of `compare_runtimes`. `print` it for one line per workload.

    Attributes:
        choices: List of `Choice`, one for each workload and batch size with a dense engine.
        results: The `Results` behind the choices.
    """

    choices: list[Choice]
    results: Results

    def to_dict(self) -> dict[str, Any]:
        """Returns choices and results as JSON types."""
        return {"choices": [choice.to_dict() for choice in self.choices], "results": self.results.to_dict()}

    def __repr__(self):
        return f"<Advice: {self.choices}>"

    def __str__(self):
        lines = [str(choice) for choice in self.choices]
        return wrapped(lines + [f"left out: {name} - {reason}" for name, reason in self.results.skipped.items()])


def advice(results: Results) -> Advice:
    """Returns the engines worth using for each workload and batch size of a benchmark."""
    choices = []
    for group in results.groups():
        rows = sorted(group, key=lambda row: row.microseconds)
        dense = next((row for row in rows if row.baseline), None)
        if dense is None:
            continue
        faster = [row for row in rows if not row.baseline and row.high < dense.low]
        sparse: dict[str, Measurement] = {}
        for row in faster:
            if not row.quantized:
                sparse.setdefault(row.runtime, row)
        quantized = faster[0] if faster and faster[0].quantized else None
        choices.append(Choice(dense, list(sparse.values()), quantized))
    return Advice(choices, results)


def compare_runtimes(model, batch_size: int = 1, device: str = "cpu:0") -> Advice:
    """Measures a model and each of its dense layers with all installed engines, and returns which are worth using.

    TensorFlow and LiteRT run whole models, and so does JAX with `KERAS_BACKEND=jax`. The other runtimes run single
    layers. The command `keras-prune benchmark` measures several batch sizes and shows a progress bar.

    Args:
        model: Built Keras model, pruned or plain. It is not changed. Of a subclassed model, or a model with several
            inputs or outputs, only the layers are measured.
        batch_size: Integer, inputs per call. Defaults to `1`.
        device: String, `"cpu:0"` or `"gpu:0"`. Defaults to `"cpu:0"`.

    Returns:
        `Advice`.

    Raises:
        ValueError: If `batch_size` is not a positive integer, no installed engine has the device, or `model` is not a
            built Keras 3 model.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(4, name="fc")], name="tiny")
    >>> advice = kp.compare_runtimes(model)  # doctest: +SKIP
    >>> print(advice)  # doctest: +SKIP
    tiny at 100.0%, batch 1: stay dense, with LiteRT (2 us, 0.00 MB); no sparse engine is clearly
    faster.
    tiny/fc at 100.0%, batch 1: stay dense, with LiteRT (1 us, 0.00 MB); no sparse engine is clearly
    faster.
    """
    with plain_model(model) as plain:
        return advice(benchmark(model_workloads(plain), [batch_size], device, rounds=5))


def _condition(row):
    return "" if row.pattern == Pattern() else f", if pruned in {row.pattern},"


def _gain(row):
    return f"is {row.speed_up:.1f}x as fast ({row.weight_bytes / 1e6:,.2f} MB)"
