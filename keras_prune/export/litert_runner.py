"""Run a .tflite file in its own process, which the file can crash if the runtime misreads it.

    python litert_runner.py MODEL.tflite INPUTS.npz OUTPUTS.npz

The inputs are arrays of shape (runs, batch, ...), each named like the input of the signature, after an underscore that
keeps the names apart from the arguments of numpy.savez. So are the outputs.
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
    # The next run may overwrite an output of a signature.
    results = [{name: array.copy() for name, array in run(**batch).items()} for batch in batches]
    stacked: dict[str, Any] = {f"_{name}": np.stack([result[name] for result in results]) for name in results[0]}
    np.savez(outputs, **stacked)


if __name__ == "__main__":
    main(*sys.argv[1:])
