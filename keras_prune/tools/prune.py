"""Prune a saved model once, without retraining.

    python -m keras_prune.tools.prune dense.keras pruned.keras --sparsity=0.5
    python -m keras_prune.tools.prune dense.keras pruned.keras --compression=8 --block_size=4,1
    python -m keras_prune.tools.prune dense.keras pruned.keras --quality=1.2 --layer_names='fc.*'
    python -m keras_prune.tools.prune retrained.keras plain.keras --strip

The pruned model has masks, which keep its pruned connections at zero in further training. Import keras_prune to load
it. --strip writes a plain Keras model instead, with zeros in its weights. Without another flag it only removes the
masks. Zeros in a plain model count as pruned. If more than about half of the connections are pruned, train the model
further to restore its accuracy: see keras_prune.PruningCallback and keras_prune.iterative_prune.
"""

import sys
from typing import Any

from absl import flags

from keras_prune import budgets
from keras_prune.analysis.report import report
from keras_prune.layers.masks import connections_of
from keras_prune.layers.weights import pruned_weights
from keras_prune.models import prune_model
from keras_prune.rules.criteria import StdThreshold, TargetSparsity
from keras_prune.rules.patterns import Blocks, NOfM, Pattern
from keras_prune.tools.command_line import Result, Tool, load_model, save_model
from keras_prune.training.cut import cut

BUDGETS = {
    "common_quality": budgets.CommonQuality,
    "global_magnitude": budgets.GlobalMagnitude,
    "uniform": budgets.Uniform,
    "erdos_renyi_kernel": budgets.ErdosRenyiKernel,
}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_float("quality", None, "Prune below this times the standard deviation of each layer's weights.", **own)
    flags.DEFINE_float("sparsity", None, "Share of each layer's connections to prune.", **own)
    text = "All connections over those kept, such as 8. Frozen layers, and layers that are not named, do not count."
    flags.DEFINE_float("compression", None, text, **own)
    flags.DEFINE_enum("budget", "common_quality", list(BUDGETS), "How to split --compression among the layers.", **own)
    flags.DEFINE_string("layer_names", ".*", "Regular expression for the whole names of the layers to prune.", **own)
    flags.DEFINE_list("block_size", None, "Inputs and outputs of blocks, such as 4,1 for LiteRT.", **own)
    flags.DEFINE_list("n_of_m", None, "Keep at most N of M neighboring inputs, such as 2,4.", **own)
    flags.DEFINE_bool("strip", False, "Write a plain Keras model without masks.", **own)


def prune(values: flags.FlagValues, path: str, output: str) -> Result:
    """Prunes the model in one file as the flags say, and writes it to another."""
    strengths = [name for name in ("quality", "sparsity", "compression") if values[name].present]
    if len(strengths) > 1 or not (strengths or values.strip):
        given = " and ".join(f"--{name}" for name in strengths) or "none of them"
        raise ValueError(
            f"Expected one of --quality, --sparsity and --compression, or --strip alone. Received: {given}"
        )
    model = load_model(path, values.modules)
    cuts = []
    if strengths:
        criterion = criterion_of(values, pattern_of(values, model))
        cuts = cut(prune_model.prune(model, {values.layer_names: criterion}))
    pruned = sum(one.cut for one in cuts)
    kept, total = connections_of(pruned_weights(model))
    skipped = report(model).skipped
    if values.strip:
        model = prune_model.strip(model)
    measured = report(model)  # Of the model that is written.
    save_model(model, output)
    lines = [str(measured)]
    lines += [f"left out: {name} - {reason}" for name, reason in skipped.items() if name not in measured.skipped]
    if values["compression"].present and total < measured.weights:
        lines.append(f"--compression counts only pruned layers: {kept:,} of {total:,}, {total / kept:.1f}x")
    kind = "a plain Keras model" if values.strip else "with masks for further training"
    lines.append(f"pruned {pruned:,} of {measured.kept + pruned:,} connections; wrote {output}, {kind}")
    summary = {"model": path, "output": output, "pruned": pruned}
    return Result("\n".join(lines), summary | measured.to_dict() | {"skipped": skipped})


def criterion_of(values: flags.FlagValues, pattern: Pattern | None):
    """Returns the criterion or budget that the flags ask for."""
    if values["compression"].present:
        return BUDGETS[values.budget](values.compression, pattern)
    if values["sparsity"].present:
        return TargetSparsity(values.sparsity, pattern)
    return StdThreshold(values.quality, pattern)


def pattern_of(values: flags.FlagValues, model) -> Pattern | None:
    """Returns the pattern that the flags ask for, or the pattern in which the model was pruned before.

    Raises:
        ValueError: If the flags are invalid or do not fit a pruned model.
    """
    weights = pruned_weights(model)
    if weights and values["layer_names"].present:
        raise ValueError(
            "--layer_names selects layers of a plain model. In a pruned model, all layers with masks are pruned. "
            f"Received: --layer_names={values.layer_names}"
        )
    if values.block_size and values.n_of_m:
        raise ValueError("Expected --block_size or --n_of_m. Received: both")
    if values.block_size:
        return Blocks(_two_integers(values, "block_size"))
    if values.n_of_m:
        return NOfM(*_two_integers(values, "n_of_m"))
    before = {weight.criterion.pattern for weight in weights}
    if len(before) > 1:
        patterns = sorted(map(repr, before))
        raise ValueError(f"The model has several patterns. Add --block_size or --n_of_m. Received: {patterns}")
    return before.pop() if before else None


def _two_integers(values, name) -> tuple[int, int]:
    try:
        first, second = map(int, values[name].value)
    except ValueError:
        received = ",".join(values[name].value)
        raise ValueError(f"--{name} must be two integers, such as 2,4. Received: --{name}={received}") from None
    return first, second


main = Tool(__doc__, ["MODEL", "OUTPUT"], define, prune).main

if __name__ == "__main__":
    sys.exit(main())
