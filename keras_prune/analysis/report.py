"""The report: the paper's table for a model of your own (Han et al. 2015, Tables 2 to 5)."""

import math
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import keras
import numpy as np
from rich.table import Table

from keras_prune import _keras
from keras_prune.analysis.activations import nonzero_shares
from keras_prune.analysis.tables import table_with_lines
from keras_prune.layers.kinds import DROPOUTS
from keras_prune.layers.prune import wrapped_layer
from keras_prune.layers.traversal import layers_in, models_in
from keras_prune.layers.weights import labels, prunable_weights, pruned_weights, weights_by_layer
from keras_prune.models.flops import connections, flop
from keras_prune.models.graph import (
    Graph,
    Source,
    dropout_sources,
    has_graph,
    leaf_layers,
    pruned_dropouts,
)
from keras_prune.storage.codecs import WeightStorage
from keras_prune.storage.sparse_file import storage_sizes


class Row(NamedTuple):
    """One layer of a report.

    Attributes:
        name: Path of the layer inside the model.
        weights: How many connections the dense layer has. Biases are not counted.
        kept: How many survive.
        flop: Floating-point operations of one call of the dense layer for one input, 2 x weights x output positions,
            biases not counted; `None` where the layer's positions are not known.
        activation: Share of its output activations that are not zero; `None` if no data was given.
        flop_density: Share of the operations that are left when zero weights and zero inputs are skipped. Inputs that
            are not the outputs of one layer with connections count as dense.
        dropout: Current rate of the `Dropout` that follows the layer; `None` without one.
    """

    name: str
    weights: int
    kept: int
    flop: int | None
    activation: float | None
    flop_density: float
    dropout: float | None

    @property
    def density(self) -> float:
        """Share of the connections that survive."""
        return self.kept / self.weights


