"""Prunes a VGG-style or an AlexNet-style network on CIFAR-10, and writes tables and figures of the results.

    python examples/cifar10.py --network=vgg                     # train and prune for every seed; continues if stopped
    python examples/cifar10.py --network=alexnet --backend=jax   # reads images with TensorFlow, trains with JAX
    python examples/cifar10.py --table=vgg                       # Markdown, from the measurements alone
    python examples/cifar10.py --figure=vgg                      # PNG, from the measurements alone

First, the dense network is trained. A scan of its sensitivity gives every layer its own threshold. Then the network is
pruned and retrained in rounds, dense layers and convolutions in turn. Models are saved in `--output_dir`, measurements
as JSON files in `--results_dir`. All choices are made on the last tenth of the training split, which is held out. The
evaluation split is read once, after all rounds of a seed.
"""

import json
import os
import pathlib
import statistics

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", None, ["vgg", "alexnet"], "The network to train and prune.")
flags.DEFINE_enum("table", None, ["vgg", "alexnet"], "The network whose table to print.")
flags.DEFINE_enum("figure", None, ["vgg", "alexnet"], "The network whose figures to draw.")
flags.DEFINE_enum("backend", "tensorflow", ["tensorflow", "jax", "torch"], "Backend of Keras.")
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of initial weights, order of images and dropout.")
flags.DEFINE_integer("width", 16, "Filters of the first block. All other layers scale with it.", lower_bound=1)
flags.DEFINE_integer("dense_epochs", None, "Epochs before the first cut. Defaults to the network's.", lower_bound=1)
flags.DEFINE_integer("epochs", None, "Epochs of each phase of a round. Defaults to the network's.", lower_bound=1)
flags.DEFINE_list("compressions", None, "Compression of each round. Defaults to the network's.")
flags.DEFINE_float("max_drop", 0.02, "How much held-out accuracy the rounds may lose.", lower_bound=0)
flags.DEFINE_string("train_split", "train[:90%]", "Images to train on. The last tenth is held out.")
flags.DEFINE_string("eval_split", "train[90%:]", "Images to evaluate on at the end. For CIFAR-10 as a whole: test.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_string("output_dir", "output/cifar10", "Folder for the models of every seed.")
flags.DEFINE_string("results_dir", "docs/data", "Folder for the measurements.")
flags.DEFINE_string("figures_dir", "docs/figures", "Folder for figures.")


def train():
    """Trains and prunes for every seed that has no measurements yet."""
    import cifar10_training as training

    settings = training.SETTINGS[FLAGS.network]
    given = {name: FLAGS[name].value for name in ("dense_epochs", "epochs") if FLAGS[name].value}
    if FLAGS.compressions:
        given["compressions"] = tuple(map(float, FLAGS.compressions))
    for seed in map(int, FLAGS.seeds):
        file = pathlib.Path(FLAGS.results_dir) / f"cifar10_{FLAGS.network}_{seed}.json"
        if file.exists():
            continue
        measured = training.measure(
            FLAGS.network,
            FLAGS.width,
            seed,
            settings._replace(**given),
            FLAGS.train_split,
            FLAGS.eval_split,
            FLAGS.max_drop,
            FLAGS.data_dir,
            pathlib.Path(FLAGS.output_dir) / FLAGS.network / f"seed_{seed}",
        )
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_suffix(".partial")  # A seed with a file counts as measured.
        partial.write_text(json.dumps(measured, indent=1))
        partial.replace(file)
        print(f"{file}: {measured['seconds']:.0f} s", flush=True)


def measurements(network):
    """Returns the measurements, one entry for each seed."""
    files = sorted(pathlib.Path(FLAGS.results_dir).glob(f"cifar10_{network}_*.json"))
    if not files:
        raise SystemExit(f"no measurements in {FLAGS.results_dir}: run cifar10.py --network={network} first")
    return [json.loads(file.read_text()) for file in files]


def table(network):
    """Returns as Markdown the accuracies of every round, and the layers of the sparsest one without loss."""
    seeds = measurements(network)
    lines = [
        "**Rounds**",
        "",
        "| compression | accuracy | change from dense, each seed (points) | held-out accuracy | FLOP left |",
        "|---|---|---|---|---|",
    ]
    for index in range(min(len(seed["rounds"]) for seed in seeds)):
        rounds = [seed["rounds"][index] for seed in seeds]
        changes = [
            100 * (seed["rounds"][index]["eval_accuracy"] - seed["rounds"][0]["eval_accuracy"]) for seed in seeds
        ]
        each = ", ".join(f"{change:+.2f}" for change in changes)
        lines.append(
            f"| {_mean(rounds, 'compression'):.1f}x | {_mean(rounds, 'eval_accuracy'):.2%} "
            f"| {statistics.mean(changes):+.2f} ({each}) | {_mean(rounds, 'held_out_accuracy'):.2%} "
            f"| {_mean(rounds, 'flop_density'):.0%} |"
        )
    chosen = seeds[0]["rounds"][seeds[0]["chosen"]]
    lines += ["", f"**Layers of seed {seeds[0]['seed']} at {chosen['compression']:.1f}x**", ""]
    lines += ["| layer | weights | FLOP | Act% | Weights% | FLOP% | dropout |", "|---|---|---|---|---|---|---|"]
    for row in chosen["layers"]:
        dropout = "" if row["dropout"] is None else f"{row['dropout']:.2f}"
        shares = (row["activation"], row["kept"] / row["weights"], row["flop_density"])
        cells = " | ".join(f"{100 * share:.1f}" for share in shares)
        lines.append(f"| {row['name']} | {row['weights']:,} | {row['flop']:,} | {cells} | {dropout} |")
    lines += ["", "**Files**", "", "| file | bytes |", "|---|---|"]
    lines += [f"| {name} | {size:,} |" for name, size in seeds[0]["files"].items()]
    return "\n".join(lines)


def _mean(rounds, key):
    return statistics.mean(one[key] for one in rounds)


def figures(network):
    """Draws accuracy against compression, and the sensitivity of the layers, and returns the paths of the PNGs."""
    import matplotlib

    matplotlib.use("Agg")
    import keras_prune as kp
    from keras_prune import plots

    seeds = measurements(network)
    count = min(len(seed["rounds"]) for seed in seeds)
    changes = [
        [one["eval_accuracy"] - seed["rounds"][0]["eval_accuracy"] for one in seed["rounds"][1:count]] for seed in seeds
    ]
    sparsities = [1 - 1 / one["compression"] for one in seeds[0]["rounds"][1:count]]
    scan = seeds[0]["sensitivity"]
    curves = {
        name: [kp.results.Point(kp.StdThreshold(one["strength"]), one["density"], one["value"]) for one in points]
        for name, points in scan["curves"].items()
    }
    drawn = {
        "rounds": plots.trade_off({network: (sparsities, changes)}),
        "sensitivity": plots.sensitivity(kp.results.Sensitivity(curves, scan["reference"], scan["monitor"], 1)),
    }
    folder = pathlib.Path(FLAGS.figures_dir)
    folder.mkdir(parents=True, exist_ok=True)
    for name, axes in drawn.items():
        axes.figure.savefig(folder / f"cifar10_{network}_{name}.png")
    return [str(folder / f"cifar10_{network}_{name}.png") for name in drawn]


def main(_):
    os.environ["KERAS_BACKEND"] = FLAGS.backend  # Keras reads it on import. No line above imports it.
    if FLAGS.network:
        train()
    if FLAGS.table:
        print(table(FLAGS.table))
    if FLAGS.figure:
        print("\n".join(figures(FLAGS.figure)))


if __name__ == "__main__":
    app.run(main)
