"""Prints what pruning did to a saved model: the paper's table, layer by layer, and what the weights take in a file.

    python -m keras_prune.tools.inspect pruned.keras
    python -m keras_prune.tools.inspect pruned.keras --json

Of a wrapped model the masks count; of a plain one, the weights that are not zero.
"""

import math

from keras_prune.report import Report, report
from keras_prune.tools.command_line import load_model, run


def as_values(measured: Report) -> dict:
    """Returns a report as plain values that JSON can hold."""
    return {
        "weights": measured.weights,
        "kept": measured.kept,
        "compression": measured.compression if math.isfinite(measured.compression) else None,
        "layers": [row._asdict() | {"density": row.density} for row in measured.rows],
        "skipped": measured.skipped,
        "dense_bytes": sum(weight.dense_bytes for weight in measured.storage),
        "stored_bytes": sum(weight.stored_bytes for weight in measured.storage),
    }


def main(path):
    measured = report(load_model(path))
    return measured, {"model": path, **as_values(measured)}


if __name__ == "__main__":
    run(main, ["MODEL"])
