"""Table of a pruned model, layer by layer (Han et al. 2015, Tables 2 to 5)."""

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from keras_prune.analysis.entropy import entropy_bound
from keras_prune.analysis.html_page import save_page
from keras_prune.analysis.html_table import notebook_table
from keras_prune.analysis.weight_nodes import activations_of, left_out_layers, weight_nodes
from keras_prune.layers.prune import wrapped_layer
from keras_prune.layers.traversal import models_in
from keras_prune.layers.weight_summary import WeightSummary, summarize
from keras_prune.layers.weights import labels, weights_by_layer
from keras_prune.models.checks import require_connections
from keras_prune.models.flops import connections, flop
from keras_prune.models.graph import Graph, has_graph, pruned_dropouts
from keras_prune.storage.codecs import WeightStorage
from keras_prune.storage.sparse_file import storage_sizes
from keras_prune.terminal.tables import Table, table_with_lines

MASKS = 12  # The largest matrices, whose masks are kept as pictures: under 3 MB in all.


class Row(NamedTuple):
    """One layer of a report.

    Attributes:
        name: Path of the layer inside the model.
        weights: Number of connections of the dense layer. Biases are not counted.
        kept: Number of connections that survive.
        flop: Floating-point operations of one call of the dense layer for one input, `2 x weights x positions` of the
            output, biases not counted. `None` if the positions are unknown.
        activation: Share of its output activations that are not zero. `None` if no inputs were given.
        flop_density: Share of the operations left if zero weights and zero inputs are skipped. Inputs that are not the
            outputs of one layer with connections count as dense.
        dropout: Current rate of the `Dropout` behind the layer. `None` without one.
        outputs: Number of activations that the next layer reads for one input, behind any pooling. 0 if it is unknown.
    """

    name: str
    weights: int
    kept: int
    flop: int | None
    activation: float | None
    flop_density: float
    dropout: float | None
    outputs: int

    @property
    def density(self) -> float:
        """Share of the connections that survive."""
        return self.kept / self.weights

    def to_dict(self) -> dict[str, Any]:
        """Returns the values of the row by name."""
        return self._asdict() | {"density": self.density}


class Report:
    """Result of `report`: what pruning did to a model. `print` it for the table.

    Attributes:
        rows: List of `Row`, one for each layer with connections.
        skipped: Dict from the path of each layer that is left out to the reason, one of `layers.skip_reasons`.
        weights: Number of connections.
        kept: Number of connections that survive.
        flop: Floating-point operations for one input, over the layers whose operations are known. `None` if they are
            known for no layer except embeddings, which have no operations.
        activation: Share of the activations that are not zero, weighted by `Row.outputs`. `None` without inputs.
        flop_density: Share of the operations that are left, weighted by the operations.
        storage: List of `WeightStorage`: bytes of each weight, biases included, dense and in a file of `save_sparse`.
        summaries: List of `WeightSummary`, data for figures of each weight, with masks of the largest ones.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((10,)), keras.layers.Dense(10, kernel_initializer="identity")])
    >>> report = kp.report(model)
    >>> report.kept, report.sparsity, report.compression
    (10, 0.9, 10.0)
    """

    def __init__(
        self,
        rows: list[Row],
        skipped: dict[str, str],
        storage: Sequence[WeightStorage] = (),
        summaries: Sequence[WeightSummary] = (),
    ):
        self.rows = rows
        self.skipped = skipped
        self.storage = storage
        self.summaries = summaries
        self.weights = sum(row.weights for row in rows)
        self.kept = sum(row.kept for row in rows)
        unknown = any(row.flop is None for row in rows)
        self.flop = sum(row.flop or 0 for row in rows) or (None if unknown else 0)
        self.flop_density = _mean((row.flop_density, row.flop or 0) for row in rows)
        measured = [(row.activation, row.outputs) for row in rows if row.activation is not None]
        self.activation = _mean(measured) if measured else None

    @property
    def density(self) -> float:
        """Share of the connections that survive."""
        return self.kept / self.weights

    @property
    def sparsity(self) -> float:
        """Share of the connections that are pruned."""
        return 1 - self.density

    @property
    def compression(self) -> float:
        """All connections divided by the surviving ones. Infinite if none survives."""
        return self.weights / self.kept if self.kept else math.inf

    def to_dict(self) -> dict[str, Any]:
        """Returns totals, rows, reasons and storage as JSON types. An infinite compression is `None`."""
        totals = ("weights", "kept", "density", "sparsity", "flop", "activation", "flop_density")
        return {name: getattr(self, name) for name in totals} | {
            "compression": self.compression if self.kept else None,
            "rows": [row.to_dict() for row in self.rows],
            "skipped": dict(self.skipped),
            "storage": self.total_bytes(),
        }

    def save(self, filepath, rounds=None) -> None:
        """Saves the report as one HTML page, which needs no network and no JavaScript.

        The page has the table with a bar for each layer, sizes and operations, histograms of the weights with their
        thresholds, the masks of the largest dense layers, and the curve of rounds. It shows the model as it was when
        `keras_prune.report` was called. Requires Matplotlib.

        Args:
            filepath: String or path object that ends with `.html`. The file is replaced when the page is complete.
            rounds: List of `Round` that `keras_prune.iterative_prune` returned, or the `History` of a `fit` with
                `PruningCallback`. Defaults to `None`, no curve.

        Raises:
            ValueError: If `filepath` has another suffix, or `rounds` another type.
            ImportError: If Matplotlib is missing. Nothing is written.
            OSError: If the file cannot be written.
        """
        save_page(self, filepath, rounds)

    def _repr_html_(self):
        return notebook_table(self)

    def __repr__(self):
        return f"<Report layers={len(self.rows)}, sparsity={self.sparsity:.4g}, compression={self.compression:.4g}>"

    def __str__(self):
        numbers = ("weights", "kept", "FLOP", "Act%", "Weights%", "FLOP%", "dropout")
        table = Table(f"{self.kept:,} of {self.weights:,} connections: {self.compression:.1f}x", ["layer"], numbers)
        for row in self.rows:
            table.add_row(*_cells(row.name, row), "" if row.dropout is None else f"{row.dropout:.2f}")
        table.add_section()
        table.add_row(*_cells("total", self), "")
        storage = "{dense_bytes:,} bytes dense, {stored_bytes:,} sparse, {index_bytes:,} of them indices"
        bound = "values and mask entropy: {bound_bytes:,.0f}"
        lines = [f"storage: {storage}; {bound}".format(**self.total_bytes())]
        lines += [f"left out: {name} - {reason}" for name, reason in self.skipped.items()]
        return table_with_lines(table, lines)

    def total_bytes(self) -> dict[str, float]:
        """Returns the bytes of the weights: dense, in a file of `save_sparse`, its indices, and their entropy."""
        names = ("dense_bytes", "stored_bytes", "index_bytes")
        return {name: sum(getattr(weight, name) for weight in self.storage) for name in names} | {
            "bound_bytes": sum(
                entropy_bound(weight.entries, weight.size, np.dtype(weight.stored_dtype).itemsize)
                for weight in self.storage
            )
        }


