"""Export a model for LiteRT or XLA, or to a sparse file, and verify its outputs.

The ending of the output selects the kind: .tflite, .kprune, or a folder for XLA. A pruned model is
exported without its masks, with zeros in its weights. A file whose outputs are not those of the
model is not written.

Examples:

  keras-prune export pruned.keras model.tflite                    # LiteRT, zeros left out
  keras-prune export pruned.keras model.tflite --quantization=full_int8 --data=inputs.npy
  keras-prune export pruned.keras model.kprune                    # keras_prune.load_sparse reads it
  keras-prune export pruned.keras folder --formats=saved_model,stablehlo      # XLA
"""

import os
from typing import Any

from absl import flags

import keras_prune as kp
from keras_prune.tools.files import input_names, load_inputs, load_model, save_model
from keras_prune.tools.subcommand import Result, Subcommand

# The flags of each kind of output, by its ending.
_OPTIONS = {
    ".tflite": ("quantization", "sparse", "data", "tolerance", "batch_size"),
    ".kprune": (),
    "": ("formats", "data", "tolerance", "batch_size"),
}
_FILE_NAMES = {"stablehlo": "model.stablehlo"}


def define(values: flags.FlagValues) -> None:
    """Defines the flags of the subcommand."""
    own: dict[str, Any] = {"flag_values": values}
    quantizations = ["float16", "dynamic_int8", "full_int8", "int8_only"]
    flags.DEFINE_enum(
        "quantization", None, quantizations, "How a .tflite file stores weights if not in float32.", **own
    )
    flags.DEFINE_bool("sparse", None, "Whether to leave zeros out of a .tflite file. Default: if it helps.", **own)
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
        kind = f"a {ending} file" if ending else "a folder for XLA"
        own = ", ".join(f"--{name}" for name in _OPTIONS[ending]) or "none"
        raise ValueError(f"Flags of {kind}: {own}. Received: {' and '.join(foreign)} for {output!r}")
    model = load_model(path, values.modules, preprocessor=False)
    if ending != ".kprune" and "data" not in options and not input_names(model):
        raise ValueError(
            "The inputs of a subclassed model are unknown. Add some, such as --data=inputs.npy. Received: no --data"
        )
    if "data" in options:
        options["x"] = load_inputs(options.pop("data"), model)
    if ending == ".kprune":
        save_model(model, output)
        size, dense = os.path.getsize(output), 4 * model.count_params()
        text = f"{output}: {size:,} bytes; float32 weights take {dense:,}"
        return Result(text, {"path": output, "bytes": size, "float32_bytes": dense})
    if not ending:
        formats: list[str] = options.pop("formats", ["saved_model"])
        paths = [os.path.join(output, _FILE_NAMES.get(name, name)) for name in formats]
        reports = [kp.export_xla(model, *pair, **options) for pair in zip(paths, formats, strict=True)]
        return Result("\n".join(map(str, reports)), {"exports": [report.to_dict() for report in reports]})
    report = kp.export_tflite(model, output, **options)
    return Result(report, report.to_dict())


EXPORT = Subcommand("export", __doc__, ["MODEL", "OUTPUT"], define, export)
