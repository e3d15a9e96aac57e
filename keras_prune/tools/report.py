"""Show what pruning did to a model, layer by layer.

The table has the columns of the paper, connections and operations that are left, and bytes in a
file. Connections are counted in the masks of a pruned model, or the nonzero weights of a plain one.

Examples:

  keras-prune report pruned.keras
  keras-prune report pruned.keras --data=inputs.npy        # with the share of nonzero activations
  keras-prune report pruned.keras --html=report.html       # a page with figures
  keras-prune report pruned.keras --json
"""

from typing import Any

from absl import flags

import keras_prune as kp
from keras_prune.tools.files import load_inputs, load_model
from keras_prune.tools.subcommand import Result, Subcommand


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the subcommand."""
    own: dict[str, Any] = {"flag_values": values}
    text = "Inputs to measure activations on: a .npy file, or an .npz file with an array for each input by its name."
    flags.DEFINE_string("data", None, text, **own)
    flags.DEFINE_string("html", None, "Also write the report to this .html file, with figures.", **own)


def report(values: flags.FlagValues, path: str) -> Result:
    """Returns the report of a model, and writes it to `--html`."""
    from keras_prune.analysis.html_page import require_page

    if values.html is not None:
        require_page(values.html)
    model = load_model(path, values.modules)
    measured = kp.report(model, None if values.data is None else load_inputs(values.data, model))
    summary = {"model": path, "html": values.html, **measured.to_dict()}
    if values.html is None:
        return Result(measured, summary)
    measured.save(values.html)
    return Result(f"{measured}\nwrote {values.html}", summary)


REPORT = Subcommand("report", __doc__, ["MODEL"], define, report)
