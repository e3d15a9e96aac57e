"""Measures the cost of pruning in training, as the time of a step, and the time and memory of one mask update.

    python experiments/overhead.py                                 # keras_prune, and tfmot if it is installed
    python experiments/overhead.py --networks=mlp_4096 --repeats=9
    python experiments/overhead.py --table                         # Markdown, from the measurements alone

Plain and pruned models take turns in one process, with an epoch of `fit` each. tensorflow-model-optimization (extra
`tfmot`) needs Keras 2. It runs in its own process, and is compared with the plain Keras 2 model.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import time

import measurements
import numpy as np
from absl import app, flags

NETWORKS = {  # Batch size, input shape, steps an epoch.
    "lenet_300_100": (128, (28, 28, 1), 100),
    "lenet_5": (128, (28, 28, 1), 20),
    "mlp_4096": (128, (4096,), 4),
    "mobilenet": (32, (128, 128, 3), 4),
}
FLAGS = flags.FLAGS
flags.DEFINE_list("networks", list(NETWORKS), "Networks whose training step is timed.")
flags.DEFINE_integer("repeats", 9, "Epochs of each model. The first is not counted.", lower_bound=2)
flags.DEFINE_enum("library", None, ["keras_prune", "tfmot"], "Library to measure in this process.")
flags.DEFINE_bool("jit_compile", False, "Whether TensorFlow compiles the step with XLA.")
flags.DEFINE_bool("steps", True, "Whether to time training steps.")
flags.DEFINE_bool("mask_update", True, "Whether to time one mask update of VGG-16.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")
flags.DEFINE_string("results", "docs/data/overhead.json", "File of the measurements.")


def build(keras, name):
    """Returns one of the networks in Keras 2 or 3."""
    layers = keras.layers
    if name == "lenet_300_100":
        return keras.Sequential(
            [
                layers.InputLayer((28, 28, 1)),
                layers.Flatten(),
                layers.Dense(300, "relu"),
                layers.Dense(100, "relu"),
                layers.Dense(10),
            ]
        )
    if name == "lenet_5":
        return keras.Sequential(
            [
                layers.InputLayer((28, 28, 1)),
                layers.Conv2D(20, 5),
                layers.MaxPooling2D(),
                layers.Conv2D(50, 5),
                layers.MaxPooling2D(),
                layers.Flatten(),
                layers.Dense(500, "relu"),
                layers.Dense(10),
            ]
        )
    if name == "mlp_4096":
        hidden = [layers.Dense(4096, "relu") for _ in range(3)]
        return keras.Sequential([layers.InputLayer((4096,)), *hidden, layers.Dense(10)])
    if name == "mobilenet":
        return keras.applications.MobileNet(
            (128, 128, 3), weights=None, classes=10, classifier_activation=None, dropout=0.0
        )
    return keras.applications.VGG16(weights=None, classifier_activation=None)


def pair(name):
    """Returns the plain and the pruned network of the measured library, and the callbacks of the latter."""
    if FLAGS.library == "keras_prune":
        import keras

        import keras_prune as kp

        plain = build(keras, name)
        pruned = kp.prune(build(keras, name), kp.StdThreshold(0.5))
        callbacks = [kp.PruningCallback(kp.OneShot(), verbose=0)]
    else:
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras

        plain = build(keras, name)
        schedule = tfmot.sparsity.keras.ConstantSparsity(0.4, begin_step=0, end_step=0, frequency=1)
        pruned = tfmot.sparsity.keras.prune_low_magnitude(plain, pruning_schedule=schedule)
        plain = build(keras, name)
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    for model in (plain, pruned):
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(), loss, jit_compile=FLAGS.jit_compile)
    return plain, pruned, callbacks


def time_steps(name):
    """Returns the milliseconds of a step in every epoch, for plain and pruned models in turns."""
    batch, shape, steps = NETWORKS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=(batch * steps, *shape)).astype("float32")
    y = random.integers(10, size=batch * steps)
    plain, pruned, callbacks = pair(name)
    fit = {"batch_size": batch, "epochs": 1, "shuffle": False, "verbose": 0}
    pruned.fit(x, y, callbacks=callbacks, **fit)  # The cut, and the compilation.
    times = {"plain": [], "pruned": []}
    for _ in range(FLAGS.repeats):
        for kind, model in (("plain", plain), ("pruned", pruned)):
            # Layers of tfmot cannot run without its callback. Layers of keras_prune keep their masks.
            own = callbacks if kind == "pruned" and FLAGS.library == "tfmot" else []
            started = time.perf_counter()
            model.fit(x, y, callbacks=own, **fit)
            times[kind].append(1e3 * (time.perf_counter() - started) / steps)
    return {kind: values[1:] for kind, values in times.items()}


def update_masks():
    """Returns seconds and peak extra bytes of one mask update of VGG-16, and the seconds of copying its weights."""
    plain, pruned, _ = pair("vgg16")
    del plain
    gc.collect()
    if FLAGS.library == "keras_prune":
        import keras_prune as kp

        weights = kp.layers.pruned_weights(pruned)
        kernels = [weight.variable for weight in weights]
        masks = sum(weight.size for weight in weights)

        def update(round):
            kp.cut(pruned, kp.Iterative(rounds=FLAGS.repeats)(round))

    else:
        layers = [layer for layer in pruned.layers if hasattr(layer, "pruning_obj")]
        kernels = [weight for layer in layers for weight, _, _ in layer.pruning_vars]
        masks = 4 * sum(int(np.prod(kernel.shape)) for kernel in kernels)  # float32

        def update(round):
            for layer in layers:
                layer.pruning_step.assign(0)
                layer.pruning_obj.conditional_mask_update()
                layer.pruning_obj.weight_mask_op()

    times = {"copy": [], "update": [], "extra_bytes": []}
    for round in range(FLAGS.repeats):
        started = time.perf_counter()
        copies = [np.array(kernel) for kernel in kernels]
        times["copy"].append(time.perf_counter() - started)
        del copies
        measurements.reset_high_water()
        before = measurements.memory("VmHWM")
        started = time.perf_counter()
        update(round)
        times["update"].append(time.perf_counter() - started)
        times["extra_bytes"].append(measurements.memory("VmHWM") - before)
    weights = sum(int(np.prod(kernel.shape)) for kernel in kernels)
    return {"weights": weights, "mask_bytes": masks, **{kind: values[1:] for kind, values in times.items()}}


def measure_apart(library):
    """Measures one library in its own process, and returns the measurements, or why there are none."""
    arguments = [argument for argument in sys.argv[1:] if not argument.startswith("--library")]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3", "TF_USE_LEGACY_KERAS": str(int(library == "tfmot"))}
    command = [sys.executable, __file__, *arguments, f"--library={library}"]
    process = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    if process.returncode:
        return {"absent": f"the process ended with status {process.returncode}"}
    return json.loads(process.stdout.splitlines()[-1])


def table(results):
    """Returns the Markdown tables."""
    lines = ["**Training steps**", ""]
    lines += ["| network | library | plain, ms a step | pruned, ms a step | pruned / plain |", "|---|---|---|---|---|"]
    for library, measured in results.items():
        for name, times in measured.get("steps", {}).items():
            ratios = sorted(b / a for a, b in zip(times["plain"], times["pruned"], strict=True))
            plain, pruned = (statistics.median(times[kind]) for kind in ("plain", "pruned"))
            spread = f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f})"
            lines.append(f"| {name} | {library} | {plain:.1f} | {pruned:.1f} | {spread} |")
    lines += ["", "**Mask update of VGG-16**", ""]
    lines += ["| library | copy, s | mask update, s | update / copy | extra bytes a weight, masks included |"]
    lines += ["|---|---|---|---|---|"]
    for library, measured in results.items():
        if "update" in measured:
            update = measured["update"]
            copy, seconds = (statistics.median(update[kind]) for kind in ("copy", "update"))
            extra = (max(update["extra_bytes"]) + update["mask_bytes"]) / update["weights"]
            lines.append(f"| {library} | {copy:.2f} | {seconds:.2f} | {seconds / copy:.1f} | {extra:.2f} |")
    lines += [f"{library}: {measured['absent']}" for library, measured in results.items() if "absent" in measured]
    return "\n".join(lines)


def main(_):
    if FLAGS.library:
        measured = {"steps": {name: time_steps(name) for name in FLAGS.networks}} if FLAGS.steps else {}
        if FLAGS.mask_update:
            measured["update"] = update_masks()
        print(json.dumps(measured))
        return
    if not FLAGS.table:
        measured = measurements.read(FLAGS.results)
        for library in ("keras_prune", "tfmot"):
            new = measure_apart(library)
            old = {key: value for key, value in measured.get(library, {}).items() if key != "absent"}
            measured[library] = {**old, **new, "steps": {**old.get("steps", {}), **new.get("steps", {})}}
        measurements.write(FLAGS.results, measured)
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
