"""Exports a dense layer in every pattern of zeros and format of weights, and measures size and time in LiteRT.

    python experiments/export_formats.py --inputs=9216 --outputs=4096
    python experiments/export_formats.py --inputs=9216 --outputs=4096 --table      # Markdown, from the measurements

Each file is written by `export_tflite(sparse=True)`. If that fails, the reason is recorded and the file is written with
`sparse=False`. Files stay in a folder and results in a JSON file, so that a stopped run can be resumed. A second run
only measures the times, which are medians for single inputs on one thread, with all files in turns.
"""

import pathlib
import re
import time

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("inputs", 1024, "Inputs of the layer, a multiple of 16.", lower_bound=16)
flags.DEFINE_integer("outputs", 1024, "Outputs of the layer.", lower_bound=1)
flags.DEFINE_float("density", 0.09, "Share of connections kept, except for 2:4, which keeps half.", 0, 1)
flags.DEFINE_list("patterns", ["unstructured", "4x1", "16x1", "2:4"], "Patterns of zeros.")
flags.DEFINE_list("weights", ["float32", "float16", "dynamic_int8", "full_int8"], "Formats of weights.")
flags.DEFINE_string("folder", "output/export_formats", "Folder for the files.")
flags.DEFINE_integer("runs", 100, "Number of timed runs of each file.", lower_bound=1)
flags.DEFINE_string("json", None, "File of the results. Defaults to docs/data/export_formats_INPUTSxOUTPUTS.json.")
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")


def mask(pattern, random):
    """Returns which connections of a kernel of shape (inputs, outputs) are kept."""
    import numpy as np

    if pattern == "2:4":
        order = random.random((FLAGS.inputs // 4, 4, FLAGS.outputs), "float32").argsort(axis=1)
        return (order < 2).reshape(FLAGS.inputs, FLAGS.outputs)
    block = 1 if pattern == "unstructured" else int(pattern.removesuffix("x1"))
    blocks = random.random((FLAGS.inputs // block, FLAGS.outputs), "float32") < FLAGS.density
    return np.repeat(blocks, block, axis=0)


def layer(pattern):
    """Returns a model of one layer with zeros in a pattern, or without zeros."""
    import keras
    import numpy as np

    random = np.random.default_rng(0)
    kernel = random.standard_normal((FLAGS.inputs, FLAGS.outputs), "float32") / np.sqrt(FLAGS.inputs)
    model = keras.Sequential([keras.Input((FLAGS.inputs,)), keras.layers.Dense(FLAGS.outputs, name="fc")])
    kept = np.where(mask(pattern, random), kernel, 0) if pattern else kernel
    model.set_weights([kept.astype("float32"), random.standard_normal(FLAGS.outputs)])
    return model


class File:
    """A file loaded in LiteRT."""

    def __init__(self, path):
        import numpy as np
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(str(path), num_threads=1)
        self.interpreter.allocate_tensors()
        values = np.random.default_rng(0).random((1, FLAGS.inputs), "float32")
        self.interpreter.set_tensor(self.interpreter.get_input_details()[0]["index"], values)
        self.times = []

    def run(self):
        start = time.perf_counter()
        self.interpreter.invoke()
        self.times.append(time.perf_counter() - start)


def take_times(files):
    """Returns the median of every file in milliseconds."""
    import numpy as np

    for _ in range(FLAGS.runs + 5):
        for file in files.values():
            file.run()
    return {name: round(1e3 * float(np.median(file.times[5:])), 4) for name, file in files.items()}


def export(model, quantization, path):
    """Exports one model, and returns the results."""
    import numpy as np

    import keras_prune as kp

    x = np.random.default_rng(1).random((32, FLAGS.inputs), "float32")
    result = {}
    try:
        report = kp.export_tflite(model, path, quantization, sparse=True, x=x)
    except ValueError as error:
        result["refused"] = re.search(r"but (.*)\. Use sparse", str(error), re.DOTALL)[1]
        report = kp.export_tflite(model, path, quantization, sparse=False, x=x)
    (row,) = report.rows
    return result | {
        "bytes": report.bytes,
        "dense_bytes": report.dense_bytes,
        "gzip_bytes": report.gzip_bytes,
        "encoding": row.encoding,
        "sparse_kernel": row.sparse_kernel,
        "relative_difference": report.relative_difference,
    }


def outcome(result, dense):
    """Returns size and time of a file, and how LiteRT runs its zeros."""
    if "refused" in result:
        return "refused: wrong outputs" if "differs by" in result["refused"] else "refused: does not load"
    zeros = "" if result["encoding"] == "dense" else ", sparse kernel" if result["sparse_kernel"] else ", unpacked"
    faster = dense["milliseconds"] / result["milliseconds"]
    return f"{result['bytes'] / 1e6:.2f} MB, {1e3 * result['milliseconds']:,.0f} us ({faster:.1f}x){zeros}"


def table(results):
    """Returns the outcomes as Markdown, patterns by formats of weights."""
    formats = [weights for weights in FLAGS.weights if f"dense {weights}" in results]
    lines = [f"| | {' | '.join(formats)} |", "|---|" + "---|" * len(formats)]
    for pattern in ["dense", *FLAGS.patterns]:
        found = [results.get(f"{pattern} {weights}") for weights in formats]
        if any(found):
            cells = [outcome(one, results["dense float32"]) if one else "-" for one in found]
            lines.append(f"| {pattern} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    shape = f"{FLAGS.inputs}x{FLAGS.outputs}"
    results_path = FLAGS.json or f"docs/data/export_formats_{shape}.json"
    results = measurements.read(results_path)
    if FLAGS.table:
        print(table(results))
        return
    folder = pathlib.Path(FLAGS.folder) / shape
    folder.mkdir(parents=True, exist_ok=True)

    def path_of(name):
        return folder / f"{name.replace(':', 'of').replace(' ', '_')}.tflite"

    for pattern in ["dense", *FLAGS.patterns]:
        model = None
        for weights in FLAGS.weights:
            name = f"{pattern} {weights}"
            if name not in results or not path_of(name).exists():
                model = model or layer(None if pattern == "dense" else pattern)
                results[name] = export(model, None if weights == "float32" else weights, path_of(name))
                measurements.write(results_path, results)
                print(name, results[name], flush=True)
    files = {name: File(path_of(name)) for name in results if path_of(name).exists()}
    for name, milliseconds in take_times(files).items():
        results[name]["milliseconds"] = milliseconds
        print(name, milliseconds)
    measurements.write(results_path, results)


if __name__ == "__main__":
    app.run(main)
