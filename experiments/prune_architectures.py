"""Prunes, trains, saves, loads and strips the 40 architectures of keras.applications, and compares their outputs.

    KERAS_BACKEND=torch python experiments/prune_architectures.py  # all of them; continues if stopped
    python experiments/prune_architectures.py --names=MobileNetV2,VGG16
    python experiments/prune_architectures.py --table              # Markdown, from the measurements

Each runs in its own process, whose memory is freed at the end. PyTorch is by far the fastest, because it does not
compile.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import measurements
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("names", None, "Architectures. Defaults to all, the smallest first.")
flags.DEFINE_string("one", None, "Architecture to prune in this process.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/prune_architectures.json", "File of the measurements.")


def outputs(model, x):
    """Returns the outputs, computed eagerly, since `predict` would compile every model for two images."""
    import keras

    return keras.ops.convert_to_numpy(model(x, training=False))


def prune_one(name) -> dict:
    """Prunes, trains, saves, loads and strips one architecture, and returns the comparisons."""
    import keras
    from architectures import architectures

    import keras_prune as kp

    started = time.time()
    keras.utils.set_random_seed(0)
    model = architectures()[name]()
    x = np.random.default_rng(0).normal(size=(2, *model.input_shape[1:])).astype("float32")
    before = outputs(model, x)
    kp.prune(model, kp.StdThreshold(1.0))
    unchanged = np.array_equal(outputs(model, x), before)
    eagerly = keras.backend.backend() == "tensorflow"  # Compiling takes longer than three steps.
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.SGD(1e-3, momentum=0.9), loss, run_eagerly=eagerly, jit_compile=False)
    callback = kp.PruningCallback(kp.Iterative(rounds=2), verbose=0)
    model.fit(x, np.zeros(2), batch_size=2, epochs=3, verbose=0, callbacks=[callback])
    zeros = all(
        not keras.ops.any(keras.ops.logical_and(weight.variable.value != 0, keras.ops.logical_not(weight.mask.value)))
        for weight in kp.layers.pruned_weights(model)
    )
    after = outputs(model, x)
    report = kp.report(model)
    with tempfile.TemporaryDirectory() as directory:
        model.save(pathlib.Path(directory) / "pruned.keras")
        del model
        loaded = keras.models.load_model(pathlib.Path(directory) / "pruned.keras")
    same_loaded = np.array_equal(outputs(loaded, x), after)
    plain = kp.strip(loaded)
    same_stripped = np.array_equal(outputs(plain, x), after)
    return {
        "backend": keras.backend.backend(),
        "layers": len(report.rows),
        "connections": report.weights,
        "compression": report.compression,
        "unchanged_by_prune": unchanged,
        "zero_where_cut": zeros,
        "same_after_load": same_loaded,
        "same_after_strip": same_stripped,
        "left_out": report.skipped,
        "parameters": plain.count_params(),
        "seconds": time.time() - started,
    }


def table(results) -> str:
    lines = [
        "| architecture | parameters | layers | left | outputs equal: pruned, loaded, stripped | zeros | seconds |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, one in results.items():
        if "error" in one:
            lines.append(f"| {name} | | | | {one['error']} | | |")
            continue
        equal = ", ".join(
            "yes" if one[key] else "**no**" for key in ("unchanged_by_prune", "same_after_load", "same_after_strip")
        )
        lines.append(
            f"| {name} | {one['parameters']:,} | {one['layers']} | {1 / one['compression']:.1%} | {equal} | "
            f"{'exact' if one['zero_where_cut'] else '**no**'} | {one['seconds']:.0f} |"
        )
    return "\n".join(lines)


def main(_):
    if FLAGS.one:
        print(json.dumps(prune_one(FLAGS.one)))
        return
    results = measurements.read(FLAGS.results)
    names = [] if FLAGS.table else FLAGS.names
    if names is None:
        from architectures import architectures

        names = list(architectures())
    for name in names:
        if "error" not in results.get(name, {"error": "not run"}):
            continue
        command = [sys.executable, __file__, f"--one={name}"]
        process = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=False)
        if process.returncode:
            results[name] = {"error": (process.stderr.strip().splitlines() or ["no words"])[-1]}
        else:
            results[name] = json.loads(process.stdout.splitlines()[-1])
        print(name, results[name], flush=True)
        measurements.write(FLAGS.results, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