def report(model, x=None, steps: int | None = None) -> Report:
    """Measures what is left of a model, layer by layer (Han et al. 2015, Tables 2 to 5).

    Works before and after `strip`. Connections are counted in the mask of a pruned weight, and in the nonzero entries
    of a plain one. With LoRA, they are counted in the sum of the weight and its update, and in an int8 layer in the
    integers.

    Args:
        model: Built Keras model.
        x: Inputs on which to measure the activations: an array of shape `(n, ...)`, a structure of arrays as
            `model.predict` takes it, or an iterable of batches. Of a batch `(inputs, targets)`, only the inputs are
            used. Defaults to `None`: activations count as dense.
        steps: Integer, number of batches of `x` to use. Defaults to `None`, all. An endless `tf.data.Dataset` or
            `PyDataset` needs it. An endless Python generator does too, but cannot be recognized.

    Returns:
        A `Report`.

    Raises:
        ValueError: If `model` is not a Keras 3 model or has no connections, if `x` is empty, or if it is endless and
            `steps` is `None`.

    Example:

    >>> import keras, keras_prune as kp
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
    storage: 31,360 bytes dense, 3,769 sparse, 633 of them indices; values and mask entropy: 3,596
    """
    groups = weights_by_layer(require_connections(model, stored=True))
    names = labels(model, [layer for layer, _ in groups])
    nodes = weight_nodes(model, [layer for layer, _ in groups])
    graphs = [Graph(submodel) for submodel in models_in(model) if has_graph(submodel)]
    places = {id(node): graph for graph in graphs for node in nodes.values() if id(node) in graph.shapes}
    activations = {} if x is None else activations_of(model, list(nodes.values()), places, x, steps)
    rates = {id(weights[0].layer): rate.current_rate for rate, weights in pruned_dropouts(model)}
    rows = []
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
                outputs=graph.activations_behind(node) if graph else 0,
            )
        )
    return Report(rows, left_out_layers(model, groups), storage_sizes(model), _summaries(groups, names))


def _summaries(groups, names) -> list[WeightSummary]:
    """Returns the summary of each weight, with masks of the largest matrices."""
    matrices = sorted(
        (one for _, of_layer in groups for one in of_layer if len(one.value.shape) == 2), key=lambda one: one.size
    )
    with_mask = {id(one.variable) for one in matrices[-MASKS:]}
    return [
        summarize(
            one,
            names[id(layer)] + (f"/{one.variable.name}" if len(of_layer) > 1 else ""),
            with_mask=id(one.variable) in with_mask,
        )
        for layer, of_layer in groups
        for one in of_layer
    ]


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
