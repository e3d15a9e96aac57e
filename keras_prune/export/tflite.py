"""Export TFLite files of pruned models, verified in LiteRT."""

import functools
import importlib.metadata
import importlib.util
import os
import warnings
import zlib

import keras
import numpy as np

from keras_prune._arguments import require_path
from keras_prune.analysis.measured_gains import measured
from keras_prune.analysis.xnnpack_subgraph import is_misread
from keras_prune.export import litert
from keras_prune.export.refusals import refuse_tflite_layers
from keras_prune.export.sample import CALIBRATED
from keras_prune.export.tflite_file import read_tflite
from keras_prune.export.tflite_report import TFLiteReport, exported_weights
from keras_prune.export.verification import (
    Candidate,
    VerificationError,
    check_limits,
    differences,
    exporting,
    replace,
    verify,
)
from keras_prune.layers.traversal import models_in

# Relative to the largest output. Eight bits round a weight by up to 0.4% of the largest in its channel, and activations
# by as much.
_TOLERANCES = {None: 1e-3, "float16": 1e-2, "dynamic_int8": 0.1, "full_int8": 0.1, "int8_only": 0.1}
# The verification runs on the first inputs of the calibration, and cannot show that there were too few.
_FEW = 32
# Sparse encoding does not change weights, but it can change the kernel, which may round activations differently.
_SPARSE_TOLERANCE = 0.02
# The converter leaves weights with a smaller share of zeros dense.
_LEAST_SPARSITY = measured("encoded")


def export_tflite(
    model,
    filepath,
    quantization: str | None = None,
    sparse: str | bool = "auto",
    x=None,
    tolerance: float | None = None,
    batch_size: int | None = None,
) -> TFLiteReport:
    """Export a model to a TFLite file and verify its outputs in LiteRT.

    The file is written under another name and run by `ai-edge-litert` with its default delegate in its own process. It
    replaces what is at `filepath` after it was compared with the Keras model. Inputs and outputs keep their names, and
    their dtypes except for `"int8_only"`. Nested outputs are named by their places, `"a_0"` is the first of the list
    under `"a"`. A pruned model is exported without its masks, and stays pruned.

    Args:
        model: Built Keras model, plain or pruned. A subclassed model requires `x`. It is not changed.
        filepath: String or path object that ends in `.tflite`. Folders around it are created.
        quantization: How weights are stored: `"float16"`; `"dynamic_int8"`, 8-bit weights and float activations;
            `"full_int8"`, 8 bits for both where LiteRT has such an operator, with float inputs and outputs; or
            `"int8_only"`, 8 bits for all operators and for float inputs and outputs, as microcontrollers and
            accelerators require. The last two require `x`, and `unroll=True` in recurrent layers. Defaults to `None`,
            float32.
        sparse: `True` or `False`, whether zeros are left out of the file, or `"auto"`. `True` fails if that does not
            work. With `"auto"` zeros are left out if the file works and becomes smaller, and `dense_because` in the
            report says why not. They stay in `"int8_only"`. Defaults to `"auto"`.
        x: Inputs of shape `(n, ...)`, a structure of arrays as `model.predict` takes it. Or a `tf.data.Dataset`, a
            generator, or a function that returns one, of batches, of which the first 1,000 inputs are used. The outputs
            are compared on the first 8, and 8-bit activations are calibrated on all of them. Defaults to `None`, random
            numbers from 0 to 1, and integers 0 and 1.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.
            Defaults to `None`: 0.001 for float32, 0.01 for float16, 0.1 for 8 bits.
        batch_size: Integer, the only batch size of the file. Defaults to `None`, any.

    Returns:
        A `TFLiteReport`: sizes, the largest difference, and for each layer how it is stored and whether a sparse
        kernel runs it.

    Raises:
        ValueError: If an argument is invalid, if the Keras backend is not TensorFlow, if the converter cannot read a
            layer, or if the file does not load, does not run or differs by more than `tolerance`.
        ImportError: If `ai-edge-litert` is not installed.

    Example:

    >>> import os, tempfile
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300, name="fc1")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.9))
    >>> cuts = kp.cut(model)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = kp.export_tflite(model, os.path.join(folder, "model.tflite"))
    >>> report.rows[0].encoding, report.dense_bytes > 6 * report.bytes, report.relative_difference < 1e-5
    ('sparse', True, True)
    """
    _check_arguments(filepath, quantization, sparse, x)
    tolerance = _TOLERANCES[quantization] if tolerance is None else tolerance
    check_limits(tolerance, 1 if batch_size is None else batch_size)
    with exporting(model, filepath, x, batch_size) as (plain, sample, folder):
        refuse_tflite_layers(plain, quantization)
        if quantization in CALIBRATED:
            _warn_of_few_inputs(len(sample.inputs[0]))
        fixed = batch_size or plain.inputs[0].shape[0]
        write = functools.partial(litert.write, plain, quantization=quantization, sample=sample, batch_size=fixed)
        received = f"Received: quantization={quantization!r}, sparse={sparse!r}, tolerance={tolerance:g}"

        def verified(path):
            return verify(path, litert.run(path, sample), sample.outputs, tolerance)

        path = os.path.join(folder, "dense.tflite")
        try:
            write(path, sparse=False)
            dense = verified(path)
        except VerificationError as error:
            raise ValueError(
                f"The export does not work, even without sparse encoding: {error}. {_advice(error)} {received}"
            ) from error
        encoded, dense_because = _try_sparse(plain, quantization, sparse, dense, write, verified)
        if sparse is True and encoded is None:
            raise ValueError(
                f"The file works in LiteRT with sparse=False, but {dense_because}. Use sparse='auto' to leave zeros "
                f"out only if that works. {received}"
            )
        chosen = encoded or dense
        assert chosen.difference is not None, "LiteRT returns outputs"
        assert chosen.relative_difference is not None, "LiteRT returns outputs"
        ops, stored = read_tflite(chosen.path)
        report = TFLiteReport(
            path=os.fspath(filepath),
            quantization=quantization,
            rows=exported_weights(plain, read_tflite(dense.path)[1], stored),
            ops=ops,
            bytes=chosen.bytes,
            float32_bytes=4 * plain.count_params(),
            dense_bytes=dense.bytes,
            gzip_bytes=gzip_bytes(dense.path),
            dense_because=dense_because,
            difference=chosen.difference,
            relative_difference=chosen.relative_difference,
            tolerance=tolerance,
            samples=sample.size,
            runtime=f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
        )
        replace(chosen, filepath)
    return report


