"""Repeats the paper's MNIST experiments and writes its tables and figures with ours beside them.

    python examples/paper.py --network=lenet_300_100 --seeds=0,1,2,3,4     # trains; a stopped run continues
    python examples/paper.py --table=1                                     # tables and figures from the results

Training keeps every round of every seed in `--output_dir`, and one JSON file for each seed in `--results_dir`. Tables
(Markdown) and figures (PNG) are drawn from those files alone. The last 5,000 training images are held out for every
choice; the test set is read once, when all rounds of a seed are done.
"""

import json
import math
import pathlib
import time

import keras
import tensorflow_datasets as tfds
from absl import app, flags

import keras_prune as kp
from keras_prune import networks

HELD_OUT = 5_000
LEARNING_RATE = 1e-3
BATCH_SIZE = 128
# Chosen on the held-out images with seed 0: each round keeps 55 to 65 % of what the round before left.
SETTINGS = {
    "lenet_300_100": {
        "build": lambda l2: networks.lenet_300_100(dropout=(0.3, 0.15), l2=l2),
        "dense_epochs": 50,
        "epochs": 30,
        "compressions": [1.5, 2.4, 3.6, 5.6, 8.6, 13, 20, 31, 42, 56],
    },
    "lenet_5": {
        "build": lambda l2: networks.lenet_5(dropout=0.3, l2=l2),
        "dense_epochs": 12,
        "epochs": 8,
        "compressions": [2.2, 5, 12.5, 25, 40, 64],
    },
}

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", None, list(SETTINGS), "Train this network for every seed.")
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of initial weights, order of images and dropout.")
flags.DEFINE_string("data_dir", None, "TensorFlow Datasets directory; its own default (TFDS_DATA_DIR) if not given.")
flags.DEFINE_float("l2", 1.5e-5, "Factor of the sum of squares of the weights in the loss.", lower_bound=0)
flags.DEFINE_string("output_dir", "output/paper", "Where the rounds of every seed are kept.")
flags.DEFINE_string("results_dir", "docs/results", "Where the measurements are kept.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def compile(model):
    """Compiles with Adam and the cross-entropy of the logits."""
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # XLA makes networks of this size slower on a CPU.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )


def cosine(epochs):
    """Returns a callback that lets the learning rate fall to zero along a cosine."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    )


def error(model, data):
    """Returns the share of wrong answers in percent."""
    return 100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def train(network, seed, directory):
    """Trains the dense network, prunes it round by round, and returns the measurements of every round."""
    settings = SETTINGS[network]
    images, labels = load("train")
    data = images[:-HELD_OUT], labels[:-HELD_OUT]
    held_out = images[-HELD_OUT:], labels[-HELD_OUT:]
    fit = {"x": data[0], "y": data[1], "batch_size": BATCH_SIZE, "validation_data": held_out}

    directory.mkdir(parents=True, exist_ok=True)
    if not (directory / "dense.keras").exists():
        keras.utils.set_random_seed(seed)
        model = settings["build"](FLAGS.l2)
        compile(model)
        epochs = settings["dense_epochs"]
        model.fit(**fit, epochs=epochs, verbose=2, callbacks=[cosine(epochs)])
        model.save(directory / "partial.keras")
        (directory / "partial.keras").rename(directory / "dense.keras")
    model = keras.models.load_model(directory / "dense.keras", compile=False)
    compile(model)
    epochs = settings["epochs"]
    _, rounds = kp.iterative_prune(
        model,
        settings["compressions"],
        max_drop=0.02,  # The whole curve is wanted, also beyond the point where accuracy is lost.
        learning_rate_fraction=1.0,
        directory=directory,
        seed=1000 * (seed + 1),
        epochs=epochs,
        callbacks=[cosine(epochs)],
        **fit,
    )
    test = load("test")
    measurements = []
    for index, one in enumerate(rounds):
        model = keras.models.load_model(directory / f"round_{index:02d}.keras")
        report = kp.report(model, held_out[0])
        measurements.append(
            {
                "compression": report.compression,
                "quality": one.quality,
                "held_out_error": error(model, held_out),
                "test_error": error(model, test),
                "activation": report.activation,
                "flop_density": report.flop_density,
                "layers": [row._asdict() for row in report.rows],
                "seconds": one.seconds,
            }
        )
    return measurements


def main(_):
    results_dir = pathlib.Path(FLAGS.results_dir)
    if FLAGS.network:
        for seed in map(int, FLAGS.seeds):
            file = results_dir / f"{FLAGS.network}_seed_{seed}.json"
            if not file.exists():
                started = time.time()
                rounds = train(FLAGS.network, seed, pathlib.Path(FLAGS.output_dir) / FLAGS.network / f"seed_{seed}")
                results_dir.mkdir(parents=True, exist_ok=True)
                file.write_text(json.dumps({"network": FLAGS.network, "seed": seed, "rounds": rounds}, indent=1))
                print(f"{file}: {time.time() - started:.0f} s", flush=True)


if __name__ == "__main__":
    app.run(main)
