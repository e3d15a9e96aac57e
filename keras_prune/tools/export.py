"""Exports a saved model, pruned or not, and proves that the file computes what the model computes.

    python -m keras_prune.tools.export pruned.keras model.tflite                    # LiteRT, zeros left out
    python -m keras_prune.tools.export pruned.keras model.tflite --weights=full_int8 --data=inputs.npy
    python -m keras_prune.tools.export pruned.keras model.kprune                    # keras_prune.load_sparse reads it
    python -m keras_prune.tools.export pruned.keras folder --formats=saved_model,stablehlo      # XLA

The ending of the output says what it becomes: .tflite, .kprune, or else a folder for XLA. A model that still has masks
is exported without them, the zeros inside. What computes something else than the model is not written.
"""

import os

import numpy as np
from absl import flags

from keras_prune.export.tflite import export_tflite
from keras_prune.export.xla import export_xla
from keras_prune.storage import save_sparse
from keras_prune.tools.command_line import load_model, run

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "weights", "float32", ["float32", "float16", "dynamic_int8", "full_int8"], "How a .tflite file stores its weights."
)
flags.DEFINE_string("data", None, "Inputs, a .npy file of shape (n, ...), on which to compare and calibrate.")
flags.DEFINE_list(
    "formats", None, "For XLA: saved_model, stablehlo, ahead_of_time; all that can be written if not given."
)


def main(path, output):
    model = load_model(path)
    data = None if FLAGS.data is None else np.load(FLAGS.data)
    if output.endswith(".kprune"):
        save_sparse(model, output)
        size, dense = os.path.getsize(output), 4 * model.count_params()
        text = f"{output}: {size:,} bytes; float32 weights take {dense:,}"
        return text, {"output": output, "bytes": size, "float32_bytes": dense}
    if not output.endswith(".tflite"):
        report = export_xla(model, output, FLAGS.formats, data)
        return report, {"output": output, "bytes": report.bytes, "differences": report.differences}
    try:
        report = export_tflite(model, output, FLAGS.weights, data=data)
    except ImportError as error:
        raise ValueError(str(error)) from error
    layers = [
        {
            "name": row.name,
            "density": row.density,
            "encoding": row.encoding,
            "sparse_kernel": row.sparse_kernel,
            "reason": row.reason,
        }
        for row in report.rows
    ]
    sizes = {name: getattr(report, name) for name in ("bytes", "float32_bytes", "dense_bytes", "gzip_bytes")}
    proof = {name: getattr(report, name) for name in ("difference", "relative_difference", "samples", "runtime")}
    return report, {"output": output, **sizes, **proof, "not_sparse": report.not_sparse, "layers": layers}


if __name__ == "__main__":
    run(main, ["MODEL", "OUTPUT"])
