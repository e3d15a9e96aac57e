"""What a .tflite file holds of a model, and why each of its layers is not smaller or not faster."""

import dataclasses
from typing import NamedTuple

import keras
import numpy as np
from rich.table import Table

from keras_prune.analysis.tables import names_by_reason, table_with_lines
from keras_prune.export.tflite_file import StoredWeight
from keras_prune.layers.weights import prunable_weights
from keras_prune.models.graph import is_weight_layer, leaf_layers

# All that LiteRT's sparse kernel for dense layers takes, by the dtype of the weight.
_SPARSE_KERNELS = {"float32": "float32 zeros in blocks of 4", "int8": "'full_int8' zeros in blocks of 16"}


class ExportedWeight(NamedTuple):
    """One kernel of the Keras model in the file.

    Attributes:
        name: Layer name, `"fc1"`; where a layer has several kernels, the variable's path, `"lstm/lstm_cell/kernel"`.
        shape: Tuple, its shape in Keras.
        density: Share of the connections that survive.
        stored: `StoredWeight`, what the file holds of it; `None` if that is no single tensor.
        sparse_kernel: String, the runtime that has a kernel which skips its zeros; `None` if none will.
        reason: String, why none will; empty if one does.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    stored: StoredWeight | None
    sparse_kernel: str | None
    reason: str

    @property
    def encoding(self) -> str:
        """`"dense"`, `"sparse"`, `"blocks of 4"`, or `"-"` if the file holds it as no single tensor."""
        if self.stored is None:
            return "-"
        if not self.stored.sparse:
            return "dense"
        return "sparse" if self.stored.block == 1 else f"blocks of {self.stored.block}"


@dataclasses.dataclass(frozen=True)
class TFLiteReport:
    """What a `.tflite` file holds, and how far its outputs are from the Keras model's; `print` it for the table.

    Attributes:
        path: String, the file.
        weights: String, the format of the weights that was asked for.
        rows: List of `ExportedWeight`, one for each kernel.
        ops: List of the names of the file's operators, in order.
        bytes: Integer, size of the file.
        float32_bytes: Integer, what the weights of the model take with 4 bytes each.
        dense_bytes: Integer, size of the same file without sparse encoding, in which every zero takes its place.
        gzip_bytes: Integer, what gzip makes of that dense file.
        not_sparse: String, why the file is not sparsely encoded; empty if it is.
        difference: Float, the largest difference between an output of the file and the Keras model's.
        relative_difference: Float, the same divided by the largest magnitude in that output.
        tolerance: Float, what the relative difference had to stay within.
        samples: Integer, how many inputs it was measured on.
        runtime: String, name and version of the runtime that ran the file.
    """

    path: str
    weights: str
    rows: list[ExportedWeight]
    ops: list[str]
    bytes: int
    float32_bytes: int
    dense_bytes: int
    gzip_bytes: int
    not_sparse: str
    difference: float
    relative_difference: float
    tolerance: float
    samples: int
    runtime: str

    def __str__(self):
        table = Table(title=f"{self.path}: {self.bytes:,} bytes, {self.float32_bytes / self.bytes:.1f}x")
        for heading in ("layer", "operator"):
            table.add_column(heading, overflow="fold")
        for heading in ("Weights%", "stored", "bytes", "sparse kernel"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            op, size = ("-", "-") if row.stored is None else (row.stored.op, f"{row.stored.stored_bytes:,}")
            table.add_row(row.name, op, f"{row.density:.1%}", row.encoding, size, row.sparse_kernel or "-")
        lines = [
            f"float32 weights take {self.float32_bytes:,} bytes; {self.weights} without sparse encoding "
            f"{self.dense_bytes:,}, gzip of that {self.gzip_bytes:,}",
            f"largest difference from the Keras model {self.difference:.1e}, of the largest output "
            f"{self.relative_difference:.1e} (tolerance {self.tolerance:.0e}), on {self.samples} inputs in "
            f"{self.runtime}",
        ]
        if self.not_sparse:
            lines.append(f"not sparsely encoded: {self.not_sparse}")
        lines += [f"no sparse kernel for {names}: {reason}" for names, reason in names_by_reason(self.rows)]
        return table_with_lines(table, lines)


def exported_weights(model, dense: list[StoredWeight], stored: list[StoredWeight]) -> list[ExportedWeight]:
    """Finds every kernel of a Keras model in a file.

    A file does not say which layer a weight comes from; what tells is its shape and where its zeros are.

    Args:
        model: Plain Keras model.
        dense: List of `StoredWeight`, the weights of the file without sparse encoding.
        stored: List of `StoredWeight`, those of the file itself, in the same order.
    """
    rows = []
    aligned = [(weight.op, weight.shape) for weight in dense] == [(weight.op, weight.shape) for weight in stored]
    free = list(range(len(dense))) if aligned else []
    for layer in leaf_layers(model):
        variables = [weight.variable for weight in prunable_weights(layer)] if is_weight_layer(layer) else []
        for variable in variables:
            kernel = keras.ops.convert_to_numpy(variable.value) != 0
            place = min(
                (place for place in free if _may_be(dense[place], kernel)),
                # Rounding can add zeros and never takes one away: the best match has the fewest of them.
                key=lambda place: -np.count_nonzero(dense[place].values),
                default=None,
            )
            if place is not None:
                free.remove(place)
            weight = None if place is None else stored[place]
            density = float(np.count_nonzero(kernel) / kernel.size)
            name = layer.name if len(variables) == 1 else variable.path[max(0, variable.path.rfind(f"{layer.name}/")) :]
            reason = _why_no_sparse_kernel(weight, density)
            rows.append(ExportedWeight(name, kernel.shape, density, weight, None if reason else "LiteRT", reason))
    return rows


def _may_be(weight, kernel) -> bool:
    """Whether a dense stored weight has its non-zeros where the kernel has some, in an order that TFLite uses."""
    if weight.values.size != kernel.size:
        return False
    orders = [kernel, np.moveaxis(kernel, -1, 0), np.moveaxis(kernel, -2, 0), kernel.reshape(len(kernel), -1).T]
    nonzero = weight.values != 0
    return any(not np.any(nonzero & ~order.reshape(weight.shape)) for order in orders)


def _why_no_sparse_kernel(weight, density) -> str:
    """Returns why no runtime skips a kernel's zeros; nothing if one does."""
    if weight is None:
        return "the file does not hold it as one tensor"
    if weight.sparse and not weight.unpacked:
        return ""
    if density == 1:
        return "it has no zeros"
    reason = "DENSIFY makes it dense when the file is loaded" if weight.sparse else "it is stored dense"
    if weight.op == "FULLY_CONNECTED" and weight.dtype in _SPARSE_KERNELS:
        kind = _SPARSE_KERNELS[weight.dtype]
        return f"{reason}; LiteRT's kernel takes {kind} along the input axis"
    if weight.op == "CONV_2D" and weight.dtype == "float32" and weight.shape[1:3] == (1, 1):
        return f"{reason}; XNNPACK has kernels for 1x1 convolutions, in some networks and on ARM (docs/deployment.md)"
    return f"{reason}; LiteRT has no sparse kernel for {weight.dtype} {weight.op}"
