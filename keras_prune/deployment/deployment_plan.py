"""Plan of what a runtime gains from pruning, layer by layer, made before training.

The shares for LiteRT were measured with `experiments/litert_layers.py`, see docs/results/litert.md. The rules for
XNNPACK's sparse convolutions come from its documentation, and from LiteRT 2.3 on an emulated ARM processor.
"""

import copy
import dataclasses
import math
import re
from typing import NamedTuple

import keras

from keras_prune.analysis.measured_gains import measured
from keras_prune.analysis.xnnpack_subgraph import convolutions_of, sparse_subgraph
from keras_prune.layers import kinds
from keras_prune.layers.prune import wrapped_layer
from keras_prune.layers.traversal import layers_around, models_in, parents_of, paths_in
from keras_prune.layers.weights import labels, weights_by_layer
from keras_prune.models.checks import require_built, require_connections
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.patterns import Blocks, Pattern
from keras_prune.rules.rule import rule_of
from keras_prune.terminal.tables import Table, names_by_reason, table_with_lines

_SINGLE, _BLOCKS = Pattern(), Blocks((4, 1))


class LayerPlan(NamedTuple):
    """How a layer gains from pruning.

    Attributes:
        name: Path of the layer inside the model.
        kind: Name of its class.
        weights: Number of connections.
        pattern: The `Pattern` to prune it in.
        smaller_from: Share of zeros from which on the file becomes smaller; `None` if it does not.
        faster_from: Share of zeros from which on the layer becomes faster; `None` if it does not.
        reason: Why it does not become faster; empty if it does.
    """

    name: str
    kind: str
    weights: int
    pattern: Pattern = _SINGLE
    smaller_from: float | None = None
    faster_from: float | None = None
    reason: str = ""


@dataclasses.dataclass(frozen=True, repr=False)
class DeploymentPlan:
    """How the layers of a model gain from pruning on a runtime. `print` it for the table.

    Attributes:
        runtime: String.
        rows: List of `LayerPlan`, one for each layer that owns connections, also inside other layers.
        blockers: Mapping from the path of a layer or the name of a model to why XNNPACK cannot skip zeros there. Empty
            for other runtimes. Each nested model is followed separately.
    """

    runtime: str
    rows: list[LayerPlan]
    blockers: dict[str, str]

    def criteria(self, criterion: Criterion | float) -> dict[str, Criterion]:
        """Returns the criterion for each layer, in the pattern that the runtime gains from.

        Args:
            criterion: A `Criterion`, whose own pattern is replaced; or a float, the sparsity of each layer.

        Returns:
            A mapping for `prune(model, mapping)`.

        Raises:
            ValueError: If `criterion` is neither.

        Example:

        >>> import keras_prune as kp
        >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="fc")])
        >>> kp.deployment_plan(model).criteria(0.9)["fc"]
        TargetSparsity(sparsity=0.9, pattern=Blocks(block_size=(4, 1), reduction='mean'))
        >>> model = kp.prune(model, kp.deployment_plan(model).criteria(kp.StdThreshold(1.0)))
        """
        chosen = {}
        # Patterns also match the ends of paths, and the first match counts. So the longest paths come first.
        for row in sorted(self.rows, key=lambda row: -row.name.count("/")):
            rule = copy.copy(rule_of(criterion, row.name))
            if not isinstance(rule, Criterion):
                raise ValueError(
                    "`criterion` must be a Criterion such as StdThreshold(1.0), or a sparsity such as 0.9. "
                    f"Received: criterion={criterion!r}"
                )
            rule.pattern = row.pattern
            chosen[re.escape(row.name)] = rule
        return chosen

    def to_dict(self) -> dict:
        """Returns the plan as JSON types."""
        rows = [row._asdict() | {"pattern": repr(row.pattern)} for row in self.rows]
        return {"runtime": self.runtime, "rows": rows, "blockers": self.blockers}

    def __repr__(self):
        return f"<{type(self).__name__}: {self._title()}>"

    def __str__(self):
        numbers = ("weights", "pattern", "smaller from", "faster from")
        table = Table(self._title(), ["layer", "kind"], numbers)
        for row in self.rows:
            pattern = "x".join(map(str, row.pattern.block_size)) if isinstance(row.pattern, Blocks) else "any"
            shares = ("-" if share is None else f"{share:.0%} zeros" for share in (row.smaller_from, row.faster_from))
            table.add_row(row.name, row.kind, f"{row.weights:,}", pattern, *shares)
        lines = [f"stops the sparse subgraph: {name} - {reason}" for name, reason in self.blockers.items()]
        lines += [f"not faster: {names} - {reason}" for names, reason in names_by_reason(self.rows)]
        return table_with_lines(table, lines)

    def _title(self) -> str:
        smaller, faster, total = (
            sum(row.weights for row in self.rows if chosen(row))
            for chosen in (lambda row: row.smaller_from, lambda row: row.faster_from, lambda row: True)
        )
        return f"{self.runtime}: {smaller / total:.0%} of the connections can be smaller, {faster / total:.0%} faster"


