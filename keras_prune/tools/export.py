"""Export a saved model, pruned or not, and verify the outputs of the file.

    python -m keras_prune.tools.export pruned.keras model.tflite                    # LiteRT, zeros left out
    python -m keras_prune.tools.export pruned.keras model.tflite --quantization=full_int8 --data=inputs.npy
    python -m keras_prune.tools.export pruned.keras model.kprune                    # keras_prune.load_sparse reads it
    python -m keras_prune.tools.export pruned.keras folder --formats=saved_model,stablehlo      # XLA

The ending of the output selects the kind of export: .tflite, .kprune, or a folder for XLA. A pruned model is exported
without its masks, with zeros in its weights. A file whose outputs are not those of the model is not written.
"""

import os
import sys
from typing import Any

import numpy as np
from absl import flags

from keras_prune import _keras
from keras_prune.export.tflite import export_tflite
from keras_prune.export.xla import export_xla
from keras_prune.models.graph import has_graph
from keras_prune.storage.sparse_file import save_sparse
from keras_prune.tools.command_line import Result, Tool, load_model

# The flags of each kind of output, by its ending.
_OPTIONS = {
    ".tflite": ("quantization", "sparse", "data", "tolerance", "batch_size"),
    ".kprune": (),
    "": ("formats", "data", "tolerance", "batch_size"),
}
_FILE_NAMES = {"stablehlo": "model.stablehlo"}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the tool."""
    own: dict[str, Any] = {"flag_values": values}
    quantizations = ["float16", "dynamic_int8", "full_int8", "int8_only"]
    flags.DEFINE_enum("quantization", None, quantizations, "How a .tflite file stores weights, else float32.", **own)
    flags.DEFINE_bool("sparse", None, "Whether zeros are left out of a .tflite file. Default: if it helps.", **own)
    text = "For XLA: saved_model, stablehlo, ahead_of_time. Default: saved_model."
    flags.DEFINE_list("formats", None, text, **own)
    text = (
        "Inputs to compare and calibrate with: a .npy file of shape (n, ...), or an .npz file with one such array for "
        "each input of the model, by its name."
    )
    flags.DEFINE_string("data", None, text, **own)
    text = "Largest difference allowed, relative to the largest output."
    flags.DEFINE_float("tolerance", None, text, lower_bound=0.0, **own)
    flags.DEFINE_integer("batch_size", None, "The only batch size to export for.", lower_bound=1, **own)


def export(values: flags.FlagValues, path: str, output: str) -> Result:
    """Exports the model in one file to another file or a folder."""
    ending = os.path.splitext(output)[1]
    if ending not in _OPTIONS:
        raise ValueError(
            "The output must be a .tflite file, a .kprune file, or a folder without an ending. If the name of the "
            f"folder has a dot, end it with a slash. Received: output={output!r}"
        )
    flagged = dict.fromkeys(name for names in _OPTIONS.values() for name in names)
    options: dict[str, Any] = {name: values[name].value for name in flagged if values[name].present}
    if foreign := [f"--{name}" for name in options if name not in _OPTIONS[ending]]:
        raise ValueError(
            f"The flags for {f'a {ending} file' if ending else 'a folder for XLA'} are "
            f"{[f'--{name}' for name in _OPTIONS[ending]]}. Received: {' and '.join(foreign)} for {output!r}"
        )
    model = load_model(path, values.modules)
    if "data" in options:
        options["x"] = load_data(options.pop("data"), model)
    if ending == ".kprune":
        save_sparse(model, output)
        size, dense = os.path.getsize(output), 4 * model.count_params()
        text = f"{output}: {size:,} bytes; float32 weights take {dense:,}"
        return Result(text, {"path": output, "bytes": size, "float32_bytes": dense})
    if not ending:
        formats: list[str] = options.pop("formats", ["saved_model"])
        paths = [os.path.join(output, _FILE_NAMES.get(name, name)) for name in formats]
        reports = [export_xla(model, *pair, **options) for pair in zip(paths, formats, strict=True)]
        return Result("\n".join(map(str, reports)), {"exports": [report.to_dict() for report in reports]})
    try:
        report = export_tflite(model, output, **options)
    except ImportError as error:
        raise ValueError(str(error)) from error
    return Result(report, report.to_dict())


def load_data(path, model):
    """Returns the array in a .npy file or an .npz file with one array, or a dict of arrays by their names.

    Raises:
        ValueError: If the file cannot be read, or its names are not those of the inputs of the model.
    """
    expected = "--data must be a .npy file, or an .npz file with an array for each input of the model by its name"
    try:
        loaded = np.load(path)
        data = loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # Files that NumPy did not write raise any error.
        raise ValueError(f"{expected}. Received: {path!r}: {type(error).__name__}: {error}") from error
    if isinstance(data, np.ndarray):
        return data
    # A subclassed model has no names for its inputs.
    names = [_keras.origin_of(tensor)[0].name for tensor in model.inputs] if has_graph(model) else list(data)
    arrays = [array for array in data.values() if isinstance(array, np.ndarray)]
    if len(arrays) != len(data) or (len(names) > 1 and set(names) != set(data)):
        raise ValueError(f"{expected}, here {names}. Received: {path!r} with {list(data)}")
    return arrays[0] if len(arrays) == 1 else data


main = Tool(__doc__, ["MODEL", "OUTPUT"], define, export).main

if __name__ == "__main__":
    sys.exit(main())
