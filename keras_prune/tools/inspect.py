"""Print what pruning did to a saved model: the table of the paper, and the bytes of the weights in a file.

    python -m keras_prune.tools.inspect pruned.keras
    python -m keras_prune.tools.inspect pruned.keras --json
    python -m keras_prune.tools.inspect dense.keras --runtime=litert      # before training: what pruning can gain

In a pruned model the masks count, in a plain model the nonzero weights.
"""

import sys

from absl import flags

from keras_prune.analysis.report import report
from keras_prune.deployment.deployment_plan import deployment_plan
from keras_prune.tools.command_line import Result, Tool, load_model


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    runtimes = ["litert", "xnnpack"]
    help_text = "Add what this runtime can make smaller or faster."
    flags.DEFINE_enum("runtime", None, runtimes, help_text, flag_values=values)


def inspect(values: flags.FlagValues, path: str) -> Result:
    """Returns the report of a model, and the deployment plan for `--runtime`."""
    model = load_model(path, values.modules)
    measured = report(model)
    result = Result(measured, {"model": path, **measured.to_dict()})
    if values.runtime is None:
        return result
    plan = deployment_plan(model, values.runtime)
    return Result(f"{measured}\n{plan}", result.values | {"plan": plan.to_dict()})


main = Tool(__doc__, ["MODEL"], define, inspect).main

if __name__ == "__main__":
    sys.exit(main())
