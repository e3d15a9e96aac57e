"""Prune a model, at once or in rounds with retraining.

One cut needs no data. If it prunes more than about half of the connections, the accuracy falls.
With --rounds and training data, each round prunes the model and trains it further, as long as the
accuracy on validation data holds. Zeros in a plain model count as pruned.

Examples:

  keras-prune prune dense.keras pruned.keras --sparsity=0.5
  keras-prune prune dense.keras pruned.keras --compression=8 --block_size=4,1
  keras-prune prune dense.keras pruned.keras --quality=1.2 --layer_names='fc.*'
  keras-prune prune dense.keras pruned.keras --rounds=2,4,8 --data=train.npz --epochs=3
  keras-prune prune pruned.keras plain.keras --strip

The pruned model has masks, which keep its pruned connections at zero in further training. Import
keras_prune to load it. With --strip, or an output that ends in .kprune, it is a plain Keras model
with zeros in its weights.
"""

from typing import Any

from absl import flags

import keras_prune as kp
from keras_prune.tools.files import load_model, load_pairs, require_output, save_model
from keras_prune.tools.subcommand import Result, Subcommand, numbers

_BUDGETS = {
    "common_quality": "CommonQuality",
    "global_magnitude": "GlobalMagnitude",
    "uniform": "Uniform",
    "erdos_renyi_kernel": "ErdosRenyiKernel",
}
# The flags that only --rounds uses.
_TRAINING = (
    "data",
    "validation_data",
    "validation_split",
    "epochs",
    "batch_size",
    "monitor",
    "max_drop",
    "learning_rate_fraction",
    "directory",
)


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the subcommand."""
    own: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_float("sparsity", None, "Share of each layer's connections to prune, such as 0.5.", **own)
    text = "All connections over those kept, such as 8. Frozen layers and layers that are not named do not count."
    flags.DEFINE_float("compression", None, text, **own)
    flags.DEFINE_float("quality", None, "Prune weights below this many standard deviations of their layer.", **own)
    flags.DEFINE_list("rounds", None, "Compression of each round of pruning and retraining, such as 2,4,8.", **own)
    text = "How to split --compression or --rounds among the layers."
    flags.DEFINE_enum("budget", "common_quality", list(_BUDGETS), text, **own)
    flags.DEFINE_string("layer_names", ".*", "Regular expression for the whole names of the layers to prune.", **own)
    flags.DEFINE_list("block_size", None, "Prune blocks of this many inputs and outputs, such as 4,1.", **own)
    flags.DEFINE_list("n_of_m", None, "Keep at most N of M neighboring inputs, such as 2,4.", **own)
    text = "Also write a report to this .html file, with figures and the curve of --rounds."
    flags.DEFINE_string("html", None, text, **own)
    flags.DEFINE_bool("strip", False, "Write a plain Keras model without masks.", **own)
    text = "Training data for --rounds: an .npz file with the arrays x and y. The model must be compiled."
    flags.DEFINE_string("data", None, text, **own)
    flags.DEFINE_string("validation_data", None, "Validation data of the same form.", **own)
    text = "Random share of --data to validate on without --validation_data, the same in each run."
    flags.DEFINE_float("validation_split", 0.1, text, lower_bound=0.0, upper_bound=1.0, **own)
    flags.DEFINE_integer("epochs", 1, "Epochs of each retraining.", lower_bound=1, **own)
    flags.DEFINE_integer("batch_size", 32, "Samples in a batch.", lower_bound=1, **own)
    flags.DEFINE_string("monitor", "accuracy", "Metric that the model was compiled with, or loss.", **own)
    flags.DEFINE_float("max_drop", 0.0, "How much worse the metric may become.", lower_bound=0.0, **own)
    text = "Learning rate of retraining, as a fraction of the rate in the model."
    flags.DEFINE_float("learning_rate_fraction", 0.1, text, **own)
    text = "Folder that keeps each round. To resume an interrupted run, run the same command again."
    flags.DEFINE_string("directory", None, text, **own)


def prune(values: flags.FlagValues, path: str, output: str) -> Result:
    """Prunes the model in one file as the flags ask for, and writes it to another."""
    from keras_prune.analysis.html_page import require_page
    from keras_prune.terminal.tables import wrapped

    strength = _strength(values)
    require_output(output)
    if values.html is not None:
        require_page(values.html)
    keeps = not output.endswith(".kprune")
    model = load_model(path, values.modules, compiled=strength == "rounds", preprocessor=keeps)
    pruned, rounds = _prune(values, strength, model) if strength else (0, [])
    kept, total = _connections(model)
    skipped = kp.report(model).skipped
    plain = values.strip or not keeps
    if plain:
        model = kp.strip(model)
    measured = kp.report(model)  # Of the model that is written.
    save_model(model, output)
    lines = [f"left out: {name} - {reason}" for name, reason in skipped.items() if name not in measured.skipped]
    if strength in ("compression", "rounds") and total < measured.weights:
        lines.append(f"--{strength} counts only pruned layers: {kept:,} of {total:,}, {total / kept:.1f}x")
    kind = "a plain Keras model" if plain else "with masks for further training"
    lines.append(f"pruned {pruned:,} of {measured.kept + pruned:,} connections; wrote {output}, {kind}")
    if values.html is not None:
        measured.save(values.html, rounds or None)
        lines.append(f"wrote {values.html}")
    summary = {"model": path, "output": output, "html": values.html, "pruned": pruned}
    summary |= {"rounds": [one.to_dict() for one in rounds], **measured.to_dict(), "skipped": skipped}
    return Result(f"{measured}\n{wrapped(lines)}", summary)


def _strength(values) -> str | None:
    """Returns the flag that says how much to prune, or `None` for `--strip` alone."""
    given = [name for name in ("sparsity", "compression", "quality", "rounds") if values[name].present]
    if len(given) > 1 or not (given or values.strip):
        received = " and ".join(f"--{name}" for name in given) or "none of them"
        raise ValueError(
            f"Expected one of --sparsity, --compression, --quality and --rounds, or --strip alone. Received: {received}"
        )
    strength = given[0] if given else None
    training = [f"--{name}" for name in _TRAINING if values[name].present]
    if training and strength != "rounds":
        raise ValueError(f"Only --rounds trains the model. Received: {' and '.join(training)} without --rounds")
    if strength == "rounds" and values.data is None:
        raise ValueError("--rounds needs training data, --data=train.npz. Received: no --data")
    return strength


def _prune(values, strength, model) -> tuple[int, list]:
    """Prunes a model in place. Returns how many connections it removed, and the rounds."""
    rounds = numbers(values, "rounds", float) if strength == "rounds" else []
    data = _training_data(values, model) if rounds else {}
    kp.prune(model, {values.layer_names: criterion_of(values, strength, rounds, pattern_of(values, model))})
    before, _ = _connections(model)
    if not rounds:
        return sum(one.cut for one in kp.cut(model)), []
    settings = ("epochs", "batch_size", "monitor", "max_drop", "learning_rate_fraction", "directory")
    done = kp.iterative_prune(model, rounds, **{name: values[name].value for name in settings}, **data)
    return before - _connections(model)[0], done


def _connections(model) -> tuple[int, int]:
    from keras_prune.layers.masks import connections_of

    return connections_of(kp.layers.pruned_weights(model))


def _training_data(values, model) -> dict[str, Any]:
    """Returns the arguments of `fit` that hold data."""
    import numpy as np

    x, y = load_pairs(values.data, model)
    if values.validation_data is not None:
        return {"x": x, "y": y, "validation_data": load_pairs(values.validation_data, model, "validation_data")}
    order = np.random.default_rng(0).permutation(len(y))
    held_out = round(values.validation_split * len(y))
    if not 0 < held_out < len(y):
        raise ValueError(
            "--validation_split must leave samples on both sides. "
            f"Received: --validation_split={values.validation_split} of {len(y)} samples"
        )

    def take(places):
        inputs = {name: array[places] for name, array in x.items()} if isinstance(x, dict) else x[places]
        return inputs, y[places]

    x_train, y_train = take(order[held_out:])
    return {"x": x_train, "y": y_train, "validation_data": take(order[:held_out])}


def criterion_of(values: flags.FlagValues, strength: str, rounds: list[float], pattern):
    """Returns the criterion or budget that the flags ask for."""
    if strength == "sparsity":
        return kp.TargetSparsity(values.sparsity, pattern)
    if strength == "quality":
        return kp.StdThreshold(values.quality, pattern)
    budget = getattr(kp.budgets, _BUDGETS[values.budget])
    return budget(max(rounds) if rounds else values.compression, pattern)


def pattern_of(values: flags.FlagValues, model):
    """Returns the pattern that the flags ask for, or the pattern in which the model was pruned before.

    Raises:
        ValueError: If the flags are invalid or do not fit a pruned model.
    """
    weights = kp.layers.pruned_weights(model)
    if weights and values["layer_names"].present:
        raise ValueError(
            "--layer_names selects layers of a plain model. In a pruned model, all layers with masks are pruned. "
            f"Received: --layer_names={values.layer_names}"
        )
    if values.block_size and values.n_of_m:
        raise ValueError("Expected --block_size or --n_of_m. Received: both")
    if values.block_size:
        return kp.Blocks(_two_integers(values, "block_size"))
    if values.n_of_m:
        return kp.NOfM(*_two_integers(values, "n_of_m"))
    before = {weight.criterion.pattern for weight in weights}
    if len(before) > 1:
        patterns = sorted(map(repr, before))
        raise ValueError(f"The model has several patterns. Add --block_size or --n_of_m. Received: {patterns}")
    return before.pop() if before else None


def _two_integers(values, name) -> tuple[int, int]:
    both = numbers(values, name, int)
    if len(both) != 2:
        raise ValueError(
            f"--{name} must be two integers, such as 2,4. Received: --{name}={','.join(values[name].value)}"
        )
    return both[0], both[1]


PRUNE = Subcommand("prune", __doc__, ["MODEL", "OUTPUT"], define, prune)
