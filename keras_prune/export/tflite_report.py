"""Report how a .tflite file stores each layer of a model, and why it is not smaller or faster."""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_prune.export.tflite_file import StoredWeight
from keras_prune.layers.weights import prunable_weights
from keras_prune.models.graph import is_weight_layer, leaf_layers
from keras_prune.terminal.tables import Table, names_by_reason, table_with_lines

# What LiteRT's sparse kernels for dense layers take, by the dtype of the weight.
_SPARSE_KERNELS = {"float32": "float32 zeros in blocks of 4", "int8": "'full_int8' zeros in blocks of 16"}


class ExportedWeight(NamedTuple):
    """One kernel of the Keras model in the file.

    Attributes:
        name: Name of the layer, `"fc1"`, or the path of the variable in a layer with several,
            `"lstm/lstm_cell/kernel"`.
        shape: Tuple, its shape in Keras.
        density: Share of the connections that survive.
        stored: `StoredWeight` in the file. `None` if the file does not hold it as one tensor.
        sparse_kernel: String, the runtime whose kernel skips its zeros. `None` without such a kernel.
        reason: String, why no kernel skips its zeros. Empty if one does.
    """

    name: str
    shape: tuple[int, ...]
    density: float
    stored: StoredWeight | None
    sparse_kernel: str | None
    reason: str

    @property
    def encoding(self) -> str:
        """`"dense"`, `"sparse"`, `"blocks of 4"`, or `"-"` if `stored` is `None`."""
        if self.stored is None:
            return "-"
        if not self.stored.sparse:
            return "dense"
        return "sparse" if self.stored.block == 1 else f"blocks of {self.stored.block}"

    def to_dict(self) -> dict[str, Any]:
        """Returns the values of the row by name, with operator, dtype and bytes in place of the stored weight."""
        return {name: value for name, value in self._asdict().items() if name != "stored"} | {
            "shape": list(self.shape),
            "encoding": self.encoding,
            "op": self.stored and self.stored.op,
            "dtype": self.stored and self.stored.dtype,
            "stored_bytes": self.stored and self.stored.stored_bytes,
        }


@dataclasses.dataclass(frozen=True, repr=False)
class TFLiteReport:
    """Result of `export_tflite`: what the file holds, and how far its outputs are from those of the Keras model.

    `print` it for the table.

    Attributes:
        path: String, the file.
        quantization: String, how weights are stored. `None` for float32.
        rows: List of `ExportedWeight`, one for each kernel.
        ops: List of the names of the file's operators, in order.
        bytes: Integer, size of the file.
        float32_bytes: Integer, size of the weights of the model with 4 bytes each.
        dense_bytes: Integer, size of the same file with all zeros stored.
        gzip_bytes: Integer, size of that dense file after gzip.
        dense_because: String, why zeros are not left out. Empty if they are.
        difference: Float, the largest difference between an output and that of the Keras model.
        relative_difference: Float, the same over the largest magnitude in that output.
        tolerance: Float, the largest relative difference allowed.
        samples: Integer, the number of inputs that were compared.
        runtime: String, name and version of the runtime that ran the file.
    """

    path: str
    quantization: str | None
    rows: list[ExportedWeight]
    ops: list[str]
    bytes: int
    float32_bytes: int
    dense_bytes: int
    gzip_bytes: int
    dense_because: str
    difference: float
    relative_difference: float
    tolerance: float
    samples: int
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes by name, rows as dicts."""
        return vars(self) | {"rows": [row.to_dict() for row in self.rows], "ops": list(self.ops)}

    def __repr__(self):
        return f"<TFLiteReport path={self.path!r}, bytes={self.bytes}, dense_bytes={self.dense_bytes}>"

    def __str__(self):
        title = f"{self.path}: {self.bytes:,} bytes, {self.float32_bytes / self.bytes:.1f}x"
        table = Table(title, ["layer", "operator"], ["Weights%", "stored", "bytes", "sparse kernel"])
        for row in self.rows:
            op, size = ("-", "-") if row.stored is None else (row.stored.op, f"{row.stored.stored_bytes:,}")
            table.add_row(row.name, op, f"{row.density:.1%}", row.encoding, size, row.sparse_kernel or "-")
        lines = [
            f"float32 weights take {self.float32_bytes:,} bytes; {self.quantization or 'float32'} without sparse "
            f"encoding {self.dense_bytes:,}, gzip of that {self.gzip_bytes:,}",
            f"largest difference from the Keras model {self.difference:.1e}, of the largest output "
            f"{self.relative_difference:.1e} (tolerance {self.tolerance:.0e}), on {self.samples} inputs in "
            f"{self.runtime}",
        ]
        if self.dense_because:
            lines.append(f"not sparsely encoded: {self.dense_because}")
        lines += [f"no sparse kernel for {names}: {reason}" for names, reason in names_by_reason(self.rows)]
        return table_with_lines(table, lines)


def exported_weights(model, dense: list[StoredWeight], stored: list[StoredWeight]) -> list[ExportedWeight]:
    """Finds every kernel of a Keras model in a file.

    A file does not name the layer of a weight. Its shape and the places of its zeros identify it.

    Args:
        model: Plain Keras model.
        dense: List of `StoredWeight`, the weights of the file without sparse encoding.
        stored: List of `StoredWeight`, the weights of the file itself, in the same order.
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
                # Rounding can add zeros and never removes one, so that the best match has the fewest.
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
    """Whether a dense stored weight is zero wherever the kernel is, in an order of axes that TFLite uses."""
    if weight.values.size != kernel.size:
        return False
    orders = [kernel, np.moveaxis(kernel, -1, 0), np.moveaxis(kernel, -2, 0), kernel.reshape(len(kernel), -1).T]
    nonzero = weight.values != 0
    return any(not np.any(nonzero & ~order.reshape(weight.shape)) for order in orders)


def _why_no_sparse_kernel(weight, density) -> str:
    """Returns why no runtime skips the zeros of a kernel. Empty if one does."""
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
        return (
            f"{reason}; XNNPACK has kernels for 1x1 convolutions, in some networks and on ARM (docs/results/litert.md)"
        )
    return f"{reason}; LiteRT has no sparse kernel for {weight.dtype} {weight.op}"
