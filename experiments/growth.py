"""Measures how seconds and memory of each operation grow with the weights and with the layers of a model.

    KERAS_BACKEND=jax python experiments/growth.py                  # everything that is not in the JSON file
    python experiments/growth.py --axes=layers --layers=800 --operation=save_sparse --again
    python experiments/growth.py --table                            # Markdown, from the JSON file alone

Along `weights`, a model has eight square dense layers, and along the other axes many of 64 x 64. Each size runs in its
own process (Linux). Keras rebuilds a Sequential model after each layer that its config adds. The layers are therefore
measured in both kinds of model, and the costs of the plain model are beside those of the pruned model.
"""

import ctypes
import gc
import importlib.metadata
import json
import os
import pathlib
import statistics
import tempfile
import time
import warnings

import measurements
import numpy as np
from absl import app, flags

AXES = ("weights", "layers", "functional")
TITLES = {
    "weights": "weights of a Sequential model of 8 layers",
    "layers": "layers of a Sequential model",
    "functional": "layers of a Functional model",
}
LARGE_LAYERS, SMALL_SIDE = 8, 64
UPPER, FLOOR = 3, 0.005  # An exponent is fitted to the largest sizes that take more than `FLOOR` seconds.
FLAGS = flags.FLAGS
flags.DEFINE_multi_enum("axes", AXES, AXES, "Axes: weights, or layers of a Sequential or Functional model.")
flags.DEFINE_list("weights", [m * 10**6 for m in (1, 3, 10, 30, 100, 300)], "Weights of the models of large layers.")
flags.DEFINE_list("layers", [50, 100, 200, 400, 800], "Layers of the models of small layers.")
flags.DEFINE_multi_string("operation", None, "Operations to measure, as in the tables. Defaults to all.")
flags.DEFINE_integer("repeats", 3, "Number of runs of each operation.", lower_bound=1)
flags.DEFINE_bool("again", False, "Whether to repeat measurements in the JSON file.")
flags.DEFINE_string("json", "docs/data/growth.json", "File of the measurements.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")
flags.DEFINE_string("one", None, "`axis/size` to measure in this process. The script starts these itself.")


