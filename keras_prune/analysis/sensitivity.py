"""Sensitivity: how much each layer's connections matter, one layer cut at a time (Han et al. 2015, Fig. 6)."""

import contextlib
import math
import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from keras import ops

from keras_prune.analysis.evaluate import evaluate
from keras_prune.layers.weights import labels, prunable_weights, weights_by_layer
from keras_prune.rules.chunks import count
from keras_prune.rules.criteria import Criterion, StdThreshold, TargetSparsity
from keras_prune.rules.patterns import Pattern

DEFAULT_QUALITIES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


class Point(NamedTuple):
    """One measurement: a layer cut at a `strength` (quality or sparsity) kept `density` and gave `value`."""

    strength: float
    density: float
    value: float


class Sensitivity:
    """The curves of a scan, and what follows from them.

    Attributes:
        curves: Mapping from layer path to its list of `Point`s, strength rising.
        reference: What the uncut model measures.
        monitor: Name of the metric.

    Example:

    >>> points = [Point(strength=1.0, density=0.3, value=0.97), Point(strength=2.0, density=0.05, value=0.8)]
    >>> scan = Sensitivity({"fc": points}, reference=0.98, monitor="accuracy", kind=StdThreshold)
    >>> scan.criteria(max_drop=0.02)
    {'fc': StdThreshold(quality=1.0)}
    """

    def __init__(
        self,
        curves: dict[str, list[Point]],
        reference: float,
        monitor: str,
        kind: type[Criterion],
        patterns: Mapping[str, Pattern] | None = None,
    ):
        self.curves = curves
        self.reference = reference
        self.monitor = monitor
        self._kind = kind
        self._patterns = patterns or {}

    def criteria(self, max_drop: float) -> dict[str, Criterion | None]:
        """Returns the strongest criterion for each layer that alone costs at most `max_drop`.

        Args:
            max_drop: Float of at least 0, how far the metric may fall when that layer alone is cut.

        Returns:
            A mapping for `prune(model, mapping)`. The most sensitive layer has the smallest threshold; one that
            breaks the budget at the weakest strength that was tried has `None` and stays dense.

        Raises:
            ValueError: If `max_drop` is negative.
        """
        if not max_drop >= 0:
            raise ValueError(f"max_drop is how far the metric may fall, at least 0. Received: max_drop={max_drop}")
        chosen: dict[str, Criterion | None] = {}
        for name, points in self.curves.items():
            strength = None
            for point in points:
                if point.value < self.reference - max_drop:
                    break  # What recovers beyond a loss is luck.
                strength = point.strength
            pattern = self._patterns.get(name)
            chosen[re.escape(name)] = None if strength is None else self._kind(strength, pattern=pattern)
        return chosen


def sensitivity(
    model,
    data,
    qualities: Sequence[float] | None = None,
    sparsities: Sequence[float] | None = None,
    monitor: str = "accuracy",
    batch_size: int | None = None,
) -> Sensitivity:
    """Cuts one layer at a time over a grid of strengths, without retraining, and measures the model at each point.

    Costs one evaluation for each point and no compilation; the weights come back exactly as they were. The zeros of a
    plain model count as pruned.

    Args:
        model: Compiled and trained Keras model, plain or pruned, whose metric grows with quality. Pruned
            layers are cut in the pattern of their own criterion, such as `Blocks`.
        data: Validation data, `(x, y)` or a dataset.
        qualities: Floats above 0, for `StdThreshold`. Defaults to `None`: 0.25 to 3, if no `sparsities` are given.
        sparsities: Floats in (0, 1), for `TargetSparsity`. Defaults to `None`.
        monitor: String, the metric to measure. Defaults to `"accuracy"`.
        batch_size: Integer. Defaults to `None`, Keras's own.

    Returns:
        A `Sensitivity`.

    Raises:
        ValueError: If both grids are given, the model is not compiled or does not measure `monitor`.

    Example:

    >>> import keras, numpy as np, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones", name="fc")])
    >>> model.compile(loss="mse", metrics=["accuracy"])
    >>> scan = kp.sensitivity(model, (np.ones((8, 4)), 4 * np.ones((8, 1))), sparsities=[0.25, 0.5])
    >>> scan.curves["fc"]
    [Point(strength=0.25, density=0.75, value=0.0), Point(strength=0.5, density=0.5, value=0.0)]
    """
    if qualities is not None and sparsities is not None:
        raise ValueError(
            f"Give the grid either as qualities or as sparsities. Received: qualities={qualities}, "
            f"sparsities={sparsities}"
        )
    kind, grid = (StdThreshold, qualities or DEFAULT_QUALITIES) if sparsities is None else (TargetSparsity, sparsities)
    for strength in grid:
        kind(strength)  # One that is out of range is refused before anything is measured.
    reference = evaluate(model, data, monitor, batch_size)
    weights = [weight for weight in prunable_weights(model) if weight.variable.trainable]
    layers = weights_by_layer(weights)
    names = labels(model, [layer for layer, _ in layers])
    by_name = {names[id(layer)]: of_layer for layer, of_layer in layers}
    patterns = {name: of[0].criterion.pattern for name, of in by_name.items() if of[0].criterion}
    curves: dict[str, list[Point]] = {name: [] for name in by_name}
    for name, of_layer in by_name.items():
        for strength in sorted(grid):
            with _cut(of_layer, kind(strength, pattern=patterns.get(name))) as density:
                curves[name].append(Point(strength, density, evaluate(model, data, monitor, batch_size)))
    return Sensitivity(curves, reference, monitor, kind, patterns)


@contextlib.contextmanager
def _cut(weights, criterion):
    """Zeroes what `criterion` cuts while the context lasts; yields the share of the connections that is left."""
    # A copy, because JAX hands the very array on when it is assigned.
    originals = [ops.copy(weight.variable.value) for weight in weights]
    kept = 0
    try:
        for weight in weights:
            variable = weight.variable
            cut = criterion(variable.value, weight.mask())
            kept += count(cut.mask)
            variable.assign(ops.where(cut.mask, variable.value, ops.zeros_like(variable.value)))
        yield kept / sum(math.prod(weight.variable.shape) for weight in weights)
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.variable.assign(original)
