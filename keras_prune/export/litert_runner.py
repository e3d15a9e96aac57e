"""Run a .tflite file in its own process, which the file can crash if the runtime misreads it.

    python litert_runner.py MODEL.tflite INPUTS.npz OUTPUTS.npz

The inputs are arrays of shape (runs, batch, ...), each named like the input of the signature, after an underscore that
keeps the names apart from the arguments of numpy.savez. So are the outputs. All are numbers of the Keras model. Where
the file has 8-bit inputs or outputs, its scales and zero points convert them.
"""

import sys
from typing import Any

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(model: str, inputs: str, outputs: str) -> None:
    """Writes the outputs of all runs, of shape (runs, batch, ...), by the names of the outputs of the signature."""
    run = Interpreter(model).get_signature_runner()
    with np.load(inputs) as arrays:
        names = [name[1:] for name in arrays]
        batches = [dict(zip(names, batch, strict=True)) for batch in zip(*arrays.values(), strict=True)]
    taken, returned = run.get_input_details(), run.get_output_details()
    results = []
    for batch in batches:
        result = run(**{name: quantized(array, taken[name]) for name, array in batch.items()})
        results.append({name: dequantized(array, returned[name]) for name, array in result.items()})
    stacked: dict[str, Any] = {f"_{name}": np.stack([result[name] for result in results]) for name in results[0]}
    np.savez(outputs, **stacked)


def quantized(array, tensor):
    """Returns an array in the format of a tensor of the file."""
    scale, zero_point = tensor["quantization"]
    if not scale:
        return array
    limits = np.iinfo(tensor["dtype"])
    return np.clip(np.round(array / scale) + zero_point, limits.min, limits.max).astype(tensor["dtype"])


def dequantized(array, tensor):
    """Returns a copy of a tensor of the file, which the next run may overwrite, as numbers of the Keras model."""
    scale, zero_point = tensor["quantization"]
    return (array.astype("float32") - zero_point) * scale if scale else array.copy()


if __name__ == "__main__":
    main(*sys.argv[1:])