class Subject:
    """One model of a size, and the operations on it.

    `operations` maps the name of an operation to a function that prepares it and returns the function to time.
    """

    def __init__(self, axis, size, folder):
        import keras_prune as kp

        self.kp, self.axis, self.folder = kp, axis, pathlib.Path(folder)
        self.layers = LARGE_LAYERS if axis == "weights" else size
        self.side = round((size / LARGE_LAYERS) ** 0.5) // 4 * 4 if axis == "weights" else SMALL_SIDE
        self.values = np.random.default_rng(0).normal(0, 0.1, (self.side, self.side)).astype("float32")
        self.model = self.build()
        budgets = {
            name: getattr(kp.budgets, name)(10)
            for name in ("GlobalMagnitude", "CommonQuality", "Uniform", "ErdosRenyiKernel")
        }
        cuts = {"StdThreshold": kp.StdThreshold(1.0), "TargetSparsity": kp.TargetSparsity(0.9), **budgets}
        self.operations = {
            "build (Keras)": lambda: self.build,
            "save .keras (Keras)": lambda: self.save(self.fresh(), "plain"),
            "load .keras (Keras)": lambda: self.load("plain"),
            "prune": self.prune,
            "prune, a pattern for each layer": lambda: self.prune(by_layer=True),
            **{f"cut, {name}": lambda rule=rule: self.cut(rule) for name, rule in cuts.items()},
            **{f"shares, {name}": lambda budget=budget: self.shares(budget) for name, budget in budgets.items()},
            "cut, StdThreshold, Adam": lambda: self.cut(kp.StdThreshold(1.0), self.adam()),
            "apply masks": lambda: self.on_sparse(lambda model: kp.cut(model, None)),
            "logs of all layers": lambda: self.on_sparse(self.logs),
            "report": lambda: self.on_sparse(kp.report),
            "deployment_plan": lambda: self.on_sparse(kp.deployment_plan),
            "save .keras": lambda: self.save(self.sparse(), "pruned"),
            "load .keras": lambda: self.load("pruned"),
            "save_sparse": lambda: self.on_sparse(lambda model: kp.save_sparse(model, self.folder / "sparse.kprune")),
            "load_sparse": self.load_sparse,
            "PruningBackup, one epoch": self.backup,
            "strip": lambda: self.on_sparse(kp.strip),
        }

    def build(self):
        import keras

        layers = [keras.layers.Dense(self.side, use_bias=False) for _ in range(self.layers)]
        inputs = keras.Input((self.side,))
        if self.axis != "functional":
            return keras.Sequential([inputs, *layers])
        outputs = inputs
        for layer in layers:
            outputs = layer(outputs)
        return keras.Model(inputs, outputs)

    def fresh(self):
        """Returns the plain model with distinct weights of a normal distribution."""
        self.kp.strip(self.model)
        for index, layer in enumerate(self.model.layers[-self.layers :]):
            layer.kernel.assign(self.values * np.float32(1 + index / self.layers))
        return self.model

    def sparse(self):
        """Returns the model with 90% of its connections pruned."""
        if not (weights := self.kp.layers.pruned_weights(self.model)) or sum(one.kept for one in weights) > 0.11 * sum(
            one.size for one in weights
        ):
            self.kp.cut(self.kp.prune(self.fresh(), self.kp.TargetSparsity(0.9)))
        return self.model

    def wait(self, result=None):
        """Waits for weights and masks that JAX still computes."""
        for weight in self.kp.layers.pruned_weights(self.model):
            for one in (weight.variable.value, weight.mask.value):
                getattr(one, "block_until_ready", lambda: None)()
        return result

    def prune(self, by_layer=False):
        model, rule = self.fresh(), self.kp.StdThreshold()
        rule = self.kp.deployment_plan(model).criteria(rule) if by_layer else rule
        return lambda: self.wait(self.kp.prune(model, rule))

    def cut(self, rule, optimizer=None):
        self.kp.prune(self.fresh(), rule)
        return lambda: self.wait(self.kp.cut(self.model, optimizer=optimizer))

    def shares(self, budget):
        from keras_prune.rules.chunks import on_host

        weights = self.kp.layers.pruned_weights(self.kp.prune(self.fresh(), budget))
        candidates = [
            self.kp.budgets.Candidate(on_host(one.variable.value), on_host(one.mask.value)) for one in weights
        ]
        return lambda: budget.shares(candidates)

    def adam(self):
        import keras

        optimizer = keras.optimizers.Adam()
        optimizer.build(self.model.trainable_variables)
        return optimizer

    def on_sparse(self, operation):
        self.sparse()
        return lambda: self.wait(operation(self.model))

    def logs(self, model):
        from keras_prune.analysis.measurements import measurements as measure_layers

        return measure_layers(model, log_layers=True)

    def save(self, model, name):
        return lambda: model.save(self.folder / f"{name}.keras")

    def load(self, name):
        import keras

        file = self.folder / f"{name}.keras"
        if not file.exists():
            (self.fresh() if name == "plain" else self.sparse()).save(file)
        return lambda: keras.saving.load_model(file)

    def load_sparse(self):
        file = self.folder / "sparse.kprune"
        if not file.exists():
            self.kp.save_sparse(self.sparse(), file)
        return lambda: self.kp.load_sparse(file)

    def backup(self):
        model = self.sparse()
        model.compile("adam", "mse")
        model.optimizer.build(model.trainable_variables)
        backup = self.kp.PruningBackup(self.folder / "backup")
        backup.set_model(model)
        backup.on_train_begin()
        return lambda: backup.on_epoch_end(0)


