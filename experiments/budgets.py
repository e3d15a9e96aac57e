"""Compares budgets and schedules at equal training, on LeNet-5 (MNIST) and a VGG-style network (CIFAR-10).

    KERAS_BACKEND=jax python experiments/budgets.py --network=lenet_5
    KERAS_BACKEND=jax python experiments/budgets.py --network=vgg --compressions=20 --epochs=9
    python experiments/budgets.py --table

For each seed, a dense network is trained, and then pruned and trained further with each budget and schedule, from the
same weights. Runs in the JSON file are not repeated. All columns except the last are measured on the last 5,000
training images, which are held out. There is no test split for CIFAR-10, only these held-out images.
"""

import pathlib
import statistics
import sys
import tempfile
import time

from absl import app, flags

sys.path.append(str(pathlib.Path(__file__).resolve().parents[1] / "examples"))

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", None, ["lenet_5", "vgg"], "The network to train and prune.")
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of initial weights, order of images and dropout.")
flags.DEFINE_list("compressions", ["40"], "Compressions to reach.")
flags.DEFINE_list("rules", None, "Names of the rules to measure. Defaults to all.")
flags.DEFINE_integer("dense_epochs", 6, "Epochs of the dense network.", lower_bound=1)
flags.DEFINE_integer("epochs", 12, "Epochs of each pruned network.", lower_bound=2)
flags.DEFINE_integer("images", 20000, "Training images.", lower_bound=1000)
flags.DEFINE_bool("table", False, "Print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/budgets.json", "File of the measurements.")


def rules(compression, epochs):
    """Returns budget and schedule of each run by name."""
    from keras_prune import budgets
    from keras_prune.rules.schedules import OneShot, default_schedule

    cubic = default_schedule(epochs)
    return {
        "common quality": (budgets.CommonQuality(compression), cubic),
        "global magnitude": (budgets.GlobalMagnitude(compression), cubic),
        "uniform": (budgets.Uniform(compression), cubic),
        "common quality, one cut": (budgets.CommonQuality(compression), OneShot()),
    }


def problem(network, seed):
    """Returns a compiled dense network, its training data `(x, y)`, and the held-out and test images (or `None`)."""
    import cifar10_training
    import keras
    import tensorflow_datasets as tfds

    from keras_prune import networks

    def load(name, split):
        data = tfds.as_numpy(tfds.load(name, split=split, batch_size=-1))
        return data["image"].astype("float32") / (255 if name == "mnist" else 1), data["label"]

    keras.utils.set_random_seed(seed)
    if network == "vgg":
        model = cifar10_training.vgg(16, cifar10_training.SETTINGS["vgg"])
        optimizer, name, test = keras.optimizers.SGD(0.05, momentum=0.9, nesterov=True), "cifar10", None
    else:
        model, optimizer, name = networks.lenet_5(l2=1.5e-5), keras.optimizers.Adam(1e-3), "mnist"
        test = load(name, "test")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss, metrics=["accuracy"])
    images, labels = load(name, "train")
    return model, (images[: FLAGS.images], labels[: FLAGS.images]), (images[-5000:], labels[-5000:]), test


def train(model, network, data, epochs, seed, callbacks=()):
    """Trains with a learning rate that falls to zero along a cosine."""
    import cifar10_training
    import keras

    keras.utils.set_random_seed(seed)
    peak = 0.05 if network == "vgg" else 1e-3
    if network == "vgg":
        data = (cifar10_training.augmented(*data, seed),)
    callbacks = [*callbacks, cifar10_training.cosine(peak, epochs)]
    model.fit(*data, batch_size=128 if network == "lenet_5" else None, epochs=epochs, verbose=2, callbacks=callbacks)


def error(model, data):
    """Returns the share of wrong answers in percent."""
    return 100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def measure(network, seed):
    """Trains the networks that are not in the JSON file yet."""
    import keras
    import measurements

    import keras_prune as kp

    measured = measurements.read(FLAGS.results)
    names = FLAGS.rules or list(rules(2, FLAGS.epochs))
    todo = [(float(compression), name) for name in names for compression in FLAGS.compressions]
    keys = {one: f"{network} {seed} {one[0]:g}x {one[1]}" for one in todo}
    if all(key in measured for key in keys.values()):
        return
    model, data, held_out, test = problem(network, seed)
    file = pathlib.Path(tempfile.gettempdir()) / f"budgets_{network}_{seed}_{FLAGS.dense_epochs}_{FLAGS.images}.keras"
    if not file.exists():
        train(model, network, data, FLAGS.dense_epochs, seed)
        model.save(file)
    for compression, name in todo:
        key = keys[compression, name]
        if key in measured:
            continue
        model = keras.models.load_model(file)
        dense = error(model, held_out)
        budget, schedule = rules(compression, FLAGS.epochs)[name]
        kp.prune(model, budget)
        begin = time.perf_counter()
        train(model, network, data, FLAGS.epochs, seed, [kp.PruningCallback(schedule)])
        measured = measurements.read(FLAGS.results)
        measured[key] = {
            "network": network,
            "seed": seed,
            "asked": compression,
            "rule": name,
            "compression": kp.report(model).compression,
            "dense_error": dense,
            "held_out_error": error(model, held_out),
            "test_error": None if test is None else error(model, test),
            "dense_epochs": FLAGS.dense_epochs,
            "epochs": FLAGS.epochs,
            "images": FLAGS.images,
            "seconds": time.perf_counter() - begin,
        }
        measurements.write(FLAGS.results, measured)


def table():
    """Returns the means over seeds as Markdown."""
    import measurements

    groups = {}
    for one in measurements.read(FLAGS.results).values():
        groups.setdefault((one["network"], one["asked"], one["rule"]), []).append(one)
    lines = ["| network | compression | rule | held-out error, % | test error, % |", "|---|---|---|---|---|"]
    for (network, compression, rule), runs in groups.items():
        cells = []
        for field in ("held_out_error", "test_error"):
            values = [run[field] for run in runs if run[field] is not None]
            each = ", ".join(f"{value:.2f}" for value in values)
            cells.append(f"{statistics.mean(values):.2f} ({each})" if values else "")
        lines.append(f"| {network} | {compression:g}x | {rule} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if FLAGS.network:
        for seed in map(int, FLAGS.seeds):
            measure(FLAGS.network, seed)
    if FLAGS.table:
        print(table())


if __name__ == "__main__":
    app.run(main)
