"""Runs a .tflite file in a process of its own, which a file that the runtime misreads can take down with it.

    python litert_runner.py MODEL.tflite INPUTS.npz OUTPUTS.npz

The inputs are arrays of shape (runs, batch, ...), each under the name of the signature's input behind an underscore,
which keeps it apart from the names of numpy.savez's own arguments; so are the outputs.
"""

import sys

import numpy as np
from ai_edge_litert.interpreter import Interpreter


def main(model: str, inputs: str, outputs: str) -> None:
    """Writes the outputs of every run, of shape (runs, batch, ...), under the names of the signature's outputs."""
    run = Interpreter(model).get_signature_runner()
    with np.load(inputs) as arrays:
        names = [name[1:] for name in arrays]
        batches = [dict(zip(names, batch, strict=True)) for batch in zip(*arrays.values(), strict=True)]
    # A signature's output may be overwritten by the next run.
    results = [{name: array.copy() for name, array in run(**batch).items()} for batch in batches]
    np.savez(outputs, **{f"_{name}": np.stack([result[name] for result in results]) for name in results[0]})


if __name__ == "__main__":
    main(*sys.argv[1:])
