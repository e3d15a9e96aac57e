"""Cuts connections of a saved model and writes the pruned one; nothing is retrained.

    python -m keras_prune.tools.prune dense.keras pruned.keras --sparsity=0.5
    python -m keras_prune.tools.prune dense.keras pruned.keras --compression=8 --block_size=4,1
    python -m keras_prune.tools.prune dense.keras pruned.keras --quality=1.2 --layer_names='fc.*'
    python -m keras_prune.tools.prune retrained.keras plain.keras --strip

The pruned model keeps its masks, so that training it further keeps the cut connections at zero; load it where
keras_prune is imported. --strip writes a plain Keras model instead, the zeros inside, and alone only takes the masks of
a pruned one away. What is zero in the model that is cut counts as cut before, and stays so. Beyond about half of the
connections, accuracy has to be won back by training: see keras_prune.PruningCallback and keras_prune.iterative_prune.
"""

from absl import flags

from keras_prune import budgets
from keras_prune.analysis.report import report
from keras_prune.layers.weights import pruned_weights
from keras_prune.models.prune_model import prune, strip
from keras_prune.rules.criteria import StdThreshold, TargetSparsity
from keras_prune.rules.patterns import Blocks, NOfM
from keras_prune.tools.command_line import load_model, run, written_aside
from keras_prune.tools.inspect import as_values
from keras_prune.training.cut import cut_weights

FLAGS = flags.FLAGS
flags.DEFINE_float("quality", None, "Cut below this times the standard deviation of each layer's weights.")
flags.DEFINE_float("sparsity", None, "Cut this share of each layer's connections.")
flags.DEFINE_float(
    "compression",
    None,
    "Cut until all connections over those kept is this, such as 8, not counting layers that are frozen or not named.",
)
flags.DEFINE_enum(
    "budget",
    "quality_for",
    ["quality_for", "uniform", "erdos_renyi_kernel", "global_magnitude"],
    "How --compression is split among the layers; quality_for: by one common quality.",
)
flags.DEFINE_string("layer_names", ".*", "Cut only the layers whose whole name matches this regular expression.")
flags.DEFINE_list("block_size", None, "Cut whole blocks of inputs,outputs, such as 4,1 for LiteRT's sparse kernel.")
flags.DEFINE_list("n_of_m", None, "Keep at most N of M neighbouring inputs, such as 2,4.")
flags.DEFINE_bool("strip", False, "Write a plain Keras model without masks.")


def main(path, output):
    aims = [name for name in ("quality", "sparsity", "compression") if FLAGS[name].value is not None]
    if len(aims) > 1 or not (aims or FLAGS.strip):
        raise ValueError(
            "How much to cut is given by one of --quality, --sparsity and --compression; --strip alone cuts nothing. "
            f"Received: {' and '.join(f'--{name}' for name in aims) or 'none of them'}"
        )
    model, gone = load_model(path), 0
    if aims:
        model, gone = prune_now(model)
    left_out = report(model).skipped
    counts = [(weight.kept, weight.size) for weight in pruned_weights(model)]
    if FLAGS.strip:
        model = strip(model)
    measured = report(model)  # Of what is written.
    measured.skipped = left_out
    with written_aside(output, ".keras") as aside:
        model.save(aside)
    kind = "a plain Keras model" if FLAGS.strip else "with its masks, so that it can be trained further"
    text = str(measured)
    kept, weights = (sum(numbers) for numbers in zip((0, 0), *counts, strict=True))
    if FLAGS.compression is not None and weights < measured.weights:
        text += f"\n--compression counts only layers that are cut: {kept:,} of {weights:,}, {weights / kept:.1f}x"
    text += f"\ncut {gone:,} of {measured.kept + gone:,} connections; wrote {output}, {kind}"
    return text, {"model": path, "output": output, "cut": gone, **as_values(measured)}


def prune_now(model):
    """Returns a model that is cut as the flags say, and how many connections that took."""
    is_pruned = bool(pruned_weights(model))
    if is_pruned and FLAGS.layer_names != ".*":
        raise ValueError(
            "--layer_names chooses among the layers of a plain model; in one that has masks, those with masks are cut. "
            f"Received: --layer_names={FLAGS.layer_names}"
        )
    pattern = asked_pattern()
    if not is_pruned:
        model = prune(model, {FLAGS.layer_names: StdThreshold()})
    weights = pruned_weights(model)
    for weight in weights:
        weight.criterion = StdThreshold(1.0, pattern or weight.criterion.pattern)
    if FLAGS.compression is not None and FLAGS.budget != "quality_for":
        shares = getattr(budgets, FLAGS.budget)(model, FLAGS.compression)
        model = prune(model, shares)
        asked = [weight for weight in weights if isinstance(weight.criterion, TargetSparsity)]
    else:
        quality = budgets.quality_for(model, FLAGS.compression) if FLAGS.compression is not None else FLAGS.quality
        for weight in weights:
            kept = weight.criterion.pattern
            share = FLAGS.sparsity
            weight.criterion = StdThreshold(quality, kept) if share is None else TargetSparsity(share, kept)
        asked = weights
    return model, sum(one.cut for one in cut_weights(asked, 1.0, [], []))


def asked_pattern():
    """Returns the pattern that the flags name, or `None`."""
    if FLAGS.block_size and FLAGS.n_of_m:
        raise ValueError("A pattern is given by --block_size or by --n_of_m. Received: both")
    numbers = [int(text) if text.isdigit() else text for text in FLAGS.block_size or FLAGS.n_of_m or []]
    if FLAGS.n_of_m:
        kept, of = numbers if len(numbers) == 2 else (numbers, None)
        return NOfM(kept, of)
    return Blocks(tuple(numbers)) if numbers else None


if __name__ == "__main__":
    run(main, ["MODEL", "OUTPUT"])
