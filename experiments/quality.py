"""Measures what a quality of `StdThreshold`, the same for all layers, gives and costs: in one cut, and in five rounds.

    KERAS_BACKEND=tensorflow python experiments/quality.py
    python experiments/quality.py --table
    python experiments/quality.py --figure

One dense network a seed is trained, then pruned at each quality from the same weights, and trained for the same number
of epochs. A quality of 0 is the dense network, which is trained on like the others. The last 5,000 training images are
held out, and every error is measured on them. Runs that are in the JSON file already are not repeated.
"""

import math
import os
import pathlib
import platform
import statistics
import tempfile
import time

import batch_norm
from absl import app, flags

FLAGS = flags.FLAGS
flags.adopt_module_key_flags(batch_norm)
FLAGS.set_default("dense_epochs", 10)
FLAGS.set_default("images", 10000)
FLAGS.set_default("results", "docs/data/quality.json")
flags.DEFINE_list("networks", ["lenet_300_100", "lenet_5", "convolutional"], "Networks to measure, or to show.")
flags.DEFINE_list("qualities", "0.25,0.5,0.75,1,1.25,1.5,1.75,2,2.5,3", "Qualities to prune at.")
flags.DEFINE_integer(
    "epochs", 5, "Epochs after one cut, and of the five rounds together: a multiple of 5.", lower_bound=5
)
flags.DEFINE_bool("figure", False, "Draw the figure of what was measured.")
flags.DEFINE_string("figures_dir", "docs/figures", "Where the figure goes.")

ROUNDS = 5
COLUMNS = {  # Rounds and field of each column of the table.
    "compression, one cut": (1, "compression"),
    "five rounds": (ROUNDS, "compression"),
    "error after the cut, %": (1, "cut_error"),
    "one cut, trained": (1, "error"),
    "five rounds, trained": (ROUNDS, "error"),
}
LABELS = {
    "lenet_300_100": "LeNet-300-100, MNIST",
    "lenet_5": "LeNet-5, MNIST",
    "convolutional": "convolutions with batch norm, CIFAR-10",
}


def problem(network):
    """Returns a dense network, its training data `(x, y)`, and the held-out data."""
    import tensorflow_datasets as tfds

    from keras_prune import networks

    if network == "convolutional":
        return batch_norm.network(), *batch_norm.images()
    data = tfds.as_numpy(tfds.load("mnist", split="train", batch_size=-1))
    x, y = data["image"].astype("float32") / 255, data["label"]
    return getattr(networks, network)(), (x[: FLAGS.images], y[: FLAGS.images]), (x[-5000:], y[-5000:])


def train(model, data, rate, epochs, seed, rounds=1, callbacks=()):
    """Trains with Adam, at a learning rate that falls to zero along a cosine in each round."""
    import keras

    keras.utils.set_random_seed(seed)
    steps = epochs // rounds * -(-len(data[0]) // batch_norm.BATCH_SIZE)
    falling = keras.optimizers.schedules.CosineDecayRestarts(rate, steps, t_mul=1.0)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    jit_compile = keras.backend.backend() != "tensorflow"  # TensorFlow's own convolutions are faster on a CPU.
    model.compile(keras.optimizers.Adam(falling), loss, metrics=["accuracy"], jit_compile=jit_compile)
    model.fit(*data, batch_size=batch_norm.BATCH_SIZE, epochs=epochs, verbose=2, callbacks=callbacks)


def error(model, data):
    """Returns the share of wrong answers in percent."""
    return 100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def dense_network(network, seed):
    """Returns the file of the dense network of a seed, its training data and the held-out data."""
    import keras

    keras.utils.set_random_seed(seed)
    model, data, held_out = problem(network)
    file = pathlib.Path(tempfile.gettempdir()) / f"quality_{network}_{seed}_{FLAGS.dense_epochs}_{FLAGS.images}.keras"
    if not file.exists():
        train(model, data, 2e-3, FLAGS.dense_epochs, seed)
        model.save(file)
    return file, data, held_out