def deployment_plan(model, runtime: str = "litert") -> DeploymentPlan:
    """Returns the layers that a runtime can make smaller or faster. Training is not required.

    Args:
        model: Built Keras model, plain or pruned. Its weights do not matter.
        runtime: `"litert"`, the interpreter of a `.tflite` file with its default delegate; or `"xnnpack"`, the sparse
            inference of convolutional networks in this delegate, for float32. It is off on x86 processors with AVX.
            Defaults to `"litert"`.

    Returns:
        A `DeploymentPlan`.

    Raises:
        ValueError: If `runtime` is unknown, or `model` is not a built Keras 3 model with connections.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([
    ...     keras.Input((28, 28, 1)),
    ...     keras.layers.Conv2D(20, 5, name="conv"),
    ...     keras.layers.Flatten(),
    ...     keras.layers.Dense(500, "relu", name="fc1"),
    ...     keras.layers.Dense(10, name="fc2"),
    ... ])
    >>> plan = kp.deployment_plan(model)
    >>> print(plan)
         litert: 100% of the connections can be smaller, 100% faster
    ┏━━━━━━━┳━━━━━━━━┳━━━━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━┳━━━━━━━━━━━━━┓
    ┃ layer ┃ kind   ┃   weights ┃ pattern ┃ smaller from ┃ faster from ┃
    ┡━━━━━━━╇━━━━━━━━╇━━━━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━╇━━━━━━━━━━━━━┩
    │ conv  │ Conv2D │       500 │     any │    35% zeros │           - │
    │ fc1   │ Dense  │ 5,760,000 │     4x1 │    30% zeros │   85% zeros │
    │ fc2   │ Dense  │     5,000 │     4x1 │    30% zeros │   85% zeros │
    └───────┴────────┴───────────┴─────────┴──────────────┴─────────────┘
    not faster: conv - the file leaves its zeros out, but LiteRT makes it dense when it loads the file
    >>> model = kp.prune(model, plan.criteria(0.9))
    """
    if runtime not in list(_RUNTIMES):
        raise ValueError(f"`runtime` must be one of {sorted(_RUNTIMES)}. Received: runtime={runtime!r}")
    require_built(model)
    return DeploymentPlan(runtime, *_RUNTIMES[runtime](model))


def _litert(model) -> tuple[list[LayerPlan], dict[str, str]]:
    parents = parents_of(model)
    return [_on_litert(layer, layers_around(layer, parents), plan) for layer, plan in _layers(model)], {}


def _xnnpack(model) -> tuple[list[LayerPlan], dict[str, str]]:
    paths, skipping, blockers = paths_in(model), set(), {}
    # A model without its own convolutions, such as a head on a backbone, cannot block anything.
    for submodel in list(filter(convolutions_of, models_in(model))) or [model]:
        pointwise, found = sparse_subgraph(submodel)
        skipping |= {id(wrapped_layer(layer)) for layer in pointwise}
        blockers |= {paths.get(id(one)) or one.name: reason for one, reason in found}
    rows = []
    for layer, plan in _layers(model):
        faster, reason = None, "XNNPACK skips the zeros of 1x1 convolutions in a sparse subgraph only"
        if id(layer) in skipping:
            faster, reason = measured("faster in XNNPACK"), ""
        rows.append(plan._replace(smaller_from=_smaller_from(layer), faster_from=faster, reason=reason))
    return rows, blockers


_RUNTIMES = {"litert": _litert, "xnnpack": _xnnpack}


def _layers(model) -> list[tuple]:
    """Returns each layer that owns connections, with a plan without gains."""
    groups = weights_by_layer(require_connections(model))
    names = labels(model, [layer for layer, _ in groups])
    return [
        (layer, LayerPlan(names[id(layer)], type(layer).__name__, sum(one.size for one in weights)))
        for layer, weights in groups
    ]


def _smaller_from(layer) -> float | None:
    """Returns the share of single zeros from which on a `.tflite` file becomes smaller."""
    return measured("smaller") if isinstance(layer, kinds.SPARSE_IN_TFLITE) else None


def _on_litert(layer, around, plan: LayerPlan) -> LayerPlan:
    reason = _why_not_in_blocks(layer, around)
    if reason:
        return plan._replace(smaller_from=_smaller_from(layer), reason=reason)
    smaller, faster = measured("smaller in blocks"), measured("faster in blocks")
    return plan._replace(pattern=_BLOCKS, smaller_from=smaller, faster_from=faster)


def _why_not_in_blocks(layer, around) -> str:
    """Returns why LiteRT's sparse kernel does not make a layer inside others faster; nothing if it does."""
    if isinstance(layer, keras.layers.Embedding):
        return "a table that is looked up is stored with its zeros"
    if not isinstance(layer, kinds.SPARSE_IN_TFLITE):
        return "its gain in LiteRT was not measured"
    if not isinstance(layer, (keras.layers.Dense, *kinds.GATED)):
        return "the file leaves its zeros out, but LiteRT makes it dense when it loads the file"
    kernels = [layer.kernel, layer.recurrent_kernel] if isinstance(layer, kinds.GATED) else [layer.kernel]
    odd = [kernel.shape[0] for kernel in kernels if kernel.shape[0] % 4]
    if odd:
        return f"LiteRT misreads blocks of 4 where the number of inputs, {odd[0]}, is not a multiple of 4"
    rows = [*_input_shape(layer)[1:-1]]
    rows += [_input_shape(outer)[1] for outer in around if isinstance(outer, keras.layers.TimeDistributed)]
    count = "any number" if None in rows else math.prod(rows)
    return "" if count == 1 else f"the sparse kernel gains little on many rows at once, and one input has {count}"


def _input_shape(layer) -> tuple:
    """Returns the shape that a layer was built with, such as `(None, 8)`, or nothing if it was built with several."""
    return (layer.get_build_config() or {}).get("input_shape") or ()
