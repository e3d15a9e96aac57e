"""Compare schedules at equal training, short and long: LeNet-300-100 (MNIST), the same share of the weights pruned.

    KERAS_BACKEND=jax python experiments/schedules.py
    KERAS_BACKEND=jax python experiments/schedules.py --optimizer=sgd --epochs=10
    python experiments/schedules.py --table

One dense network a seed is trained, then pruned and trained on from the same weights by each schedule. Nothing is tuned
for any of them. The last 5,000 training images are held out, and errors are measured on them alone. Runs that are in
the JSON file already are not repeated.
"""

import os
import pathlib
import platform
import tempfile
import time

import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("seeds", ["0", "1", "2"], "Seeds of initial weights and order of images.")
flags.DEFINE_list("compressions", ["12", "40"], "Compressions to reach.")
flags.DEFINE_list("epochs", ["5", "10", "30", "100"], "Epochs of the pruned networks.")
flags.DEFINE_integer("dense_epochs", 15, "Epochs of the dense network.", lower_bound=1)
flags.DEFINE_integer("images", 20000, "Training images.", lower_bound=1000)
flags.DEFINE_enum("optimizer", "adam", ["adam", "sgd"], "The optimizer of the pruned networks.")
flags.DEFINE_bool("table", False, "Print the table of what was measured.")
flags.DEFINE_string("results", "docs/data/schedules.json", "Where the measurements are kept.")

BATCH_SIZE = 1024
LEARNING_RATES = {"adam": 1e-3 * (BATCH_SIZE / 128) ** 0.5, "sgd": 0.1}
DENSE = "not pruned"


def schedules(epochs, steps):
    """Returns the schedules that fit into a run by name; `None` trains the dense network on."""
    from keras_prune import Iterative, OneShot, Polynomial

    last = round(epochs * 2 / 3)  # The last cut of the default schedule.
    found = {DENSE: None, "one cut": OneShot()}
    for rounds in (3, 5):
        length = last // (rounds - 1)
        start = last - length * (rounds - 1)
        if start < length:
            found[f"{rounds} rounds, to 2/3"] = Iterative(rounds, length, start, power=3)
    for name, share in {"1/2": 1 / 2, "2/3 (default)": 2 / 3, "9/10": 9 / 10}.items():
        found[f"cubic, to {name}"] = Polynomial(0, round(share * epochs))
    found["cubic, to 2/3, every 5 steps"] = Polynomial(0, round(epochs * steps * 2 / 3), frequency=5, unit="step")
    return found


def images():
    """Returns the training data `(x, y)` and the held-out data."""
    import tensorflow_datasets as tfds

    data = tfds.as_numpy(tfds.load("mnist", split="train", batch_size=-1))
    x, y = data["image"].astype("float32") / 255, data["label"]
    return (x[: FLAGS.images], y[: FLAGS.images]), (x[-5000:], y[-5000:])


def train(model, data, epochs, seed, optimizer="adam", callbacks=()):
    """Trains with a learning rate that falls to zero along a cosine."""
    import keras

    keras.utils.set_random_seed(seed)
    rate = keras.optimizers.schedules.CosineDecay(LEARNING_RATES[optimizer], epochs * steps_of(data))
    made = keras.optimizers.Adam(rate) if optimizer == "adam" else keras.optimizers.SGD(rate, momentum=0.9)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(made, loss, metrics=["accuracy"])
    model.fit(*data, batch_size=BATCH_SIZE, epochs=epochs, verbose=0, callbacks=[*callbacks])