class Report:
    """What pruning did to a model; `print` it for the paper's table.

    Attributes:
        rows: List of `Row`, one for each layer with connections.
        skipped: Mapping from the name of every layer that was left out to the reason.
        weights, kept: Connections in all and surviving.
        flop: Floating-point operations for one input, over the layers where they are known.
        activation: Share of the activations that are not zero, weighted by their number behind the pooling.
        flop_density: Share of the operations left, weighted by the operations.
        storage: List of `WeightStorage`, what each weight, biases included, takes dense and in a file of
            `save_sparse`, and the bound that the entropy of its mask sets.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10, kernel_initializer="identity")])
    >>> report = kp.report(model)
    >>> report.kept, report.sparsity, report.compression
    (10, 0.9, 10.0)
    """

    def __init__(
        self, rows: list[Row], skipped: dict[str, str], sizes: list[int], storage: Sequence[WeightStorage] = ()
    ):
        self.rows = rows
        self.skipped = skipped
        self.storage = storage
        self.weights = sum(row.weights for row in rows)
        self.kept = sum(row.kept for row in rows)
        self.flop = sum(row.flop or 0 for row in rows)
        self.flop_density = _mean((row.flop_density, row.flop or 0) for row in rows)
        measured = [(row.activation, size) for row, size in zip(rows, sizes, strict=True) if row.activation is not None]
        self.activation = _mean(measured) if measured else None

    @property
    def density(self) -> float:
        """Share of the connections that survive."""
        return self.kept / self.weights

    @property
    def sparsity(self) -> float:
        """Share of the connections that are cut."""
        return 1 - self.density

    @property
    def compression(self) -> float:
        """Connections in all over connections that survive."""
        return self.weights / self.kept if self.kept else math.inf

    def __str__(self):
        table = Table(title=f"{self.kept:,} of {self.weights:,} connections: {self.compression:.1f}x")
        table.add_column("layer", overflow="fold")
        for heading in ("weights", "kept", "FLOP", "Act%", "Weights%", "FLOP%", "dropout"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            table.add_row(*_cells(row.name, row), "" if row.dropout is None else f"{row.dropout:.2f}")
        table.add_section()
        table.add_row(*_cells("total", self), "")
        lines = [self._storage_line()] if self.storage else []
        lines += [f"left out: {name} - {reason}" for name, reason in self.skipped.items()]
        return table_with_lines(table, lines)

    def _storage_line(self) -> str:
        dense, stored, values, bound = (
            sum(getattr(weight, name) for weight in self.storage)
            for name in ("dense_bytes", "stored_bytes", "value_bytes", "bound_bytes")
        )
        indices = stored - values
        return (
            f"storage: {dense:,} bytes dense, {stored:,} sparse, {indices:,} of them indices "
            f"({indices / max(1, values):.1%} overhead); values and mask entropy: {bound:,.0f}"
        )


def report(model, data=None) -> Report:
    """Measures what is left of a model, layer by layer.

    Works before and after `strip`: of a pruned weight the mask counts, of a plain one the entries that are not zero.

    Args:
        model: Built Keras model.
        data: Inputs on which to measure the activations: an array of shape `(n, ...)`, a structure of arrays as
            `model.predict` takes it, or an iterable of batches, of which `(inputs, targets)` use the inputs alone.
            Defaults to `None`: activations count as dense.

    Returns:
        A `Report`.

    Raises:
        ValueError: If `model` is no Keras 3 model, or has no layer with connections.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, "relu", False, "ones", name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.9))
    >>> cuts = kp.cut(model)
    >>> print(kp.report(model))
                        784 of 7,840 connections: 10.0x
    ┏━━━━━━━┳━━━━━━━━━┳━━━━━━┳━━━━━━━━┳━━━━━━┳━━━━━━━━━━┳━━━━━━━┳━━━━━━━━━┓
    ┃ layer ┃ weights ┃ kept ┃   FLOP ┃ Act% ┃ Weights% ┃ FLOP% ┃ dropout ┃
    ┡━━━━━━━╇━━━━━━━━━╇━━━━━━╇━━━━━━━━╇━━━━━━╇━━━━━━━━━━╇━━━━━━━╇━━━━━━━━━┩
    │ fc    │   7,840 │  784 │ 15,680 │    - │    10.0% │ 10.0% │         │
    ├───────┼─────────┼──────┼────────┼──────┼──────────┼───────┼─────────┤
    │ total │   7,840 │  784 │ 15,680 │    - │    10.0% │ 10.0% │         │
    └───────┴─────────┴──────┴────────┴──────┴──────────┴───────┴─────────┘
    storage: 31,360 bytes dense, 3,769 sparse, 633 of them indices (20.2% overhead); values and mask entropy: 3,596
    """
    if not isinstance(model, keras.Model):
        raise ValueError(f"report describes a Keras 3 model. Received: model={model!r} of {type(model).__module__}")
    weights = prunable_weights(model)
    if not weights:
        raise ValueError(
            "A report needs layers with connections, that is with a trainable weight of two or more dimensions. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    groups = weights_by_layer(weights)
    names = labels(model, [layer for layer, _ in groups])
    nodes = _nodes(model, [layer for layer, _ in groups])
    graphs = [Graph(submodel) for submodel in models_in(model) if has_graph(submodel)]
    places = {id(node): graph for graph in graphs for node in nodes.values() if id(node) in graph.shapes}
    activations = _activations(model, list(nodes.values()), places, data) if data is not None else {}
    rates = {id(weights[0].layer): rate.current_rate for rate, weights in pruned_dropouts(model)}
    rows, sizes = [], []
    for layer, of_layer in groups:
        kept, total = connections(of_layer)
        node = nodes.get(id(layer))
        graph = places.get(id(node))
        source = graph.source(node).layer if graph else None
        rows.append(
            Row(
                name=names[id(layer)],
                weights=total,
                kept=kept,
                flop=flop(layer if node is None else wrapped_layer(node), total),
                activation=activations.get(id(node)),
                flop_density=kept / total * activations.get(id(source), 1.0),
                dropout=rates.get(id(layer)),
            )
        )
        sizes.append(graph.activations_behind(node) if graph else 0)
    return Report(rows, _skipped(model, groups, names), sizes, storage_sizes(model))


def _nodes(model, owners) -> dict[int, keras.layers.Layer]:
    """Returns, by `id` of an owner of connections, the outermost layer around it that holds no other owner.

    The outputs of a layer of the model with several owners, such as multi-head attention, are those of none of them.
    """
    own = {id(layer) for layer in owners}
    nodes: dict[int, keras.layers.Layer] = {}
    for leaf in leaf_layers(model):
        for layer in layers_in(leaf) if isinstance(leaf, keras.layers.Layer) else ():
            inside = [id(inner) for inner in layers_in(layer) if id(inner) in own]
            if len(inside) == 1:
                nodes.setdefault(inside[0], layer)
    return nodes


def _activations(model, layers, places, data) -> dict[int, float]:
    """Returns, by `id` of a weight layer, the share of its activations that are not zero; the last ones count as 1."""
    ends = {id(layer): places[id(layer)].activation(layer) for layer in layers if id(layer) in places}
    shares = nonzero_shares(model, list(ends.values()), data)
    last = _ends(model)
    return {
        layer: 1.0 if id(end) in last and id(end) not in places[layer].consumers else shares[id(end)]
        for layer, end in ends.items()
    }


def _ends(model) -> set[int]:
    """Returns, by `id`, the layers that make the outputs of a model; nested models are opened."""
    if not isinstance(model, keras.Model):
        return {id(model)}
    outputs = keras.tree.flatten(model.outputs) if has_graph(model) else []
    return set().union(*(_ends(_keras.origin_of(tensor)[0]) for tensor in outputs))


def _skipped(model, groups, names) -> dict[str, str]:
    """Returns the reason for every layer with connections but no masks, and every dropout whose rate stays."""
    if not any(weight.pruned for _, weights in groups for weight in weights):
        return {}  # A plain model: nothing was asked for.
    skipped = {}
    for layer, weights in groups:
        if not any(weight.pruned for weight in weights):
            skipped[names[id(layer)]] = "it has no criterion" if layer.trainable else "it is frozen (trainable=False)"
    sources = dropout_sources(model)
    tied = {id(rate.owner()) for rate, _ in pruned_dropouts(model)}
    for layer in layers_in(model):
        if isinstance(layer, DROPOUTS) and id(layer) not in tied and layer.rate > 0:
            source = sources.get(id(layer), Source(None, "the layers of a subclassed model cannot be followed"))
            reason = source.reason
            if source.layer is not None and not pruned_weights(source.layer):
                reason = f"{source.layer.name!r}, whose outputs it drops, is not pruned"
            elif source.layer is not None:
                reason = f"the rate of a {type(layer).__name__} cannot change while training"
            skipped[layer.name] = reason
    return skipped


def _mean(pairs: Iterable[tuple[float, int]]) -> float:
    values, weights = zip(*pairs, strict=True)
    return float(np.average(values, weights=weights)) if sum(weights) else float(np.mean(values))


def _cells(name, measured) -> list[str]:
    return [
        name,
        f"{measured.weights:,}",
        f"{measured.kept:,}",
        "-" if measured.flop is None else f"{measured.flop:,}",
        "-" if measured.activation is None else f"{measured.activation:.0%}",
        f"{measured.density:.1%}",
        f"{measured.flop_density:.1%}",
    ]
