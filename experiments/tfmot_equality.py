"""Compares `keras_prune.compat.tfmot` with tfmot 0.8.1, which needs Keras 2 and runs in its own processes.

    pip install -e '.[tfmot]'
    python experiments/tfmot_equality.py                  # tutorials, step time and memory, in about 20 minutes
    python experiments/tfmot_equality.py --repeats=0      # tutorials only
    python experiments/tfmot_equality.py --tutorials=     # step time and memory only
    python experiments/tfmot_equality.py --table          # Markdown, from the measurements alone

The tutorials in `experiments/tfmot` run with both libraries. For tfmot, their two import lines are replaced.
"""

import os
import pathlib
import pickle
import statistics
import subprocess
import sys
import tempfile
import time

import measurements
import numpy as np
from absl import app, flags

FOLDER = pathlib.Path(__file__).parent / "tfmot"
IMPORTS = {
    "\nimport keras\n": "\nimport tf_keras as keras\n",
    "\nfrom keras_prune.compat import tfmot\n": "\nimport tensorflow_model_optimization as tfmot\n",
}
KINDS = [(library, kind) for library in ("keras_prune", "tfmot") for kind in ("plain", "pruned")]
FLAGS = flags.FLAGS
TUTORIALS = sorted(file.stem for file in FOLDER.glob("*.py") if file.stem != "common")
flags.DEFINE_list("tutorials", TUTORIALS, "Tutorials that both libraries run.")
flags.DEFINE_integer("repeats", 5, "Processes that measure step time and memory, for each library and kind of model.")
flags.DEFINE_string("library", None, "Measure step time and memory of one library in this process.")
flags.DEFINE_bool("pruned", False, "Whether this process measures the pruned model.")
flags.DEFINE_bool("table", False, "Only print the tables of what was measured.")
flags.DEFINE_string("results", "docs/data/tfmot_equality.json", "Where the measurements are kept.")


def start(command, library, **variables):
    """Runs a command for one library, and returns the JSON object in the last line that it prints."""
    environment = {
        **os.environ,
        "KERAS_BACKEND": "tensorflow",
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "TF_USE_LEGACY_KERAS": str(int(library == "tfmot")),
        "PYTHONPATH": os.pathsep.join([str(FOLDER), str(FOLDER.parents[1]), os.environ.get("PYTHONPATH", "")]),
        **variables,
    }
    done = subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{library}: {command} ended with status {done.returncode}: {done.stderr[-3000:]}")
    return measurements.json.loads(done.stdout.splitlines()[-1])


def run_tutorial(name, library):
    """Returns the notes of a tutorial, its final masks, and the updates of tfmot's masks."""
    source = (FOLDER / f"{name}.py").read_text(encoding="utf-8")
    if library == "tfmot":
        for ours, theirs in IMPORTS.items():
            assert source.count(ours) == 1
            source = source.replace(ours, theirs)
    with tempfile.TemporaryDirectory() as folder:
        script = pathlib.Path(folder) / f"{name}.py"
        script.write_text(source, encoding="utf-8")
        notes = start([str(script)], library, NOTES_DIR=folder)
        masks, updates = pickle.loads((pathlib.Path(folder) / "masks").read_bytes())
    return notes, list(masks.values()), updates


def compare(name):
    """Returns how the two libraries differ in one tutorial."""
    (ours, our_masks, _), (theirs, their_masks, updates) = (run_tutorial(name, one) for one in ("keras_prune", "tfmot"))
    epochs = [[list(epoch.values()) for epoch in notes["epochs"]] for notes in (ours, theirs)]
    pairs = list(zip(our_masks, their_masks, strict=True))
    return {
        "lines": len((FOLDER / f"{name}.py").read_text(encoding="utf-8").splitlines()),
        "lines_changed": len(IMPORTS),
        "epochs": len(epochs[0]),
        "largest_difference_in_sparsity": float(np.max(np.abs(np.subtract(*epochs)))),
        "sparsity": [ours["sparsity"], theirs["sparsity"]],
        "final_mask_entries": sum(one.size for one, _ in pairs),
        "final_mask_entries_equal": sum(int((one == other).sum()) for one, other in pairs),
        **compare_updates(updates),
    }


def compare_updates(updates):
    """Computes the masks of tfmot from the same weights, once as tfmot does, and once without reviving connections."""
    import keras

    from keras_prune.compat import tfmot

    counts = {"updates": len(updates), "entries": 0, "entries_equal": 0, "entries_equal_monotone": 0, "revived": 0}
    for weight, old, new, sparsity, pattern in updates:
        wrapper = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(1), **pattern)
        for mask, key in ((np.ones_like(old), "entries_equal"), (old, "entries_equal_monotone")):
            made = keras.ops.convert_to_numpy(wrapper.criterion(weight, mask, sparsity).mask)
            counts[key] += int((made == new).sum())
        counts["entries"] += new.size
        counts["revived"] += int((new & ~old).sum())
    return counts


