"""Measures the time that pruning adds to a training step without a cut, for networks of small layers.

    python experiments/step_overhead.py                            # with the backend of KERAS_BACKEND
    python experiments/step_overhead.py --table                    # Markdown, from the measurements alone

The kinds of training take turns, with an epoch of `fit` each. An empty callback shows the cost of calling one.
"""

import os
import statistics
import time

import measurements
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 15, "Epochs of each kind.", lower_bound=1)
flags.DEFINE_integer("steps", 100, "Steps of an epoch.", lower_bound=1)
flags.DEFINE_list("layers", ["2", "50"], "Numbers of layers of the networks.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/step_overhead.json", "File of the measurements.")
KINDS = {
    "plain": "plain",
    "plain, empty callback": "plain",
    "pruned": "pruned",
    "pruned, by epoch": "pruned",
    "pruned, by step": "pruned",
}
UNITS, BATCH = 32, 32


def times(layers):
    """Returns the microseconds of a step in every round, by kind."""
    import keras

    import keras_prune as kp

    class Empty(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            pass

    def model():
        dense = [keras.layers.Dense(UNITS, "relu") for _ in range(layers)]
        return keras.Sequential([keras.Input((UNITS,)), *dense])

    x = np.random.default_rng(0).normal(size=(BATCH * FLAGS.steps, UNITS)).astype("float32")
    far = 10**6  # The first cut. The next one never comes.

    def callbacks(kind):
        if kind == "plain, empty callback":
            return [Empty()]
        unit = kind.rpartition(" ")[2]
        return [kp.PruningCallback(kp.Polynomial(0, far, far, unit=unit), verbose=0)] if "by" in kind else []

    models = {kind: model() if name == "plain" else kp.prune(model(), 0.5) for kind, name in KINDS.items()}
    found = {kind: [] for kind in KINDS}
    for one in models.values():
        one.compile("adam", "mse")
    clock = [0.0, 0.0]
    # Timing starts after the work of other callbacks at the start of an epoch, and ends before that at its end.
    start = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: clock.__setitem__(0, time.perf_counter()))
    end = keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: clock.__setitem__(1, time.perf_counter()))
    for _ in range(FLAGS.rounds + 1):
        for kind, one in models.items():
            one.fit(x, x, BATCH, shuffle=False, verbose=0, callbacks=[end, *callbacks(kind), start])
            found[kind].append(1e6 * (clock[1] - clock[0]) / FLAGS.steps)
    return {kind: values[1:] for kind, values in found.items()}  # The first one compiles.


def table(results):
    """Returns the Markdown table: medians, and the median of the ratios of each round."""
    lines = ["| backend | layers | training | us a step | over the same without a callback |", "|---|---|---|---|---|"]
    for backend, networks in results.items():
        for layers, found in networks.items():
            for kind, values in found.items():
                ratio = statistics.median(a / b for a, b in zip(values, found[KINDS[kind]], strict=True))
                lines.append(f"| {backend} | {layers} | {kind} | {statistics.median(values):.0f} | {ratio:.3f} |")
    return "\n".join(lines)


def main(_):
    if not FLAGS.table:
        backend = os.environ.get("KERAS_BACKEND", "tensorflow")
        measured = measurements.read(FLAGS.results)
        measured[backend] = {layers: times(int(layers)) for layers in FLAGS.layers}
        measurements.write(FLAGS.results, measured)
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