def steps_of(data):
    """Returns the steps of an epoch."""
    return -(-len(data[0]) // BATCH_SIZE)


def measure(seed):
    """Measures what is not in the JSON file yet."""
    import keras
    import measurements

    import keras_prune as kp
    from keras_prune import networks

    data, held_out = images()
    file = pathlib.Path(tempfile.gettempdir()) / f"schedules_{seed}_{FLAGS.dense_epochs}_{FLAGS.images}.keras"
    if not file.exists():
        keras.utils.set_random_seed(seed)
        model = networks.lenet_300_100()
        train(model, data, FLAGS.dense_epochs, seed)
        model.save(file)

    def error(model):
        return 100 * (1 - model.evaluate(*held_out, batch_size=5000, verbose=0, return_dict=True)["accuracy"])

    for epochs in map(int, FLAGS.epochs):
        for name, schedule in schedules(epochs, steps_of(data)).items():
            for compression in [1.0] if schedule is None else map(float, FLAGS.compressions):
                measured = measurements.read(FLAGS.results) or {"runs": {}}
                key = f"{FLAGS.optimizer}, seed {seed}, {epochs} epochs, {compression:g}x, {name}"
                if key in measured["runs"]:
                    continue
                model = keras.models.load_model(file)
                found = {"optimizer": FLAGS.optimizer, "seed": seed, "epochs": epochs, "asked": compression}
                found |= {"schedule": name, "dense": error(model)}
                begin = time.perf_counter()
                if schedule is not None:
                    kp.prune(model, kp.budgets.GlobalMagnitude(compression))
                callbacks = [kp.PruningCallback(schedule, verbose=0)] if schedule else []
                train(model, data, epochs, seed, FLAGS.optimizer, callbacks)
                found["seconds"] = time.perf_counter() - begin
                found |= {"compression": kp.report(model).compression, "error": error(model)}
                measured["command"] = f"KERAS_BACKEND={keras.backend.backend()} python experiments/schedules.py"
                measured["settings"] = {
                    "images": FLAGS.images,
                    "dense_epochs": FLAGS.dense_epochs,
                    "batch_size": BATCH_SIZE,
                    "learning_rates": LEARNING_RATES,
                }
                measured["machine"] = {
                    "backend": f"{keras.backend.backend()}, Keras {keras.version()}",
                    "cpu": f"{os.cpu_count()} cores, {platform.machine()}",
                }
                measured["runs"][key] = found
                measurements.write(FLAGS.results, measured)
                print(f"{key}: {found['error']:.2f}%, {found['seconds']:.0f} s", flush=True)


def noise(errors):
    """Returns the standard error of a difference between two means over seeds, from what schedules and seeds leave.

    Args:
        errors: Array of a row for each schedule and a column for each seed.
    """
    schedules, seeds = errors.shape
    rest = errors - errors.mean(0) - errors.mean(1, keepdims=True) + errors.mean()
    return (2 / seeds * (rest**2).sum() / ((schedules - 1) * (seeds - 1))) ** 0.5


def spread(errors):
    """Returns the mean and standard deviation over seeds as text; the error alone if there is one seed."""
    if not errors:
        return ""
    return f"{np.mean(errors):.2f}" + (f" ± {np.std(errors, ddof=1):.2f}" if len(errors) > 1 else "")


def table():
    """Returns the errors in percent as Markdown, one column for each compression and length."""
    import measurements

    cells = {}
    for one in measurements.read(FLAGS.results)["runs"].values():
        column = one["optimizer"], one["asked"], one["epochs"]
        cells.setdefault(column, {}).setdefault(one["schedule"], []).append(one["error"])
    columns = sorted(column for column in cells if column[1] > 1)
    dense = [cells[optimizer, 1.0, epochs][DENSE] for optimizer, _, epochs in columns]
    names = dict.fromkeys(name for column in columns for name in cells[column])
    rows = {name: [spread(cells[column].get(name)) for column in columns] for name in names}
    rows[DENSE] = map(spread, dense)
    rows["standard error of a difference"] = [
        f"{noise(np.array([*cells[column].values()])):.2f}" if len(of_dense) > 1 else ""
        for column, of_dense in zip(columns, dense, strict=True)
    ]
    rows["seeds"] = [f"{len(one)}" for one in dense]
    names = {"adam": "Adam", "sgd": "SGD"}
    heading = " | ".join(f"{names[one]}, {compression:g}x, {epochs} epochs" for one, compression, epochs in columns)
    lines = [f"| error, % | {heading} |", "|---" * (1 + len(columns)) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(row)} |" for name, row in rows.items())])


def main(_):
    if FLAGS.table:
        print(table())
        return
    for seed in map(int, FLAGS.seeds):
        measure(seed)


if __name__ == "__main__":
    app.run(main)
