"""One dense layer in every pattern of zeros and every format of weights: does the TFLite file prove right, how large
is it, and how fast does LiteRT run it?

    python benchmarks/export_formats.py --inputs=9216 --outputs=4096 --density=0.09

Every file is one of `export_tflite(sparse=True)`; where that is refused, the reason is written down, and what the
default `sparse=None` writes instead is measured. Times are medians of single inputs on one thread, taken in turns with
the dense float32 file. Files that are in the JSON file already are left out, so that a stopped run continues.
"""

import json
import os
import pathlib
import re
import tempfile
import time

import keras
import numpy as np
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_integer("inputs", 1024, "Inputs of the layer; a multiple of 16.", lower_bound=16)
flags.DEFINE_integer("outputs", 1024, "Outputs of the layer.", lower_bound=1)
flags.DEFINE_float("density", 0.09, "Share of connections kept, but for 2:4, which keeps half.", 0, 1)
flags.DEFINE_list("patterns", ["unstructured", "4x1", "16x1", "2:4"], "Patterns of zeros.")
flags.DEFINE_list("weights", ["float32", "float16", "dynamic_int8", "full_int8"], "Formats of weights.")
flags.DEFINE_integer("runs", 50, "How many times each file is timed.", lower_bound=1)
flags.DEFINE_string("json", None, "Where the results are and go; docs/results/export_formats_INPUTSxOUTPUTS.json.")


def mask(pattern, random):
    """Returns which connections of a kernel of shape (inputs, outputs) are kept."""
    if pattern == "2:4":
        order = random.random((FLAGS.inputs // 4, 4, FLAGS.outputs), "float32").argsort(axis=1)
        return (order < 2).reshape(FLAGS.inputs, FLAGS.outputs)
    block = 1 if pattern == "unstructured" else int(pattern.removesuffix("x1"))
    blocks = random.random((FLAGS.inputs // block, FLAGS.outputs), "float32") < FLAGS.density
    return np.repeat(blocks, block, axis=0)


def layer(pattern):
    """Returns a model of one layer, with zeros in a pattern; all of its weights without one."""
    random = np.random.default_rng(0)
    kernel = random.standard_normal((FLAGS.inputs, FLAGS.outputs), "float32") / np.sqrt(FLAGS.inputs)
    model = keras.Sequential([keras.Input((FLAGS.inputs,)), keras.layers.Dense(FLAGS.outputs, name="fc")])
    kept = np.where(mask(pattern, random), kernel, 0) if pattern else kernel
    model.set_weights([kept.astype("float32"), random.standard_normal(FLAGS.outputs)])
    return model


class File:
    """A file that LiteRT has loaded, to be timed."""

    def __init__(self, path):
        self.interpreter = Interpreter(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        values = np.random.default_rng(0).random((1, FLAGS.inputs), "float32")
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], values)
        self.times = []

    def run(self):
        start = time.perf_counter()
        self.interpreter.invoke()
        self.times.append(time.perf_counter() - start)


def compare_speed(path, dense_path):
    """Returns the medians of both in milliseconds."""
    files = [File(path), File(dense_path)]
    for _ in range(FLAGS.runs + 5):
        for file in files:
            file.run()
    return [round(1e3 * float(np.median(file.times[5:])), 4) for file in files]


def measure(model, weights, path, dense_path):
    """Exports one model and returns what became of it."""
    data = np.random.default_rng(1).random((32, FLAGS.inputs), "float32")
    result = {}
    try:
        report = kp.export_tflite(model, path, weights, sparse=True, data=data)
    except ValueError as error:
        result["refused"] = re.search(r"but (.*)\. Leave", str(error), re.DOTALL)[1]
        report = kp.export_tflite(model, path, weights, sparse=False, data=data)
    (row,) = report.rows
    milliseconds, dense_milliseconds = compare_speed(path, dense_path)
    return result | {
        "bytes": report.bytes,
        "dense_bytes": report.dense_bytes,
        "gzip_bytes": report.gzip_bytes,
        "encoding": row.encoding,
        "sparse_kernel": row.sparse_kernel,
        "relative_difference": report.relative_difference,
        "milliseconds": milliseconds,
        "dense_float32_milliseconds": dense_milliseconds,
    }


def main(_):
    default = f"docs/results/export_formats_{FLAGS.inputs}x{FLAGS.outputs}.json"
    results_path = pathlib.Path(FLAGS.json or default)
    results_path.parent.mkdir(parents=True, exist_ok=True)
    results = json.loads(results_path.read_text()) if results_path.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        path, dense_path = os.path.join(folder, "model.tflite"), os.path.join(folder, "dense.tflite")
        dense = layer(None)
        kp.export_tflite(dense, dense_path)
        for pattern in ["dense", *FLAGS.patterns]:
            model = dense if pattern == "dense" else layer(pattern)
            for weights in FLAGS.weights:
                name = f"{pattern} {weights}"
                if name not in results:
                    results[name] = measure(model, weights, path, dense_path)
                    results_path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
                    print(name, results[name], flush=True)


if __name__ == "__main__":
    app.run(main)
