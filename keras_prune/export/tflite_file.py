"""Read the operators of a .tflite file, and the weights that each of them reads."""

from typing import NamedTuple

import numpy as np

_UNPACKING = ("DENSIFY", "DEQUANTIZE")
_DTYPES = {"FLOAT32": np.float32, "FLOAT16": np.float16, "INT8": np.int8}


class StoredWeight(NamedTuple):
    """A constant of two or more dimensions that an operator reads.

    Attributes:
        op: Name of the operator, such as `"FULLY_CONNECTED"`.
        shape: Tuple, the dense shape in the file's order of axes.
        dtype: `"float32"`, `"float16"` or `"int8"`.
        values: Array of shape `shape`, or of the stored values alone if it is sparse.
        sparse: Whether zeros are left out.
        block: Number of neighbors along the last axis that are stored together. 1 without blocks.
        unpacked: Whether a DENSIFY operator makes it dense before `op` reads it.
        stored_bytes: Bytes of its values and indices.
    """

    op: str
    shape: tuple[int, ...]
    dtype: str
    values: np.ndarray
    sparse: bool
    block: int
    unpacked: bool
    stored_bytes: int


def read_tflite(path) -> tuple[list[str], list[StoredWeight]]:
    """Returns the names of the operators of a .tflite file, in order, and the weights that they read.

    Args:
        path: String or path object.
    """
    from ai_edge_litert import schema_py_generated as schema

    with open(path, "rb") as file:
        model = schema.ModelT.InitFromObj(schema.Model.GetRootAs(file.read(), 0))
    op_names = {code: name for name, code in vars(schema.BuiltinOperator).items() if not name.startswith("_")}
    type_names = {code: name for name, code in vars(schema.TensorType).items() if not name.startswith("_")}
    codes = [
        code.customCode.decode() if code.customCode else op_names[max(code.builtinCode, code.deprecatedBuiltinCode)]
        for code in model.operatorCodes
    ]
    ops, weights = [], []
    for graph in model.subgraphs:
        made_by = {int(op.outputs[0]): op for op in graph.operators if codes[op.opcodeIndex] in _UNPACKING}
        for op in graph.operators:
            name = codes[op.opcodeIndex]
            ops.append(name)
            for operand in op.inputs if name not in _UNPACKING and op.inputs is not None else ():
                index, unpacked = int(operand), False
                while index in made_by:
                    unpacked |= codes[made_by[index].opcodeIndex] == "DENSIFY"
                    index = int(made_by[index].inputs[0])
                tensor = graph.tensors[index] if index >= 0 else None
                dtype = _DTYPES.get(type_names[tensor.type]) if tensor else None
                if tensor is None or dtype is None or tensor.shape is None or len(tensor.shape) < 2:
                    continue
                data = model.buffers[tensor.buffer].data
                if data is not None:
                    weights.append(_weight(name, tensor, data.view(dtype), unpacked))
    return ops, weights


def _weight(op, tensor, values, unpacked) -> StoredWeight:
    shape = tuple(map(int, tensor.shape))
    stored_bytes, block = values.nbytes, 1
    if tensor.sparsity is not None:
        for dimension in tensor.sparsity.dimMetadata:
            for vector in (dimension.arraySegments, dimension.arrayIndices):
                stored_bytes += 0 if vector is None else vector.values.nbytes
        if tensor.sparsity.blockMap is not None and len(tensor.sparsity.blockMap):
            block = tensor.sparsity.dimMetadata[-1].denseSize
    else:
        values = values.reshape(shape)
    return StoredWeight(
        op=op,
        shape=shape,
        dtype=values.dtype.name,
        values=values,
        sparse=tensor.sparsity is not None,
        block=block,
        unpacked=unpacked,
        stored_bytes=stored_bytes,
    )