def prune(file, quality, rounds, data, held_out, seed):
    """Returns compression and errors of a network that is pruned in one cut or in rounds, and trained."""
    import keras

    import keras_prune as kp

    model, callbacks, found = keras.models.load_model(file), [], {}
    if quality:
        kp.prune(model, kp.StdThreshold(quality))
    if rounds > 1:
        callbacks = [kp.PruningCallback(kp.Iterative(rounds, FLAGS.epochs // rounds))]
    else:
        if quality:
            kp.cut(model)
        found["cut_error"] = error(model, held_out)
    train(model, data, batch_norm.RETRAINING_RATE, FLAGS.epochs, seed, rounds, callbacks)
    return found | {"compression": kp.report(model).compression, "error": error(model, held_out)}


def measure(network, seed):
    """Measures what is not in the JSON file yet."""
    import keras
    import measurements

    todo = [(quality, rounds) for quality in map(float, FLAGS.qualities) for rounds in (1, ROUNDS)]
    keys = {one: f"{network}, seed {seed}, quality {one[0]:g}, rounds {one[1]}" for one in [(0.0, 1), *todo]}
    done = measurements.read(FLAGS.results).get("runs", {})
    todo = [one for one, key in keys.items() if key not in done]
    if not todo:
        return
    file, data, held_out = dense_network(network, seed)
    for quality, rounds in todo:
        begin = time.process_time()
        found = {"network": network, "seed": seed, "quality": quality, "rounds": rounds}
        found |= prune(file, quality, rounds, data, held_out, seed)
        found["cpu_seconds"] = time.process_time() - begin
        measured = measurements.read(FLAGS.results) or {"runs": {}}
        measured["command"] = f"KERAS_BACKEND={keras.backend.backend()} python experiments/quality.py"
        names = ("images", "dense_epochs", "epochs")
        measured["settings"] = {name: FLAGS[name].value for name in names} | {"batch_size": batch_norm.BATCH_SIZE}
        measured["machine"] = {
            "backend": f"{keras.backend.backend()}, Keras {keras.version()}",
            "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        }
        measured["runs"][keys[quality, rounds]] = found
        measurements.write(FLAGS.results, measured)
        print(found, flush=True)


def grouped():
    """Returns what all seeds measured, by network, quality and rounds."""
    import measurements

    groups = {}
    for one in measurements.read(FLAGS.results)["runs"].values():
        if one["network"] in FLAGS.networks:
            groups.setdefault((one["network"], one["quality"], one["rounds"]), []).append(one)
    return dict(sorted(groups.items(), key=lambda group: (FLAGS.networks.index(group[0][0]), *group[0][1:])))


def table():
    """Returns the means over seeds as Markdown."""
    groups = grouped()
    lines = [f"| network | quality | {' | '.join(COLUMNS)} |", "|---" * (2 + len(COLUMNS)) + "|"]
    for network, quality in dict.fromkeys(key[:2] for key in groups):
        cells = []
        for rounds, field in COLUMNS.values():
            values = [run[field] for run in groups.get((network, quality, rounds), [])]
            mean = statistics.mean(values) if values else 0.0
            each = ", ".join(f"{value:.1f}" for value in values)
            compression = f"{mean:,.1f}x" if mean < 100 else f"{mean:,.0f}x"
            cells.append("" if not values else compression if field == "compression" else f"{mean:.1f} ({each})")
        lines.append(f"| {network} | {f'{quality:g}' if quality else 'dense'} | {' | '.join(cells)} |")
    return "\n".join(lines)


def figure():
    """Draws compression and error over the quality, and returns the path of the PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    from keras_prune.plots import style

    groups = grouped()
    qualities = sorted({quality for _, quality, _ in groups if quality})
    normal = [1 / math.erfc(one / math.sqrt(2)) for one in qualities]
    with plt.rc_context(style.STYLE | {"lines.linewidth": 1}):
        drawn, (left, right) = plt.subplots(1, 2, figsize=(7, 3.2))
        for index, network in enumerate(dict.fromkeys(key[0] for key in groups)):
            dense = statistics.mean(run["error"] for run in groups[network, 0.0, 1])
            for rounds, line in ((1, "-"), (ROUNDS, "--")):
                runs = {quality: groups.get((network, quality, rounds)) for quality in qualities}
                runs = {quality: one for quality, one in runs.items() if one}
                looks = style.curve_style(index) | {"linestyle": line}
                for ax, field, base in ((left, "compression", 0), (right, "error", dense)):
                    means = [statistics.mean(run[field] for run in one) - base for one in runs.values()]
                    ax.plot([*runs], means, **looks, label=LABELS[network] if rounds == 1 else None)
        left.plot([], "k-", label="one cut")
        left.plot([], "k--", label="five rounds")
        left.plot(qualities, normal, label="normal distribution, one cut", **style.REFERENCE)
        right.axhline(0, **style.REFERENCE)
        left.set(xlabel="quality", ylabel="compression", yscale="log", ylim=(1, 1000))
        style.plain_log_ticks(left.yaxis)
        right.set(xlabel="quality", ylabel="rise of the held-out error (points)", xlim=(0.15, 2.1), ylim=(-1, 10))
        drawn.legend(*left.get_legend_handles_labels(), loc="outside upper center", ncols=2, fontsize="medium")
    path = pathlib.Path(FLAGS.figures_dir) / "quality.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    drawn.savefig(path)
    return path


def main(_):
    if FLAGS.table or FLAGS.figure:
        print(table() if FLAGS.table else figure())
        return
    for seed in map(int, FLAGS.seeds):
        for network in FLAGS.networks:
            measure(network, seed)


if __name__ == "__main__":
    app.run(main)