def measure(step):
    """Returns the seconds of a function without arguments, and the most bytes that it took in addition."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)  # Memory that earlier steps freed would hide the memory of this one.
    measurements.reset_high_water()
    before, started = measurements.memory("VmRSS"), time.perf_counter()
    result = step()
    seconds = time.perf_counter() - started
    extra = measurements.memory("VmHWM") - before
    del result  # Only now, since freeing memory is not part of the operation.
    return seconds, extra


def run(axis, size):
    """Returns seconds and bytes of each operation with a model of that size, and versions of libraries."""
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Most models are stripped before a cut.
        subject = Subject(axis, size, folder)
        measured = {}
        for name in FLAGS.operation or subject.operations:
            pairs = [measure(subject.operations[name]()) for _ in range(FLAGS.repeats)]
            seconds, extra = (list(one) for one in zip(*pairs, strict=True))
            measured[name] = {"seconds": seconds, "bytes": extra}
    import keras

    versions = {library: importlib.metadata.version(library) for library in ("keras", keras.backend.backend(), "numpy")}
    return {
        "weights": subject.layers * subject.side**2,
        "layers": subject.layers,
        "versions": versions,
        "cores": len(os.sched_getaffinity(0)),
        "operations": measured,
    }


def exponent(sizes, seconds):
    """Returns the slope of log(seconds) over log(size) at the upper end, or `None` if this is too fast to tell."""
    upper = [(size, took) for size, took in list(zip(sizes, seconds, strict=True))[-UPPER:] if took >= FLOOR]
    if len(upper) < 2:
        return None
    size, took = np.log(upper).T
    return float(np.polyfit(size, took, 1)[0])


def table(axis, results):
    """Returns one Markdown table: an operation in each line, a size in each column."""
    by_size = {int(size): measured for size, measured in sorted(results.items(), key=lambda item: int(item[0]))}
    units = ("ns a weight", "bytes a weight") if axis == "weights" else ("us a layer", "KiB a layer")
    scale, divisor = (1e9, 1) if axis == "weights" else (1e6, 1024)
    titles = [f"{size / 1e6:g}M, s" if size >= 1e6 else f"{size:,}, s" for size in by_size]
    lines = [f"| operation | {' | '.join(titles)} | exponent | {' | '.join(units)} |"]
    lines.append("|---" * (len(titles) + 4) + "|")
    sizes = {measured["weights" if axis == "weights" else "layers"]: measured for measured in by_size.values()}
    for name in {name: None for measured in sizes.values() for name in measured["operations"]}:
        found = {size: one["operations"][name] for size, one in sizes.items() if name in one["operations"]}
        medians = {size: statistics.median(one["seconds"]) for size, one in found.items()}
        slope, largest = exponent(list(medians), list(medians.values())), max(found)
        cells = [digits(medians[size]) if size in medians else "-" for size in sizes]
        cells += ["-" if slope is None else f"{slope:.2f}", digits(scale * medians[largest] / largest)]
        cells.append(digits(statistics.median(found[largest]["bytes"]) / divisor / largest))
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def digits(number):
    """Returns a number with at most three digits behind the first that counts."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def tables(results):
    """Returns all tables, each below its title."""
    return "\n\n".join(
        f"**{backend}, {TITLES[axis]}**\n\n{table(axis, results[backend][axis])}"
        for backend in sorted(results)
        for axis in AXES
        if axis in results[backend]
    )


def main(_):
    if FLAGS.one:
        axis, size = FLAGS.one.split("/")
        print(json.dumps(run(axis, int(size))))
        return
    results = measurements.read(FLAGS.json)
    backend = os.environ.get("KERAS_BACKEND", "tensorflow")
    for axis in [] if FLAGS.table else FLAGS.axes:
        sizes = results.setdefault(backend, {}).setdefault(axis, {})
        for size in FLAGS.weights if axis == "weights" else FLAGS.layers:
            present = sizes.get(str(size), {}).get("operations", {})
            if FLAGS.again or not present or not set(FLAGS.operation or ()) <= set(present):
                arguments = [f"--one={axis}/{size}", f"--repeats={FLAGS.repeats}"]
                arguments += [f"--operation={name}" for name in FLAGS.operation or ()]
                measured = measurements.run_apart(__file__, arguments)
                measured["operations"] = present | measured["operations"]
                sizes[str(size)] = measured
                print(backend, axis, size, "measured", flush=True)
                measurements.write(FLAGS.json, results)
    print(tables(results))


if __name__ == "__main__":
    app.run(main)
