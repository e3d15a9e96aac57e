"""Prunes and exports every architecture of keras.applications, and records the results.

    python experiments/export_architectures.py
    python experiments/export_architectures.py --table      # Markdown, from the measurements

Each network has random weights, and four fifths of every kernel are pruned. Its normalization layers get the statistics
of the pruned network on noise, so that the outputs depend on the inputs. Then `export_tflite` writes it. Every network
runs in its own process. Networks in the JSON file are not repeated, so that a stopped run can be resumed.
"""

import json
import os
import subprocess
import sys
import tempfile
import time

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("json", "docs/data/export_architectures.json", "File of the results.")
flags.DEFINE_list("names", None, "Architectures to export. Defaults to all.")
flags.DEFINE_float("sparsity", 0.8, "Share of each kernel's connections to prune.", 0, 1)
flags.DEFINE_bool("table", False, "Only print the table of the results.")
flags.DEFINE_string("one", None, "Architecture to export in this process. The script starts these itself.")


def pruned(name):
    """Returns a pruned network whose outputs depend on its inputs."""
    import keras
    import numpy as np
    from architectures import architectures

    import keras_prune as kp
    from keras_prune.models.graph import leaf_layers

    keras.utils.set_random_seed(0)
    model = kp.prune(architectures()[name](), kp.TargetSparsity(FLAGS.sparsity))
    kp.cut(model)
    normalisations = [layer for layer in leaf_layers(model) if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in normalisations:
        layer.momentum = 0.0  # The statistics come from one batch alone.
    if normalisations:
        model(np.random.default_rng(1).random((8, *model.input_shape[1:]), "float32"), training=True)
    return model


def export(name):
    """Exports one architecture, and returns the results."""
    import keras
    import numpy as np

    import keras_prune as kp

    start = time.time()
    model = pruned(name)
    inputs = np.random.default_rng(0).random((8, *model.input_shape[1:]), "float32")
    outputs = keras.ops.convert_to_numpy(model(inputs, training=False))
    result = {
        "parameters": kp.report(model).weights,
        # How much the outputs depend on the inputs. A file with other weights would differ by more.
        "spread": float(np.max(np.ptp(outputs, axis=0)) / np.max(np.abs(outputs))),
    }
    try:
        with tempfile.TemporaryDirectory() as folder:
            report = kp.export_tflite(model, os.path.join(folder, "model.tflite"), x=inputs, tolerance=1e-3)
    except ValueError as error:
        return result | {"refused": str(error), "seconds": round(time.time() - start)}
    return result | {
        "bytes": report.bytes,
        "dense_bytes": report.dense_bytes,
        "gzip_bytes": report.gzip_bytes,
        "relative_difference": report.relative_difference,
        "dense_because": report.dense_because,
        "kernels": len(report.rows),
        "kernels_sparse": sum(row.stored is not None and row.stored.sparse for row in report.rows),
        "kernels_not_found": [row.name for row in report.rows if row.stored is None],
        "ops": len(report.ops),
        "seconds": round(time.time() - start),
    }


def table(results):
    """Returns the Markdown table."""
    lines = ["| architecture | connections | dense file | gzip of it | file | smaller | difference |", "|" + "---|" * 7]
    for name, result in results.items():
        connections = f"{result['parameters'] / 1e6:.1f} M"
        if "refused" in result:
            lines.append(f"| {name} | {connections} | refused: {result['refused']} |||||")
            continue
        dense, gzip, size = (f"{result[key] / 1e6:.1f} MB" for key in ("dense_bytes", "gzip_bytes", "bytes"))
        smaller = f"{result['dense_bytes'] / result['bytes']:.1f}x"
        cells = [name, connections, dense, gzip, size, smaller, f"{result['relative_difference']:.0e}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if FLAGS.one:
        print(json.dumps(export(FLAGS.one)))
        return
    results = measurements.read(FLAGS.json)
    if FLAGS.table:
        print(table(results))
        return
    from architectures import architectures

    for name in FLAGS.names or architectures():
        if name in results:
            continue
        command = [sys.executable, __file__, f"--one={name}", f"--sparsity={FLAGS.sparsity}"]
        done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
        if done.returncode:
            raise SystemExit(f"{name} ended with status {done.returncode}: {done.stderr[-3000:]}")
        results[name] = json.loads(done.stdout.splitlines()[-1])
        print(name, results[name], flush=True)
        measurements.write(FLAGS.json, results)


if __name__ == "__main__":
    app.run(main)
