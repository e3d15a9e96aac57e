"""Show what pruning a model can gain, before it is pruned.

Prints for each layer the pattern to prune it in, and the share of zeros from which on a runtime
makes it smaller or faster. With validation data, also prints the share that the layer can lose
alone, without retraining, if the metric may become worse by --max_drop.

Examples:

  keras-prune plan dense.keras
  keras-prune plan dense.keras --runtime=xnnpack
  keras-prune plan dense.keras --data=validation.npz --max_drop=0.02
"""

from typing import Any

from absl import flags

import keras_prune as kp
from keras_prune.tools.files import load_model, load_pairs
from keras_prune.tools.subcommand import Result, Subcommand

_SPARSITIES = (0.25, 0.5, 0.625, 0.75, 0.875, 0.9375, 0.96875)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the subcommand."""
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_enum("runtime", "litert", ["litert", "xnnpack"], "Runtime that will run the model.", **own)
    text = "Validation data: an .npz file with the arrays x and y. The model must be compiled."
    flags.DEFINE_string("data", None, text, **own)
    flags.DEFINE_string("monitor", "accuracy", "Metric that the model was compiled with, or loss.", **own)
    flags.DEFINE_float("max_drop", 0.01, "How much worse the metric may be.", lower_bound=0.0, **own)


def plan(values: flags.FlagValues, path: str) -> Result:
    """Returns the deployment plan of a model, and with `--data` the share that each layer can lose."""
    if values.data is None and (values["monitor"].present or values["max_drop"].present):
        raise ValueError("--monitor and --max_drop need --data. Received: no --data")
    model = load_model(path, values.modules, compiled=values.data is not None)
    planned = kp.deployment_plan(model, values.runtime)
    if values.data is None:
        return Result(planned, {"model": path, **planned.to_dict()})
    criteria = [kp.TargetSparsity(sparsity) for sparsity in _SPARSITIES]
    scan = kp.sensitivity(model, load_pairs(values.data, model), criteria, values.monitor)
    summary = {"model": path, **planned.to_dict(), "max_drop": values.max_drop, "sensitivity": scan.to_dict()}
    return Result(f"{planned}\n\n{_can_lose(scan, values.max_drop)}", summary)


def _can_lose(scan, max_drop) -> str:
    """Returns a table of the share that each layer can lose alone."""
    from keras_prune.terminal.tables import Table, table_with_lines

    table = Table(f"{scan.monitor} {scan.reference:.4f}", ["layer"], ["can lose", scan.monitor])
    for (name, points), criterion in zip(scan.curves.items(), scan.criteria(max_drop).values(), strict=True):
        chosen = next((point for point in points if point.criterion is criterion), None)
        table.add_row(name, *(("-", "-") if chosen is None else (f"{1 - chosen.density:.0%}", f"{chosen.value:.4f}")))
    return table_with_lines(
        table, [f"can lose: by this layer alone, not retrained, {scan.monitor} {max_drop:g} worse at most"]
    )


PLAN = Subcommand("plan", __doc__, ["MODEL"], define, plan)
