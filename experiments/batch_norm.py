"""Measures the accuracy lost by batch-norm statistics after a one-shot cut, and regained by re-estimation.

    KERAS_BACKEND=jax python experiments/batch_norm.py
    python experiments/batch_norm.py --table

For each seed, a dense convolutional network is trained on CIFAR-10, and pruned once at each sparsity. It is trained for
another epoch with the old and with re-estimated statistics, from the same weights and with the same order of images.
Accuracy is measured on the last 5,000 training images, which are held out. Statistics are estimated on the images that
the network is trained on. Runs in the JSON file are not repeated.
"""

import os
import pathlib
import platform
import statistics
import tempfile
import time

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of initial weights and order of images.")
flags.DEFINE_list("sparsities", ["0.6", "0.8", "0.9"], "Sparsities of the whole network.")
flags.DEFINE_integer("dense_epochs", 8, "Epochs of the dense network.", lower_bound=1)
flags.DEFINE_integer("images", 20000, "Training images.", lower_bound=1000)
flags.DEFINE_bool("table", False, "Print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/batch_norm.json", "File of the measurements.")

BATCH_SIZE = 128
RETRAINING_RATE = 1e-3
COLUMNS = {
    "dense": "dense",
    "cut": "after the cut",
    "estimated": "statistics re-estimated",
    "cut_epoch": "cut, 1 epoch",
    "estimated_epoch": "re-estimated, 1 epoch",
    "epoch_estimated": "cut, 1 epoch, re-estimated",
}


def network():
    """Returns four convolutions, each with a batch normalization with default arguments, and a dense layer."""
    import keras
    from keras import layers

    blocks = []
    for filters in (16, 32, 64, 64):
        blocks += [
            layers.Conv2D(filters, 3, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
        blocks.append(layers.MaxPooling2D() if filters < 64 else layers.Dropout(0.1))
    return keras.Sequential(
        [keras.Input((32, 32, 3)), layers.Rescaling(1 / 63, -1.9), *blocks, layers.Flatten(), layers.Dense(10)]
    )


def images():
    """Returns the training data `(x, y)` and the held-out data."""
    import tensorflow_datasets as tfds

    data = tfds.as_numpy(tfds.load("cifar10", split="train", batch_size=-1))
    x, y = data["image"].astype("float32"), data["label"]
    return (x[: FLAGS.images], y[: FLAGS.images]), (x[-5000:], y[-5000:])


def train(model, data, seed, rate, epochs):
    """Trains with Adam, at a learning rate that falls to zero along a cosine."""
    import keras

    keras.utils.set_random_seed(seed)
    steps = epochs * -(-len(data[0]) // BATCH_SIZE)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(
        keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)), loss, metrics=["accuracy"]
    )
    model.fit(*data, batch_size=BATCH_SIZE, epochs=epochs, verbose=2)


def measure(seed):
    """Runs the measurements that are not in the JSON file yet."""
    import keras
    import measurements

    import keras_prune as kp

    todo = [float(one) for one in FLAGS.sparsities]
    todo = [one for one in todo if f"seed {seed}, {one:g}" not in measurements.read(FLAGS.results).get("runs", {})]
    if not todo:
        return
    data, held_out = images()
    file = pathlib.Path(tempfile.gettempdir()) / f"batch_norm_{seed}_{FLAGS.dense_epochs}_{FLAGS.images}.keras"
    if not file.exists():
        keras.utils.set_random_seed(seed)
        model = network()
        train(model, data, seed, 2e-3, FLAGS.dense_epochs)
        model.save(file)

    def accuracy(model):
        return 100 * model.evaluate(*held_out, batch_size=1000, verbose=0, return_dict=True)["accuracy"]

    for sparsity in todo:
        found = {"seed": seed, "asked": sparsity}
        for branch in ("cut", "estimated"):
            model = keras.models.load_model(file)
            found["dense"] = accuracy(model)
            kp.prune(model, sparsity)
            kp.cut(model)
            found["sparsity"] = kp.report(model).sparsity
            if branch == "estimated":
                begin = time.perf_counter()
                kp.reestimate_batch_norm(model, data[0])
                found["seconds"] = time.perf_counter() - begin
            found[branch] = accuracy(model)
            train(model, data, seed, RETRAINING_RATE, 1)
            found[f"{branch}_epoch"] = accuracy(model)
            if branch == "cut":
                kp.reestimate_batch_norm(model, data[0])
                found["epoch_estimated"] = accuracy(model)
        measured = measurements.read(FLAGS.results) or {"runs": {}}
        measured["command"] = f"KERAS_BACKEND={keras.backend.backend()} python experiments/batch_norm.py"
        measured["settings"] = {"images": FLAGS.images, "dense_epochs": FLAGS.dense_epochs, "batch_size": BATCH_SIZE}
        measured["machine"] = {
            "backend": f"{keras.backend.backend()}, Keras {keras.version()}",
            "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
        }
        measured["runs"][f"seed {seed}, {sparsity:g}"] = found
        measurements.write(FLAGS.results, measured)


def table():
    """Returns the means over seeds as Markdown."""
    import measurements

    groups = {}
    for one in measurements.read(FLAGS.results)["runs"].values():
        groups.setdefault(one["asked"], []).append(one)
    lines = [f"| sparsity | {' | '.join(COLUMNS.values())} |", "|---" * (1 + len(COLUMNS)) + "|"]
    for sparsity, runs in sorted(groups.items()):
        cells = [[run[field] for run in runs] for field in COLUMNS]
        cells = [f"{statistics.mean(one):.1f} ({', '.join(f'{value:.1f}' for value in one)})" for one in cells]
        lines.append(f"| {100 * sparsity:g}% | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if FLAGS.table:
        print(table())
        return
    for seed in map(int, FLAGS.seeds):
        measure(seed)


if __name__ == "__main__":
    app.run(main)
