"""TFLite files of pruned models, each run in LiteRT and compared with the Keras model before it is handed over."""

import importlib.metadata
import importlib.util
import numbers
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import zlib

import keras
import numpy as np

from keras_prune.export.refusals import refuse_layers, refuse_tflite_layers
from keras_prune.export.tflite_file import read_tflite
from keras_prune.export.tflite_report import TFLiteReport, exported_weights
from keras_prune.export.verification import (
    VerificationError,
    cause,
    flat_inputs,
    input_name,
    keras_outputs,
    largest_difference,
    number_of_samples,
    pack_inputs,
    sample_runs,
    with_graph,
)
from keras_prune.models.rebuild import plain_model

# Of the largest output. Eight bits round a weight by up to 0.4 % of the largest of its channel, activations likewise.
_TOLERANCES = {"float32": 1e-3, "float16": 1e-2, "dynamic_int8": 0.1, "full_int8": 0.1}
# Sparse encoding changes no weight. What it may change is the kernel, and with it the rounding of activations.
_SPARSE_TOLERANCE = 0.02
# The converter leaves a weight dense below that share of zeros.
_LEAST_SPARSITY = 0.3


def export_tflite(
    model,
    path,
    weights: str = "float32",
    sparse: bool | None = None,
    data=None,
    tolerance: float | None = None,
    batch_size: int | None = None,
) -> TFLiteReport:
    """Writes a model as a TFLite file that has shown in LiteRT to compute what the Keras model computes.

    The file is written under another name, run by `ai-edge-litert` with its default delegate in a process of its
    own, compared with the Keras model, and only then put in its place: if anything fails, `path` holds what it held
    before. Inputs and outputs keep their names and dtypes; nested outputs are named by their places, `"a_0"` the first
    of the list under `"a"`. A pruned model is exported as the plain one, without masks, and stays pruned.

    Args:
        model: Built Keras model, plain or pruned; a subclassed one takes `data`. It is not changed.
        path: String or path object that ends in `.tflite`.
        weights: How the weights are stored: `"float32"`; `"float16"`; `"dynamic_int8"`, 8-bit weights and float
            activations; or `"full_int8"`, both in 8 bits where LiteRT has such an operator, which takes recurrent
            layers with `unroll=True`. Defaults to `"float32"`.
        sparse: Boolean, whether zeros are left out of the file; `True` writes it so or fails. Defaults to `None`,
            left out if the file becomes smaller by it and proves right; the report tells why it is not so.
        data: Inputs of shape `(n, ...)`, a structure of arrays as `model.predict` takes it. The outputs are compared
            on the first 8, `"full_int8"` is calibrated on all of them. Defaults to `None`: random numbers from 0 to
            1, and integers 0 and 1.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.
            Defaults to `None`: 0.001 for float32, 0.01 for float16, 0.1 for 8 bits.
        batch_size: Integer, the one batch size that the file takes. Defaults to `None`, any.

    Returns:
        A `TFLiteReport`: sizes, the largest difference, and for each layer how it is stored and whether a sparse
        kernel will run it.

    Raises:
        ValueError: If an argument is none of the above, if the backend of Keras is not TensorFlow, if the model has
            layers that TensorFlow's converter cannot read, or if the file does not load, does not run or differs by
            more than `tolerance`; the message names the setting at fault.
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
    _check_arguments(path, weights, sparse, data, tolerance, batch_size)
    tolerance = _TOLERANCES[weights] if tolerance is None else tolerance
    with plain_model(model) as plain:
        return _export(plain, path, weights, sparse, data, tolerance, batch_size)


def _export(model, path, weights, sparse, data, tolerance, batch_size):
    refuse_layers(model)
    refuse_tflite_layers(model, weights)
    model = with_graph(model, data)
    fixed = model.inputs[0].shape[0] if batch_size is None else batch_size
    runs = sample_runs(model, data, fixed or 1)
    expected = keras_outputs(model, runs)
    settings = {"model": model, "weights": weights, "data": data, "batch_size": fixed}
    received = f"Received: model={model.name!r}, weights={weights!r}, sparse={sparse}, tolerance={tolerance:g}"
    target = os.path.realpath(path)  # Where it is a link, the link stays.
    with tempfile.TemporaryDirectory(dir=os.path.dirname(target), prefix=".export_tflite_") as folder:
        chosen = dense = os.path.join(folder, "dense.tflite")
        _convert(dense, sparse=False, **settings)
        try:
            dense_outputs = _run(dense, model, runs)
            difference = largest_difference(dense_outputs, expected, tolerance)
        except VerificationError as error:
            raise ValueError(
                f"The file must compute in LiteRT what the model computes in Keras. With weights={weights!r}, and "
                f"before any sparse encoding, {error}. {_mend(error)} {received}"
            ) from error
        not_sparse = "sparse=False" if sparse is False else "" if sparse else _nothing_to_leave_out(model)
        if not not_sparse:
            encoded = os.path.join(folder, "sparse.tflite")
            _convert(encoded, sparse=True, **settings)
            if sparse is None and os.path.getsize(encoded) >= os.path.getsize(dense):
                not_sparse = f"that would take {os.path.getsize(encoded):,} bytes"
        if not not_sparse:
            try:
                _check_blocks(encoded)
                outputs = _run(encoded, model, runs)
                largest_difference(outputs, dense_outputs, _SPARSE_TOLERANCE)
                difference = largest_difference(outputs, expected, tolerance)
                chosen = encoded
            except VerificationError as error:
                not_sparse = f"sparse encoding does not go with weights={weights!r} here: {error}"
                if sparse:
                    raise ValueError(
                        "The file must compute in LiteRT what the model computes in Keras, which it does with "
                        f"sparse=False, but {not_sparse}. Leave sparse at None, and it is used only where it works. "
                        f"{received}"
                    ) from error
        ops, stored = read_tflite(chosen)
        report = TFLiteReport(
            path=os.fspath(path),
            weights=weights,
            rows=exported_weights(model, read_tflite(dense)[1], stored),
            ops=ops,
            bytes=os.path.getsize(chosen),
            float32_bytes=4 * model.count_params(),
            dense_bytes=os.path.getsize(dense),
            gzip_bytes=gzip_bytes(dense),
            not_sparse=not_sparse,
            difference=difference[0],
            relative_difference=difference[1],
            tolerance=tolerance,
            samples=number_of_samples(runs),
            runtime=f"ai-edge-litert {importlib.metadata.version('ai-edge-litert')}",
        )
        with open(chosen, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(chosen, target)
    return report


def _check_arguments(path, weights, sparse, data, tolerance, batch_size):
    if not os.fspath(path).endswith(".tflite"):
        raise ValueError(f"path must end in .tflite. Received: path={os.fspath(path)!r}")
    if weights not in list(_TOLERANCES):
        raise ValueError(f"weights must be one of {list(_TOLERANCES)}. Received: weights={weights!r}")
    if sparse not in (None, True, False):
        raise ValueError(f"sparse must be True, False, or None for where it helps. Received: sparse={sparse!r}")
    if weights == "full_int8" and data is None:
        raise ValueError(
            "8-bit activations take their ranges from real inputs: pass some hundred of them as data. "
            f"Received: weights={weights!r}, data=None"
        )
    if tolerance is not None and not (isinstance(tolerance, numbers.Real) and tolerance >= 0):
        raise ValueError(f"tolerance must be a number of at least 0, or None. Received: tolerance={tolerance!r}")
    if batch_size is not None and (type(batch_size) is not int or batch_size < 1):
        raise ValueError(f"batch_size must be an integer of at least 1, or None. Received: batch_size={batch_size!r}")
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "TFLite files are written by TensorFlow's converter: save the model with model.save, and load and export "
            "it in a process with the environment variable KERAS_BACKEND=tensorflow. "
            f"Received: backend={keras.backend.backend()!r}"
        )
    if importlib.util.find_spec("ai_edge_litert") is None:
        raise ImportError("The runtime that every file is tried in is missing: pip install ai-edge-litert")


def _convert(file, model, weights, sparse, data, batch_size):
    """Writes one file through Keras's own export."""
    import tensorflow as tf

    optimizations = [] if weights == "float32" else [tf.lite.Optimize.DEFAULT]
    if sparse:
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    options: dict = {"optimizations": optimizations}
    if weights == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if weights == "full_int8":
        inputs, size = flat_inputs(model, data), batch_size or 1

        def batches():
            for start in range(0, len(inputs[0]) - size + 1, size):
                batch = [array[start : start + size] for array in inputs]
                yield dict(zip(map(input_name, model.inputs), batch, strict=True))

        options["representative_dataset"] = batches
    specs = [
        keras.InputSpec(shape=(batch_size, *tensor.shape[1:]), dtype=tensor.dtype, name=input_name(tensor))
        for tensor in model.inputs
    ]
    options["input_signature"] = [pack_inputs(model, specs)]
    try:
        model.export(file, format="litert", verbose=False, **options)
    except Exception as error:  # The converter raises whatever its passes do.
        raise ValueError(
            "TensorFlow's converter must be able to convert the model, and it failed with: "
            f"{cause(error)}. Received: model={model.name!r}, weights={weights!r}"
        ) from error


