"""The deployment plan: which layers become smaller or faster on a runtime if they are pruned, known before training.

What it says of LiteRT was measured with `experiments/litert_layers.py` (ai-edge-litert 2.3, x86-64 with AVX-512, one
thread, float32), see docs/patterns.md; of XNNPACK's sparse convolutions, what XNNPACK documents.
"""

import dataclasses
import math
from typing import NamedTuple

import keras
from rich.table import Table

from keras_prune.analysis.tables import names_by_reason, table_with_lines
from keras_prune.deployment.xnnpack_subgraph import convolutions_of, sparse_subgraph
from keras_prune.layers.prune import wrapped_layer
from keras_prune.layers.traversal import models_in
from keras_prune.layers.weights import prunable_weights
from keras_prune.models.flops import connections
from keras_prune.models.graph import is_weight_layer, leaf_layers
from keras_prune.rules.patterns import Blocks, Pattern

# TensorFlow's converter leaves a weight dense below 30 % zeros; single zeros pay for their indices from 33 % on.
_SMALLER_FROM = {Blocks((4, 1)): 0.3, Pattern(): 0.35}
_FASTER_FROM = 0.85
_XNNPACK_FASTER_FROM = 2 / 3
_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_RECURRENT = (keras.layers.LSTM, keras.layers.GRU)


class LayerPlan(NamedTuple):
    """What pruning one layer brings.

    Attributes:
        name: Layer name.
        kind: Its class.
        weights: How many connections it has.
        pattern: The `Pattern` to prune it in.
        smaller_from: Share of zeros from which on the file becomes smaller; `None` if it does not.
        faster_from: Share of zeros from which on the layer becomes faster; `None` if it does not.
        reason: Why it becomes no faster; empty if it does.
    """

    name: str
    kind: str
    weights: int
    pattern: Pattern
    smaller_from: float | None
    faster_from: float | None
    reason: str


