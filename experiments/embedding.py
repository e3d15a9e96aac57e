"""Measures a step of training and a prediction of a large embedding, plain and pruned.

KERAS_BACKEND=jax python experiments/embedding.py
python experiments/embedding.py --table            # Markdown, from the measurements alone
"""

import platform
import statistics
import sys
import time

import measurements
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rows", 1_000_000, "Rows of the table.")
flags.DEFINE_integer("width", 64, "Numbers in a row.")
flags.DEFINE_integer("rounds", 7, "Rounds in which the models take turns. The first is not counted.", lower_bound=2)
flags.DEFINE_integer("steps", 3, "Steps, or predictions, in a round.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/embedding.json", "File of the measurements.")


def model(optimizer, pruned):
    """Returns a compiled model with an embedding, half of whose connections are pruned if `pruned`."""
    import keras

    import keras_prune as kp

    inputs = keras.Input((20,), dtype="int32")
    hidden = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(FLAGS.rows, FLAGS.width)(inputs))
    made = keras.Model(inputs, keras.layers.Dense(1)(hidden))
    if pruned:
        kp.cut(kp.prune(made, kp.TargetSparsity(0.5)))
    made.compile(optimizer, "mse")
    return made


def measure():
    """Saves medians in milliseconds, and the median, least and largest ratio of pruned to plain."""
    import keras

    rows = {}
    generator = np.random.default_rng(0)
    ids = generator.integers(0, FLAGS.rows, size=(128 * FLAGS.steps, 20))
    targets = np.zeros((len(ids), 1), "float32")
    print(f"{keras.backend.backend()}, Embedding({FLAGS.rows}, {FLAGS.width}), batch 128")
    for optimizer in ("sgd", "adam"):
        models = [model(optimizer, pruned) for pruned in (False, True)]
        tasks = {
            f"{optimizer} step": lambda one: one.fit(ids, targets, batch_size=128, verbose=0),
            f"{optimizer} predict": lambda one: one.predict(ids, batch_size=128, verbose=0),
        }
        for name, task in tasks.items():
            times = []
            for _ in range(FLAGS.rounds):
                times.append([])
                for one in models:
                    start = time.perf_counter()
                    task(one)
                    times[-1].append(1000 * (time.perf_counter() - start) / FLAGS.steps)
            plain, pruned = (statistics.median(column) for column in zip(*times[1:], strict=True))
            ratios = sorted(b / a for a, b in times[1:])
            row = {"plain_ms": plain, "pruned_ms": pruned, "ratio": statistics.median(ratios)}
            rows[name] = row | {"least_ratio": ratios[0], "largest_ratio": ratios[-1]}
            print(f"{name}: {plain:.1f} ms plain, {pruned:.1f} ms pruned, x{row['ratio']:.2f}", flush=True)
        del models, tasks
    measured = measurements.read(FLAGS.results)
    about = {"command": " ".join(["python", *sys.argv]), "keras": keras.__version__, "machine": platform.platform()}
    measured[keras.backend.backend()] = {**about, "rows": FLAGS.rows, "width": FLAGS.width, "medians": rows}
    measurements.write(FLAGS.results, measured)


def table(results):
    """Returns the Markdown table."""
    lines = ["| backend | task | plain, ms | pruned, ms | pruned / plain |", "|---|---|---|---|---|"]
    for backend, found in results.items():
        for task, row in found["medians"].items():
            ratio = f"{row['ratio']:.2f} ({row['least_ratio']:.2f} to {row['largest_ratio']:.2f})"
            lines.append(f"| {backend} | {task} | {row['plain_ms']:.1f} | {row['pruned_ms']:.1f} | {ratio} |")
    return "\n".join(lines)


def main(_):
    if not FLAGS.table:
        measure()
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