def _check_arguments(filepath, quantization, sparse, x):
    require_path("filepath", filepath)
    if not os.fspath(filepath).endswith(".tflite"):
        raise ValueError(f"`filepath` must end in .tflite. Received: filepath={os.fspath(filepath)!r}")
    if quantization not in list(_TOLERANCES):
        raise ValueError(f"`quantization` must be one of {list(_TOLERANCES)}. Received: quantization={quantization!r}")
    if sparse != "auto" and not isinstance(sparse, bool):
        raise ValueError(f"`sparse` must be True, False or 'auto'. Received: sparse={sparse!r}")
    if quantization in CALIBRATED and x is None:
        raise ValueError(
            "The ranges of 8-bit activations are measured on real inputs. Pass some hundred of them as `x`. "
            f"Received: quantization={quantization!r}, x=None"
        )
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "TensorFlow's converter writes TFLite files. Save the model with `model.save`, and load and export it in a "
            "process with the environment variable KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ImportError("The runtime that verifies the file is missing: pip install ai-edge-litert")


def _warn_of_few_inputs(count):
    if count < _FEW:
        warnings.warn(
            "8-bit activations beyond the ranges seen while calibrating are clipped. Pass some hundred inputs as `x`. "
            f"Received: x={count} inputs",
            stacklevel=3,
        )


def _try_sparse(model, quantization, sparse, dense, write, verified) -> tuple[Candidate | None, str]:
    """Returns a verified file without zeros and `""`, or `None` and the reason."""
    if sparse is False:
        return None, "sparse=False"
    if sparse == "auto" and quantization == "int8_only":
        return None, "runtimes of microcontrollers and accelerators misread or refuse files without zeros"
    if sparse == "auto" and not _has_zeros(model):
        return None, f"no weight has {_LEAST_SPARSITY:.0%} zeros or more"
    path = os.path.join(os.path.dirname(dense.path), "sparse.tflite")
    try:
        write(path, sparse=True)
        if sparse == "auto" and os.path.getsize(path) >= dense.bytes:
            return None, f"sparse encoding would take {os.path.getsize(path):,} bytes"
        litert.check_blocks(path)
        if any(map(is_misread, models_in(model))):
            raise VerificationError(
                "on processors other than x86 with AVX, LiteRT 2.3 misreads a sparse subgraph that ends in a mean with "
                "keepdims=True"
            )
        encoded = verified(path)
        differences(encoded.outputs, dense.outputs, _SPARSE_TOLERANCE)
    except VerificationError as error:
        return None, f"sparse encoding does not work here: {error}"
    return encoded, ""


def _has_zeros(model):
    matrices = [keras.ops.convert_to_numpy(weight.value) for weight in model.weights if len(weight.shape) > 1]
    return any(np.count_nonzero(matrix) <= (1 - _LEAST_SPARSITY) * matrix.size for matrix in matrices)


def _advice(error) -> str:
    if "Select TensorFlow op" in str(error):
        return (
            "LiteRT lacks that operator. Recurrent layers do not need it with a `batch_size`, and layers with the "
            "policy mixed_float16 do not if you build them with float32."
        )
    if "converter" in str(error):
        return (
            "Change or leave out what the converter names. With quantization='int8_only' each operator must have an "
            "8-bit version, and 'full_int8' leaves others in float."
        )
    return "Choose another `quantization`, a larger `tolerance`, or inputs `x` that the model is made for."


def gzip_bytes(path) -> int:
    """Returns the size of a file after gzip."""
    compressor = zlib.compressobj(wbits=31)
    with open(path, "rb") as content:
        pieces = iter(lambda: content.read(1 << 20), b"")
        return sum(len(compressor.compress(piece)) for piece in pieces) + len(compressor.flush())