@dataclasses.dataclass(frozen=True)
class DeploymentPlan:
    """What pruning brings on a runtime, layer by layer; `print` it for the table.

    Attributes:
        runtime: String.
        rows: List of `LayerPlan`, one for each layer with connections.
        stops: Mapping from layer or model name to what keeps XNNPACK from skipping zeros; empty for other runtimes.
            Nested models are followed each on its own.
    """

    runtime: str
    rows: list[LayerPlan]
    stops: dict[str, str]

    @property
    def patterns(self) -> dict[str, Pattern]:
        """The pattern to prune each layer in, by name.

        Raises:
            ValueError: If layers of one name, in different nested models, need different patterns.
        """
        patterns: dict[str, Pattern] = {}
        for row in self.rows:
            if patterns.setdefault(row.name, row.pattern) != row.pattern:
                raise ValueError(
                    "Layers that need different patterns have names of their own, by which prune chooses among them: "
                    f"rename one of them. Received: layers named {row.name!r} with "
                    f"{patterns[row.name]} and {row.pattern}"
                )
        return patterns

    def __str__(self):
        smaller, faster, total = (
            sum(row.weights for row in self.rows if chosen(row))
            for chosen in (lambda row: row.smaller_from, lambda row: row.faster_from, lambda row: True)
        )
        title = f"{self.runtime}: {smaller / total:.0%} of the connections can be smaller, {faster / total:.0%} faster"
        table = Table(title=title)
        table.add_column("layer", overflow="fold")
        table.add_column("kind")
        for heading in ("weights", "pattern", "smaller from", "faster from"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            pattern = "x".join(map(str, row.pattern.block_size)) if isinstance(row.pattern, Blocks) else "any"
            shares = ("-" if share is None else f"{share:.0%} zeros" for share in (row.smaller_from, row.faster_from))
            table.add_row(row.name, row.kind, f"{row.weights:,}", pattern, *shares)
        lines = [f"stops the sparse subgraph: {name} - {reason}" for name, reason in self.stops.items()]
        lines += [f"not faster: {names} - {reason}" for names, reason in names_by_reason(self.rows)]
        return table_with_lines(table, lines)


def deployment_plan(model, runtime: str = "litert") -> DeploymentPlan:
    """Tells, before anything is trained, which layers a runtime makes smaller or faster if they are pruned.

    Args:
        model: Built Keras model, plain or pruned. Its weights do not matter.
        runtime: `"litert"`, the interpreter of a `.tflite` file with its default delegate; or `"xnnpack"`, the sparse
            inference of convolutional networks that this delegate documents, for float32; on x86 it was never seen.
            Defaults to `"litert"`.

    Returns:
        A `DeploymentPlan`.

    Raises:
        ValueError: If `runtime` is none of the two, or `model` no built Keras 3 model with connections.

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
    not faster: conv - the file stores no zeros of it, but LiteRT makes it dense when it loads the file
    >>> model = kp.prune(model, lambda layer: kp.TargetSparsity(0.9, plan.patterns[layer.name]))
    """
    if runtime not in ("litert", "xnnpack"):
        raise ValueError(
            'The runtimes that it knows are "litert", the interpreter of .tflite files, and "xnnpack", the sparse '
            f"inference of convolutional networks in its delegate. Received: runtime={runtime!r}"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(f"A plan is made for a Keras 3 model. Received: model={model!r} of {type(model).__module__}")
    layers = [layer for layer in leaf_layers(model) if is_weight_layer(layer)]
    if not layers:
        raise ValueError(
            "A plan needs layers with connections, that is with a trainable weight of two or more dimensions; an "
            f"unbuilt model has none yet. Received: model={model.name!r} with layers "
            f"{[layer.name for layer in model.layers]}"
        )
    skipping, stops = set(), {}
    if runtime == "xnnpack":
        # A model without convolutions of its own, such as a head around a backbone, has nothing to stop.
        for submodel in list(filter(convolutions_of, models_in(model))) or [model]:
            pointwise, found = sparse_subgraph(submodel)
            skipping |= set(map(id, pointwise))
            stops |= found
    rows = []
    for layer in layers:
        pattern, smaller_from, faster_from, reason = _on_litert(wrapped_layer(layer))
        if runtime == "xnnpack":
            pattern, faster_from = Pattern(), None
            reason = "XNNPACK skips the zeros of 1x1 convolutions in a sparse subgraph only"
            if id(layer) in skipping:
                faster_from, reason = _XNNPACK_FASTER_FROM, ""
            smaller_from = smaller_from and _SMALLER_FROM[pattern]
        row = LayerPlan(
            layer.name,
            type(wrapped_layer(layer)).__name__,
            connections(prunable_weights(layer))[1],
            pattern,
            smaller_from,
            faster_from,
            reason,
        )
        rows.append(row)
    return DeploymentPlan(runtime, rows, stops)


def _on_litert(layer) -> tuple[Pattern, float | None, float | None, str]:
    """Returns pattern, shares of zeros from which on a layer is smaller and faster, and why it gets no faster."""
    single, blocks = Pattern(), Blocks((4, 1))
    if isinstance(layer, (keras.layers.Dense, *_RECURRENT)):
        recurrent = isinstance(layer, _RECURRENT)
        kernels = [layer.cell.kernel, layer.cell.recurrent_kernel] if recurrent else [layer.kernel]
        inputs = [kernel.shape[0] for kernel in kernels]
        if any(size % 4 for size in inputs):
            reason = f"LiteRT misreads blocks of 4 where the inputs, {inputs[0]}, are no multiple of 4"
            return single, _SMALLER_FROM[single], None, reason
        shape = (layer.get_build_config() or {}).get("input_shape") or ()
        if not recurrent and len(shape) > 2:
            rows = math.prod(size or 1 for size in shape[1:-1])
            reason = f"the sparse kernel gains little on many rows at once, and one input has {rows}"
            return single, _SMALLER_FROM[single], None, reason
        return blocks, _SMALLER_FROM[blocks], _FASTER_FROM, ""
    if isinstance(layer, (*_CONVOLUTIONS, keras.layers.EinsumDense, keras.layers.MultiHeadAttention)):
        reason = "the file stores no zeros of it, but LiteRT makes it dense when it loads the file"
        return single, _SMALLER_FROM[single], None, reason
    if isinstance(layer, keras.layers.Embedding):
        return single, None, None, "a table that is looked up is stored with its zeros"
    return single, None, None, "what LiteRT makes of it was not measured"
