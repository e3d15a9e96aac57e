"""Exports a saved model, pruned or not, and proves that the file computes what the model computes.

    python -m keras_prune.tools.export pruned.keras model.tflite                    # LiteRT, zeros left out
    python -m keras_prune.tools.export pruned.keras model.tflite --weights=full_int8 --data=inputs.npy
    python -m keras_prune.tools.export pruned.keras model.kprune                    # keras_prune.load_sparse reads it
    python -m keras_prune.tools.export pruned.keras folder --formats=saved_model,stablehlo      # XLA

The ending of the output says what it becomes: .tflite, .kprune, or without one a folder for XLA. A model that still has
masks is exported without them, the zeros inside. What computes something else than the model is not written.
"""

import os

import numpy as np
from absl import flags

from keras_prune.export.tflite import export_tflite
from keras_prune.export.xla import export_xla
from keras_prune.models.graph import has_graph
from keras_prune.storage.sparse_file import save_sparse
from keras_prune.tools.command_line import load_model, run

FLAGS = flags.FLAGS
flags.DEFINE_enum(
    "weights", "float32", ["float32", "float16", "dynamic_int8", "full_int8"], "How a .tflite file stores its weights."
)
flags.DEFINE_bool("sparse", None, "Leave zeros out of a .tflite file; where it helps if not given.")
flags.DEFINE_list(
    "formats", None, "For XLA: saved_model, stablehlo, ahead_of_time; all that can be written if not given."
)
flags.DEFINE_string(
    "data",
    None,
    "Inputs on which to compare and calibrate: a .npy file of shape (n, ...), or an .npz file with one such array for "
    "each input of the model, by its name.",
)
flags.DEFINE_float("tolerance", None, "Largest difference allowed, of the largest output.", lower_bound=0.0)
flags.DEFINE_integer("batch_size", None, "The one batch size to export for.", lower_bound=1)
# By the ending of the output, which flags go with it.
_OPTIONS = {
    ".tflite": ("weights", "sparse", "data", "tolerance", "batch_size"),
    ".kprune": (),
    "": ("formats", "data", "tolerance", "batch_size"),
}


def main(path, output):
    ending = os.path.splitext(output)[1]
    if ending not in _OPTIONS:
        raise ValueError(
            "The output is a .tflite file, a .kprune file or, without such an ending, a folder; where the name of a "
            f"folder has a dot, / ends it. Received: {output!r}"
        )
    flagged = dict.fromkeys(name for names in _OPTIONS.values() for name in names)
    options = {name: FLAGS[name].value for name in flagged if FLAGS[name].value != FLAGS[name].default}
    if foreign := [f"--{name}" for name in options if name not in _OPTIONS[ending]]:
        raise ValueError(
            f"The flags that go with {f'a {ending} file' if ending else 'a folder for XLA'} are "
            f"{[f'--{name}' for name in _OPTIONS[ending]]}. Received: {' and '.join(foreign)} for {output!r}"
        )
    model = load_model(path)
    if "data" in options:
        options["data"] = load_data(options["data"], model)
    if ending == ".kprune":
        save_sparse(model, output)
        size, dense = os.path.getsize(output), 4 * model.count_params()
        text = f"{output}: {size:,} bytes; float32 weights take {dense:,}"
        return text, {"output": output, "bytes": size, "float32_bytes": dense}
    if not ending:
        report = export_xla(model, output, **options)
        return report, {"output": output, "bytes": report.bytes, "differences": report.differences}
    try:
        report = export_tflite(model, output, **options)
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


def load_data(path, model):
    """Returns the array in a .npy file, or the arrays in an .npz file by their names, or alone if it is one.

    Raises:
        ValueError: If the file holds no such arrays, or has other names than the inputs of the model.
    """
    expected = "--data is a .npy file of inputs, or an .npz file with an array for each input of the model by its name"
    try:
        loaded = np.load(path)
        data = loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # A foreign file fails with any error.
        raise ValueError(f"{expected}. Received: {path!r}: {type(error).__name__}: {error}") from error
    if isinstance(data, np.ndarray):
        return data
    # A subclassed model does not say what its inputs are called.
    names = [tensor._keras_history.operation.name for tensor in model.inputs] if has_graph(model) else list(data)
    arrays = [array for array in data.values() if isinstance(array, np.ndarray)]
    if len(arrays) != len(data) or (len(names) > 1 and set(names) != set(data)):
        raise ValueError(f"{expected}, here {names}. Received: {path!r} with {list(data)}")
    return arrays[0] if len(arrays) == 1 else data


if __name__ == "__main__":
    run(main, ["MODEL", "OUTPUT"])
