"""Prunes the paper's LeNet-300-100 on MNIST and writes what became of its error and its size.

    python examples/mnist.py --network=lenet_300_100 --seed=0 --output_dir=output/mnist
    python examples/mnist.py --block_size=4,1 --quality=0.9         # for LiteRT's sparse kernel: docs/patterns.md

Trains the dense network, then cuts below `quality` times the standard deviation of each layer in rounds and retrains
after each, all inside one `model.fit`. What the flags' defaults say was chosen on the last 5,000 training images,
which are held out here too; the test set is read once, at the end. Writes `report.json`, `report.txt`, `history.csv`,
`mask.png` and `model.keras` to the output directory.
"""

import json
import math
import pathlib
import time

import _quiet  # noqa: F401
import keras
import tensorflow_datasets as tfds
from absl import app, flags

import keras_prune as kp
from keras_prune import networks, plots

HELD_OUT = 5_000
LEARNING_RATE = 1e-3

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "lenet_300_100", ["lenet_300_100", "lenet_5"], "Which of the paper's networks to prune.")
flags.DEFINE_string("data_dir", None, "TensorFlow Datasets directory; its own default (TFDS_DATA_DIR) if not given.")
flags.DEFINE_float("quality", 1.0, "Quality parameter of the last round: threshold = quality x standard deviation.")
flags.DEFINE_list("block_size", None, "Cut whole blocks of inputs,outputs, such as 4,1 for LiteRT's sparse kernel.")
flags.DEFINE_integer("rounds", 4, "How often to cut and retrain.", lower_bound=1)
flags.DEFINE_integer("epochs", 15, "Epochs of training after each cut.", lower_bound=1)
flags.DEFINE_integer("dense_epochs", 30, "Epochs of training before the first cut.", lower_bound=1)
flags.DEFINE_integer("batch_size", 128, "Images per training step.", lower_bound=1)
flags.DEFINE_float("l2", 1.5e-5, "Factor of the sum of squares of the weights in the loss.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Seed of initial weights, order of images and dropout.")
flags.DEFINE_string("output_dir", "output/mnist", "Where the results go.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def build():
    """Returns the dense network."""
    if FLAGS.network == "lenet_5":
        return networks.lenet_5(dropout=0.3, l2=FLAGS.l2)
    return networks.lenet_300_100(dropout=(0.3, 0.15), l2=FLAGS.l2)


def train(model, data, held_out, rounds, epochs, callbacks=()):
    """Trains with Adam; in each round the learning rate falls to zero along a cosine."""

    def learning_rate(epoch):
        return LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * (epoch % epochs) / epochs))

    model.compile(
        keras.optimizers.Adam(),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On a CPU, a network of this size loses more time between its steps than in them, and gains nothing by XLA.
        steps_per_execution=10 if keras.backend.backend() == "tensorflow" else 1,
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )
    model.fit(
        *data,
        batch_size=FLAGS.batch_size,
        epochs=rounds * epochs,
        verbose=2,
        validation_data=held_out,
        callbacks=[*callbacks, keras.callbacks.LearningRateScheduler(learning_rate)],
    )


def error(model, data):
    """Returns the share of wrong answers in percent."""
    return 100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def main(_):
    started = time.time()
    keras.utils.set_random_seed(FLAGS.seed)
    output_dir = pathlib.Path(FLAGS.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    images, labels = load("train")
    data = images[:-HELD_OUT], labels[:-HELD_OUT]
    held_out = images[-HELD_OUT:], labels[-HELD_OUT:]

    dense = build()
    train(dense, data, held_out, 1, FLAGS.dense_epochs)

    pattern = kp.Blocks(tuple(map(int, FLAGS.block_size))) if FLAGS.block_size else None
    criterion = kp.StdThreshold(FLAGS.quality, pattern)
    pruned = build()  # `prune` changes a model in place. The dense one is compared at the end.
    pruned.set_weights(dense.get_weights())
    kp.prune(pruned, criterion)
    prune_in_rounds = kp.PruningCallback(kp.Iterative(FLAGS.rounds, FLAGS.epochs))
    log = keras.callbacks.CSVLogger(output_dir / "history.csv")
    train(pruned, data, held_out, FLAGS.rounds, FLAGS.epochs, [prune_in_rounds, log])

    test = load("test")
    report = kp.report(pruned, held_out[0])
    summary = {
        "network": FLAGS.network,
        "seed": FLAGS.seed,
        "criterion": repr(criterion),
        "dense_error": error(dense, test),
        "pruned_error": error(pruned, test),
        "held_out_dense_error": error(dense, held_out),
        "held_out_pruned_error": error(pruned, held_out),
        "compression": report.compression,
        "layers": [{"name": row.name, "weights": row.weights, "kept": row.kept} for row in report.rows],
        "seconds": time.time() - started,
    }
    plots.mask(pruned.get_layer("fc1")).figure.savefig(output_dir / "mask.png")
    kp.strip(pruned).save(output_dir / "model.keras")
    (output_dir / "report.txt").write_text(f"{report}\n", encoding="utf-8")
    (output_dir / "report.json").write_text(json.dumps(summary, indent=2))
    print(report)
    print(
        f"test error: dense {summary['dense_error']:.2f} %, pruned {summary['pruned_error']:.2f} % at "
        f"{report.compression:.1f}x, in {summary['seconds']:.0f} s; results in {output_dir}"
    )


if __name__ == "__main__":
    app.run(main)
