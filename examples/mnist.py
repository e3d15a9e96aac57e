"""Prunes the paper's LeNet-300-100 on MNIST to 13x in a minute, and reports its error and size.

    python examples/mnist.py --seed=0
    python examples/mnist.py --block_size=4,1 --compression=10      # for LiteRT: docs/guides/patterns.md

Trains the dense network for a few epochs. Then prunes the smallest connections of the network at the start of each
epoch, except in the last third of the epochs. The defaults were chosen on the last 5,000 training images, which are
held out here too. The test set is read once, at the end. Writes `report.json`, `report.html`, `history.csv` and
`model.keras` to the output directory. `--reference` also trains a dense network for the same number of epochs. The
paper's rule, its rounds and its tables are in `examples/paper.py`.
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

HELD_OUT = 5_000

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "lenet_300_100", ["lenet_300_100", "lenet_5"], "Network of the paper to prune.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_float("compression", 13.0, "All connections over those left at the end.", lower_bound=1)
flags.DEFINE_list("block_size", None, "Prune blocks of inputs,outputs, such as 4,1 for LiteRT's sparse kernel.")
flags.DEFINE_integer("dense_epochs", 6, "Epochs of training before the first cut.", lower_bound=1)
flags.DEFINE_integer("epochs", 30, "Epochs of training from the first cut on.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1024, "Images per training step.", lower_bound=1)
flags.DEFINE_float("learning_rate", 4e-3, "Learning rate at the start. It falls to zero along a cosine.")
flags.DEFINE_float("l2", 1.5e-5, "Factor of the sum of squares of the weights in the loss.", lower_bound=0)
flags.DEFINE_integer("seed", 0, "Seed of initial weights, order of images and dropout.")
flags.DEFINE_bool("reference", False, "Also train a dense network for the same number of epochs.")
flags.DEFINE_string("output_dir", "output/mnist", "Folder for the results.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def build():
    """Returns a dense network."""
    if FLAGS.network == "lenet_5":
        return kp.networks.lenet_5(dropout=0.3, l2=FLAGS.l2)
    return kp.networks.lenet_300_100(dropout=(0.3, 0.15), l2=FLAGS.l2)


def train(model, data, held_out, epochs, callbacks=()):
    """Trains with Adam and a learning rate that falls to zero along a cosine, and returns the history of `fit`."""
    steps = epochs * math.ceil(len(data[0]) / FLAGS.batch_size)
    is_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, steps)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On a CPU, TensorFlow spends most of the time between the steps of such a small network. XLA is slower still.
        steps_per_execution=50 if is_tensorflow else 1,
        jit_compile=False if is_tensorflow else "auto",
    )
    return model.fit(
        *data,
        batch_size=FLAGS.batch_size,
        epochs=epochs,
        verbose=2,
        validation_data=held_out,
        validation_batch_size=1000,
        callbacks=[*callbacks],
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

    model = build()
    train(model, data, held_out, FLAGS.dense_epochs)
    pattern = kp.Blocks(tuple(map(int, FLAGS.block_size))) if FLAGS.block_size else None
    kp.prune(model, kp.budgets.GlobalMagnitude(FLAGS.compression, pattern))
    log = keras.callbacks.CSVLogger(output_dir / "history.csv")
    history = train(model, data, held_out, FLAGS.epochs, [kp.PruningCallback(), log])

    test = load("test")
    report = kp.report(model, held_out[0])
    summary = {
        "network": FLAGS.network,
        "seed": FLAGS.seed,
        "epochs": [FLAGS.dense_epochs, FLAGS.epochs],
        "held_out_error": error(model, held_out),
        "test_error": error(model, test),
        **report.to_dict(),
        "seconds": time.time() - started,
    }
    report.save(output_dir / "report.html", history)
    kp.strip(model).save(output_dir / "model.keras")
    print(report)
    print(f"test error {summary['test_error']:.2f}%, in {summary['seconds']:.0f} s; results in {output_dir}")

    if FLAGS.reference:
        keras.utils.set_random_seed(FLAGS.seed)
        reference = build()
        train(reference, data, held_out, FLAGS.dense_epochs + FLAGS.epochs)
        summary |= {"reference_held_out_error": error(reference, held_out), "reference_error": error(reference, test)}
        print(f"test error of a dense network trained for as many epochs: {summary['reference_error']:.2f}%")
    (output_dir / "report.json").write_text(json.dumps(summary, indent=1) + "\n")


if __name__ == "__main__":
    app.run(main)
