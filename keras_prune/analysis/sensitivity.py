"""Sensitivity of a model to pruning each layer alone (Han et al. 2015, Fig. 6)."""

import contextlib
import copy
import dataclasses
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_prune.analysis.evaluate import direction, evaluate, require_max_drop
from keras_prune.layers.masks import require_finite_weights
from keras_prune.layers.weights import labels, weights_by_layer
from keras_prune.models.checks import require_connections
from keras_prune.rules.criteria import Criterion, StdThreshold
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.shards import count
from keras_prune.terminal import progress
from keras_prune.terminal.tables import Table, table_with_lines

_QUALITIES = (0.25, 0.5, 0.75, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0)


class Point(NamedTuple):
    """One measurement of a scan.

    Attributes:
        criterion: The `Criterion` by which a layer was pruned.
        density: Share of the connections of the layer that survived.
        value: Value of the metric.
    """

    criterion: Criterion
    density: float
    value: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name, with the criterion as Keras serializes it."""
        return self._asdict() | {"criterion": keras.saving.serialize_keras_object(self.criterion)}


@dataclasses.dataclass(frozen=True, repr=False)
class Sensitivity:
    """Result of `sensitivity`: how pruning each layer alone changes a metric. `print` it for a table.

    Attributes:
        curves: Dict from layer path to its list of `Point`s, in the order of the criteria.
        reference: Value of the metric before pruning.
        monitor: Name of the metric.
        direction: `1` if more of the metric is better, `-1` if less is.

    Example:

    >>> points = [Point(StdThreshold(1.0), density=0.3, value=0.97), Point(StdThreshold(2.0), density=0.05, value=0.8)]
    >>> scan = Sensitivity({"fc": points}, reference=0.98, monitor="accuracy", direction=1)
    >>> scan.criteria(max_drop=0.02)
    {'fc': StdThreshold(quality=1.0)}
    >>> print(scan)
         accuracy before pruning: 0.9800 (more is better)
    ┏━━━━━━━┳━━━━━━━━━━━━━━━━━━━━━━━━━━━┳━━━━━━━━━━┳━━━━━━━━━━┓
    ┃ layer ┃ criterion                 ┃ Weights% ┃ accuracy ┃
    ┡━━━━━━━╇━━━━━━━━━━━━━━━━━━━━━━━━━━━╇━━━━━━━━━━╇━━━━━━━━━━┩
    │ fc    │ StdThreshold(quality=1.0) │    30.0% │   0.9700 │
    │ fc    │ StdThreshold(quality=2.0) │     5.0% │   0.8000 │
    └───────┴───────────────────────────┴──────────┴──────────┘
    """

    curves: dict[str, list[Point]]
    reference: float
    monitor: str
    direction: int

    def criteria(self, max_drop: float) -> dict[str, Criterion | None]:
        """Returns, for each layer, the last criterion that alone costs at most `max_drop`.

        Args:
            max_drop: Float of at least 0, how much worse the metric may be if only that layer is pruned.

        Returns:
            A mapping for `prune(model, mapping)`. A layer that exceeds `max_drop` at the first criterion has `None` and
            stays dense.

        Raises:
            ValueError: If `max_drop` is negative.
        """
        require_max_drop(max_drop)
        required = self.direction * self.reference - max_drop
        chosen: dict[str, Criterion | None] = {}
        for name, points in self.curves.items():
            chosen[re.escape(name)] = None
            for point in points:
                if not self.direction * point.value >= required:  # NaN, too.
                    break  # A better value after this is luck.
                chosen[re.escape(name)] = point.criterion
        return chosen

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes as JSON types."""
        curves = {name: [point.to_dict() for point in points] for name, points in self.curves.items()}
        return {"monitor": self.monitor, "direction": self.direction, "reference": self.reference, "curves": curves}

    def __repr__(self):
        return (
            f"<Sensitivity monitor={self.monitor}, direction={self.direction}, reference={self.reference:.4g}, "
            f"layers={len(self.curves)}>"
        )

    def __str__(self):
        better = "more" if self.direction > 0 else "less"
        title = f"{self.monitor} before pruning: {self.reference:.4f} ({better} is better)"
        table = Table(title, ["layer", "criterion"], ["Weights%", self.monitor])
        for name, points in self.curves.items():
            for point in points:
                table.add_row(name, repr(point.criterion), f"{point.density:.1%}", f"{point.value:.4f}")
            table.add_section()
        return table_with_lines(table, [])