def _run(file, model, runs) -> dict[str, np.ndarray]:
    """Returns what LiteRT computes, in a process of its own: a file that it misreads can crash it."""
    folder = pathlib.Path(file).parent
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    columns = zip(*runs, strict=True)
    # The underscore keeps the names apart from those of savez's own arguments.
    np.savez(inputs, **{f"_{input_name(t)}": np.stack(column) for t, column in zip(model.inputs, columns, strict=True)})
    runner = pathlib.Path(__file__).with_name("litert_runner.py")
    command = [sys.executable, "-P", str(runner), file, str(inputs), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode < 0:
        raise VerificationError(f"the runtime crashes on the file ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise VerificationError(f"the runtime refuses the file: {done.stderr.strip().splitlines()[-1]}")
    with np.load(outputs) as arrays:
        return {name[1:]: array for name, array in arrays.items()}


def _nothing_to_leave_out(model) -> str:
    matrices = [keras.ops.convert_to_numpy(weight.value) for weight in model.weights if len(weight.shape) > 1]
    if any(np.count_nonzero(matrix) <= (1 - _LEAST_SPARSITY) * matrix.size for matrix in matrices):
        return ""
    return f"no weight has {_LEAST_SPARSITY:.0%} zeros or more"


def _mend(error) -> str:
    if "Select TensorFlow op" in str(error):
        return (
            "LiteRT lacks that operator: recurrent layers do without it where a batch_size is given, and layers of the "
            "policy mixed_float16 where they are built with float32."
        )
    return "Choose other weights, a larger tolerance, or data that is more like what the model is made for."


def _check_blocks(file):
    """Refuses what LiteRT is known to read beyond its end, and may read rightly on some inputs."""
    kernels = [weight for weight in read_tflite(file)[1] if weight.sparse and not weight.unpacked]
    odd = sorted({kernel.shape[-1] for kernel in kernels if kernel.shape[-1] % kernel.block})
    if odd:
        raise VerificationError(
            f"LiteRT misreads zeros in blocks where a layer's number of inputs is no multiple of the block, here {odd}"
        )


def gzip_bytes(file) -> int:
    """Returns how many bytes gzip makes of a file."""
    compressor = zlib.compressobj(wbits=31)
    with open(file, "rb") as content:
        pieces = iter(lambda: content.read(1 << 20), b"")
        return sum(len(compressor.compress(piece)) for piece in pieces) + len(compressor.flush())
