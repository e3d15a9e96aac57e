"""Write TFLite files with TensorFlow's converter, and run them in LiteRT."""

import pathlib
import signal
import subprocess
import sys
from typing import Any

import keras
import numpy as np

from keras_prune.export.sample import CALIBRATED, Sample, input_name, pack_inputs
from keras_prune.export.tflite_file import read_tflite
from keras_prune.export.verification import VerificationError, cause
from keras_prune.terminal.caught_output import caught_output


def write(model, path: str, sparse: bool, quantization: str | None, sample: Sample, batch_size: int | None) -> None:
    """Writes a TFLite file with `model.export`.

    Args:
        model: Plain Keras model with a graph.
        path: String.
        sparse: Boolean, whether to leave zeros out.
        quantization: String or `None`, as for `export_tflite`.
        sample: `Sample` on whose inputs 8-bit activations are calibrated.
        batch_size: Integer, or `None` for any.

    Raises:
        VerificationError: If the converter fails.
    """
    import tensorflow as tf

    optimizations = [] if quantization is None else [tf.lite.Optimize.DEFAULT]
    if sparse:
        optimizations.append(tf.lite.Optimize.EXPERIMENTAL_SPARSITY)
    options: dict = {"optimizations": optimizations}
    if quantization == "float16":
        options["target_spec"] = {"supported_types": [tf.float16]}
    if quantization in CALIBRATED:
        options["representative_dataset"] = lambda: _batches(sample, batch_size or 1)
    if quantization == "int8_only":
        options["target_spec"] = {"supported_ops": [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]}
        options |= {"inference_input_type": tf.int8, "inference_output_type": tf.int8}
    specs = [
        keras.InputSpec(shape=(batch_size, *tensor.shape[1:]), dtype=tensor.dtype, name=input_name(tensor))
        for tensor in model.inputs
    ]
    options["input_signature"] = [pack_inputs(model, specs)]
    try:
        with caught_output():
            model.export(path, format="litert", verbose=False, **options)
    except Exception as error:  # The passes of the converter raise any error.
        raise VerificationError(f"TensorFlow's converter fails with: {cause(error)}") from error


def _batches(sample, size):
    for start in range(0, len(sample.inputs[0]) - size + 1, size):
        yield dict(zip(sample.names, [array[start : start + size] for array in sample.inputs], strict=True))


def run(path: str, sample: Sample) -> dict[str, np.ndarray]:
    """Returns the outputs of a TFLite file for a sample, each of shape `(runs, batch_size, ...)`.

    LiteRT runs in its own process, because a file that it misreads can crash it.

    Raises:
        VerificationError: If the process fails.
    """
    folder = pathlib.Path(path).parent
    inputs, outputs = folder / "inputs.npz", folder / "outputs.npz"
    columns = [np.stack(column) for column in zip(*sample.runs, strict=True)]
    # The underscore keeps the names apart from the arguments of savez.
    arrays: dict[str, Any] = {f"_{name}": column for name, column in zip(sample.names, columns, strict=True)}
    np.savez(inputs, **arrays)
    runner = pathlib.Path(__file__).with_name("litert_runner.py")
    command = [sys.executable, "-P", str(runner), path, str(inputs), str(outputs)]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode < 0:
        raise VerificationError(f"the runtime crashes on the file ({signal.Signals(-done.returncode).name})")
    if done.returncode:
        raise VerificationError(f"the runtime rejects the file: {done.stderr.strip().splitlines()[-1]}")
    with np.load(outputs) as arrays:
        return {name[1:]: array for name, array in arrays.items()}


def check_blocks(path: str) -> None:
    """Rejects a file that LiteRT would read beyond its end. Its outputs can still be right for some inputs.

    Raises:
        VerificationError: If a number of inputs is not a multiple of the block.
    """
    kernels = [weight for weight in read_tflite(path)[1] if weight.sparse and not weight.unpacked]
    if odd := sorted({kernel.shape[-1] for kernel in kernels if kernel.shape[-1] % kernel.block}):
        raise VerificationError(
            f"LiteRT misreads zeros in blocks if the number of inputs of a layer is not a multiple of the block: {odd}"
        )
