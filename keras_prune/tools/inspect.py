"""Prints what pruning did to a saved model: the paper's table, layer by layer, and what the weights take in a file.

    python -m keras_prune.tools.inspect pruned.keras
    python -m keras_prune.tools.inspect pruned.keras --json
    python -m keras_prune.tools.inspect dense.keras --runtime=litert      # before training: what pruning would bring

Of a pruned model the masks count; of a plain one, the weights that are not zero.
"""

import math

from absl import flags

from keras_prune.analysis.report import Report, report
from keras_prune.deployment.deployment_plan import deployment_plan
from keras_prune.tools.command_line import load_model, run

FLAGS = flags.FLAGS
flags.DEFINE_enum("runtime", None, ["litert", "xnnpack"], "Tell what this runtime makes smaller or faster, if pruned.")


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
    model = load_model(path)
    measured = report(model)
    values = {"model": path, **as_values(measured)}
    if FLAGS.runtime is None:
        return measured, values
    plan = deployment_plan(model, FLAGS.runtime)
    return f"{measured}\n{plan}", values | {"plan": plan.to_dict()}


if __name__ == "__main__":
    run(main, ["MODEL"])