def measure_steps():
    """Returns milliseconds of a step of mnist_cnn in each epoch after the first, and the peak memory."""
    if FLAGS.library == "tfmot":
        import tensorflow_model_optimization as tfmot
        import tf_keras as keras
    else:
        import keras

        from keras_prune.compat import tfmot
    layers = keras.layers
    model = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(32, 5, padding="same", activation="relu"),
            layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
            layers.BatchNormalization(),
            layers.Conv2D(64, 5, padding="same", activation="relu"),
            layers.MaxPooling2D((2, 2), (2, 2), padding="same"),
            layers.Flatten(),
            layers.Dense(1024, activation="relu"),
            layers.Dropout(0.4),
            layers.Dense(10, activation="softmax"),
        ]
    )
    callbacks = []
    if FLAGS.pruned:
        schedule = tfmot.sparsity.keras.PolynomialDecay(0.1, 0.75, begin_step=0, end_step=200, frequency=10)
        model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
        callbacks = [tfmot.sparsity.keras.UpdatePruningStep()]
    model.compile("adam", "categorical_crossentropy", jit_compile=False)
    random, batch, steps = np.random.default_rng(0), 128, 20
    x = random.normal(size=(batch * steps, 28, 28, 1)).astype("float32")
    y = keras.utils.to_categorical(random.integers(10, size=batch * steps), 10)
    seconds = []
    for _ in range(5):
        started = time.perf_counter()
        model.fit(x, y, batch_size=batch, epochs=1, shuffle=False, verbose=0, callbacks=callbacks)
        seconds.append(time.perf_counter() - started)
    return {"ms": [1e3 * one / steps for one in seconds[1:]], "peak_bytes": measurements.memory("VmHWM")}


def table(results):
    """Returns the Markdown tables."""
    lines = [
        "**Tutorials**",
        "",
        "| tutorial | lines, changed | epochs | largest difference in sparsity | updates | "
        "entries of masks made from the same weights, equal | entries of the final masks, equal | revived by tfmot |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, one in results.get("tutorials", {}).items():
        lines.append(
            f"| {name} | {one['lines']}, {one['lines_changed']} | {one['epochs']} | "
            f"{one['largest_difference_in_sparsity']:.2g} | {one['updates']} | "
            f"{one['entries']:,}, {one['entries_equal'] / one['entries']:.2%} | "
            f"{one['final_mask_entries']:,}, {one['final_mask_entries_equal'] / one['final_mask_entries']:.2%} | "
            f"{one['revived']:,} |"
        )
    lines += ["", "**Step time and memory**", ""]
    lines += ["| library | plain, ms a step | pruned, ms a step | pruned / plain | more memory, MB |"]
    lines += ["|---|---|---|---|---|"]
    steps = results.get("steps", {})
    for library in dict.fromkeys(library for library, _ in KINDS if f"{library} plain" in steps):
        plain, pruned = (steps[f"{library} {kind}"] for kind in ("plain", "pruned"))
        medians = [[statistics.median(run["ms"]) for run in runs] for runs in (plain, pruned)]
        ratios = sorted(b / a for a, b in zip(*medians, strict=True))
        memory = [statistics.median(run["peak_bytes"] for run in runs) for runs in (plain, pruned)]
        lines.append(
            f"| {library} | {statistics.median(medians[0]):.1f} | {statistics.median(medians[1]):.1f} | "
            f"{statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}) | "
            f"{(memory[1] - memory[0]) / 1e6:.0f} |"
        )
    return "\n".join(lines)


def main(_):
    if FLAGS.library:
        print(measurements.json.dumps(measure_steps()))
        return
    if not FLAGS.table:
        measured = measurements.read(FLAGS.results)
        for name in FLAGS.tutorials:
            measured.setdefault("tutorials", {})[name] = compare(name)
            measurements.write(FLAGS.results, measured)
        if FLAGS.repeats:
            measured["steps"] = {f"{library} {kind}": [] for library, kind in KINDS}
        for _ in range(FLAGS.repeats):  # Libraries and kinds take turns, so that a busy moment affects all of them.
            for library, kind in KINDS:
                command = [__file__, f"--library={library}", f"--pruned={kind == 'pruned'}"]
                measured["steps"][f"{library} {kind}"].append(start(command, library))
        measurements.write(FLAGS.results, measured)
    print(table(measurements.read(FLAGS.results)))


if __name__ == "__main__":
    app.run(main)
