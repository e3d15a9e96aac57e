"""Measures the cost of pruning in place for `prune` and `strip` of VGG-16, training steps, and embeddings.

    KERAS_BACKEND=jax python experiments/in_place.py          # adds to docs/data/in_place.json
    python experiments/in_place.py --table                    # Markdown, from the measurements alone

Plain and pruned models take turns in one process, with an epoch of `fit` each. The first two of 17 turns are not
counted. Ratios are computed within a turn. The interval of their median is from order statistics (about 95%).
"""

import gc
import math
import os
import time

import measurements
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 17, "Turns of each model. The first two are not counted.", lower_bound=3)
flags.DEFINE_bool("vgg", True, "Whether to prune and strip VGG-16.")
flags.DEFINE_list("models", ["mlp", "convolutions", "lstm", "small_layers"], "Models whose step is timed.")
flags.DEFINE_list("embeddings", ["10000", "100000", "1000000"], "Numbers of rows of embeddings whose step is timed.")
flags.DEFINE_string("results", "docs/data/in_place.json", "File of the measurements.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")
RANDOM = np.random.default_rng(0)


def build(keras, name):
    """Returns a model, its inputs and targets, and the batch size."""
    layers = keras.layers
    if name == "mlp":
        hidden = [layers.Dense(300, "relu"), layers.Dense(100, "relu"), layers.Dense(10)]
        return keras.Sequential([keras.Input((784,)), *hidden]), RANDOM.normal(size=(2000, 784)), (2000, 10), 100
    if name == "convolutions":
        hidden = [
            layers.Conv2D(16, 3, activation="relu"),
            layers.MaxPooling2D(),
            layers.Conv2D(32, 3),
            layers.Flatten(),
        ]
        model = keras.Sequential([keras.Input((28, 28, 1)), *hidden, layers.Dense(10)])
        return model, RANDOM.normal(size=(640, 28, 28, 1)), (640, 10), 64
    if name == "lstm":
        hidden = [layers.LSTM(64, return_sequences=True), layers.LSTM(64), layers.Dense(10)]
        return keras.Sequential([keras.Input((40, 16)), *hidden]), RANDOM.normal(size=(320, 40, 16)), (320, 10), 32
    if name == "small_layers":  # For the cost of a layer besides the arithmetic.
        hidden = [layers.Dense(16, "relu") for _ in range(20)]
        return keras.Sequential([keras.Input((16,)), *hidden]), RANDOM.normal(size=(640, 16)), (640, 16), 32
    rows = int(name)
    model = keras.Sequential([keras.Input((16,), dtype="int32"), layers.Embedding(rows, 16), layers.Flatten()])
    return model, RANDOM.integers(rows, size=(320, 16)), (320, 256), 32


def time_step(keras, kp, name):
    """Returns the milliseconds of a step, and the ratio of the pruned model with the interval of its median."""
    models = []
    for is_pruned in (False, True):
        keras.utils.set_random_seed(0)
        model, x, shape, batch = build(keras, name)
        if is_pruned:
            kp.prune(model, kp.TargetSparsity(0.9))
            kp.cut(model)
        model.compile("sgd" if name.isdigit() else "adam", "mse")
        models.append(model)
    x, y, steps = x.astype("int32" if name.isdigit() else "float32"), np.zeros(shape, "float32"), len(x) // batch
    times = np.zeros((FLAGS.rounds, 2))
    for number in range(FLAGS.rounds):
        for which, model in enumerate(models):
            started = time.perf_counter()
            model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
            times[number, which] = 1e3 * (time.perf_counter() - started) / steps
    times = times[2:]
    ratios = np.sort(times[:, 1] / times[:, 0])
    rank = max(0, math.floor((len(ratios) - 1.96 * math.sqrt(len(ratios))) / 2))
    layers = len(kp.layers.pruned_weights(models[1]))
    return {
        "plain_ms": float(np.median(times[:, 0])),
        "pruned_ms": float(np.median(times[:, 1])),
        "ratio": [float(np.median(ratios)), float(ratios[rank]), float(ratios[-1 - rank])],
        "us_a_layer": float(np.median(times[:, 1] - times[:, 0])) * 1e3 / layers,
    }


def time_vgg(keras, kp):
    """Returns the seconds of `prune` and `strip`, and the most bytes a weight that `prune` takes."""
    found = {"prune": [], "prune_without_scan": [], "strip": [], "bytes_a_weight": []}
    model = keras.applications.VGG16(weights=None)
    size = sum(math.prod(weight.shape) for weight in model.weights)
    for _ in range(5):
        for name, keep_zeros in (("prune", True), ("prune_without_scan", False)):
            gc.collect()
            measurements.reset_high_water()
            before = measurements.memory("VmHWM")
            started = time.perf_counter()
            kp.prune(model, keep_zeros=keep_zeros)
            found[name].append(time.perf_counter() - started)
            found["bytes_a_weight"].append((measurements.memory("VmHWM") - before) / size)
            started = time.perf_counter()
            kp.strip(model)
            found["strip"].append(time.perf_counter() - started)
    # Later rounds may reuse the memory of earlier ones.
    most = max(found.pop("bytes_a_weight"))
    return {name: float(np.median(values)) for name, values in found.items()} | {"bytes_a_weight": most}


def measure():
    """Measures on the backend of Keras, and adds the measurements to the results."""
    import keras

    import keras_prune as kp

    results = measurements.read(FLAGS.results)
    found = results.setdefault(keras.backend.backend(), {"steps": {}})
    found["cores"], found["keras"] = os.cpu_count(), keras.__version__
    for name in [*FLAGS.models, *FLAGS.embeddings]:
        found["steps"][name] = time_step(keras, kp, name)
        print(name, found["steps"][name], flush=True)
    if FLAGS.vgg:
        found["vgg"] = time_vgg(keras, kp)
        print(found["vgg"], flush=True)
    measurements.write(FLAGS.results, results)


def table(results):
    """Returns the Markdown tables."""
    lines = ["**Training steps**", ""]
    lines += ["| model | backend | plain, ms a step | pruned / plain | us a pruned weight |", "|---|---|---|---|---|"]
    names = list(dict.fromkeys(name for found in results.values() for name in found["steps"]))
    for name in names:
        for backend, found in results.items():
            row = found["steps"].get(name)
            if row:
                median, low, high = row["ratio"]
                label = f"embedding, {int(name):,} rows" if name.isdigit() else name.replace("_", " ")
                ratio = f"{median:.2f} ({low:.2f} to {high:.2f})"
                lines.append(f"| {label} | {backend} | {row['plain_ms']:.2f} | {ratio} | {row['us_a_layer']:.0f} |")
    lines += ["", "**VGG-16**", ""]
    lines += ["| VGG-16 | `prune`, s | without the scan for zeros, s | `strip`, s | bytes a weight |"]
    lines += ["|---|---|---|---|---|"]
    for backend, found in results.items():
        if "vgg" in found:
            vgg = found["vgg"]
            cells = [f"{vgg[name]:.2f}" for name in ("prune", "prune_without_scan", "strip", "bytes_a_weight")]
            lines.append(f"| {backend} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if not FLAGS.table:
        measure()
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