def sensitivity(
    model,
    validation_data,
    criteria: Sequence[Criterion] | None = None,
    monitor: str = "accuracy",
    mode: str = "auto",
    steps: int | None = None,
) -> Sensitivity:
    """Measures how pruning each layer alone changes a metric, without retraining (Han et al. 2015, Fig. 6).

    Each layer is pruned by each criterion, which takes one evaluation and no compilation. The weights are restored
    exactly. The zeros of a plain model count as pruned. Frozen layers are left out.

    Args:
        model: Compiled and trained Keras model, plain or pruned.
        validation_data: `(x, y)`, `(x, y, sample_weight)` or a dataset of batches.
        criteria: Sequence of criteria of one class, the weakest first. Criteria without a pattern take that of the
            pruned layer, such as `Blocks`. Defaults to `None`, `StdThreshold` with ten qualities from 0.25 to 3.
        monitor: String, `"loss"` or a metric that the model was compiled with. Defaults to `"accuracy"`.
        mode: `"min"` if less of the metric is better, `"max"` if more is, or `"auto"`, which works for the losses and
            metrics of Keras. Defaults to `"auto"`.
        steps: Integer, number of batches of a dataset to use. Defaults to `None`, all. An endless dataset needs it.

    Returns:
        A `Sensitivity`.

    Raises:
        ValueError: If `criteria` is empty or of several classes, if the model is not compiled, has no connections or
            does not measure `monitor`, if the direction of `monitor` is unknown, or if `validation_data` is endless and
            `steps` is `None`, or if a weight holds NaN or infinity.

    Example:

    >>> import keras, numpy as np, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1, kernel_initializer="ones", name="fc")])
    >>> model.compile(loss="mse", metrics=["mae"])
    >>> data = np.ones((8, 4)), 4 * np.ones((8, 1))
    >>> scan = kp.sensitivity(model, data, [kp.TargetSparsity(0.25), kp.TargetSparsity(0.5)], monitor="mae")
    >>> [(point.density, point.value) for point in scan.curves["fc"]]
    [(0.75, 1.0), (0.5, 2.0)]
    >>> scan.criteria(max_drop=1.0)
    {'fc': TargetSparsity(sparsity=0.25)}
    """
    criteria = [StdThreshold(quality) for quality in _QUALITIES] if criteria is None else criteria
    kinds = {type(criterion) for criterion in criteria} if isinstance(criteria, Sequence) else set()
    if len(kinds) != 1 or not all(issubclass(kind, Criterion) for kind in kinds):
        raise ValueError(
            "`criteria` must be a sequence of criteria of one class, such as [StdThreshold(0.5), StdThreshold(1.0)]. "
            f"Received: criteria={criteria!r}"
        )
    weights = [weight for weight in require_connections(model) if weight.variable.trainable]
    if not weights:
        raise ValueError(
            "No weight of the model is trained, so none would be pruned. Set `trainable=True` for the layers to scan. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    require_finite_weights(weights)
    reference = evaluate(model, validation_data, monitor, steps=steps)
    towards = direction(model, monitor, mode)  # Only an evaluated model knows its metrics.
    curves: dict[str, list[Point]] = {}
    by_layer = weights_by_layer(weights)
    names = labels(model, [layer for layer, _ in by_layer])
    with progress.steps("sensitivity", len(by_layer) * len(criteria)) as advance:
        for layer, of_layer in by_layer:
            advance(0, f"sensitivity of {names[id(layer)]}")
            curves[names[id(layer)]] = points = []
            for criterion in _in_pattern_of(of_layer[0], criteria):
                with _cut(of_layer, criterion) as density:
                    value = evaluate(model, validation_data, monitor, steps=steps)
                points.append(Point(criterion, density, value))
                advance()
    return Sensitivity(curves, reference, monitor, towards)


def _in_pattern_of(weight, criteria) -> list[Criterion]:
    """Returns criteria in which the pattern of a pruned weight replaces that of single connections."""
    pattern = weight.criterion.pattern if weight.criterion else Pattern()
    chosen = [copy.copy(criterion) for criterion in criteria]
    for criterion in chosen:
        if criterion.pattern == Pattern():
            criterion.pattern = pattern
    return chosen


@contextlib.contextmanager
def _cut(weights, criterion):
    """Context in which weights are pruned by a criterion. Yields the share of the connections that is left."""
    # Copies, because on JAX a variable shares the array that is assigned to it.
    originals = [ops.copy(weight.variable.value) for weight in weights]
    kept = 0
    try:
        for weight in weights:
            variable = weight.variable
            cut = criterion(variable.value, weight.mask())
            kept += count(cut.mask)
            variable.assign(ops.where(cut.mask, variable.value, ops.zeros_like(variable.value)))
        yield kept / sum(weight.size for weight in weights)
    finally:
        for weight, original in zip(weights, originals, strict=True):
            weight.variable.assign(original)
