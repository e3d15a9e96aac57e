"""Export models that XLA compiles: SavedModel, StableHLO, and object files for C++ programs."""

import dataclasses
import os
from typing import Any

import keras

from keras_prune._arguments import require_path
from keras_prune.export import ahead_of_time, saved_model, stablehlo
from keras_prune.export.verification import cause, check_limits, exporting, replace, verify
from keras_prune.terminal.caught_output import caught_output

FORMATS = {
    "tensorflow": {"saved_model": saved_model, "stablehlo": stablehlo, "ahead_of_time": ahead_of_time},
    "jax": {"stablehlo": stablehlo},
}


@dataclasses.dataclass(frozen=True, repr=False)
class XLAReport:
    """Result of `export_xla`: what was written, and how far its outputs are from those of the Keras model.

    Attributes:
        path: String, the file or folder.
        format: String.
        bytes: Integer, size of the file, or of all files in the folder.
        difference: Float, the largest difference between an output and that of the Keras model. `None` for
            `"ahead_of_time"`, which runs only once it is linked.
        relative_difference: Float, the same over the largest magnitude in that output, or `None`.
        samples: Integer, the number of inputs that were compared.
    """

    path: str
    format: str
    bytes: int
    difference: float | None
    relative_difference: float | None
    samples: int

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return dataclasses.asdict(self)

    def __repr__(self):
        return f"<XLAReport path={self.path!r}, format={self.format!r}, bytes={self.bytes}>"

    def __str__(self):
        proof = (
            "compiled, and runs once it is linked"
            if self.relative_difference is None
            else f"largest difference {self.relative_difference:.1e} of the largest output, on {self.samples} inputs"
        )
        return f"{self.path}: {self.bytes:,} bytes, {proof}"


def export_xla(
    model, filepath, format: str = "saved_model", x=None, tolerance: float = 1e-3, batch_size: int = 1
) -> XLAReport:
    """Export a model in a format that XLA compiles, and verify its outputs.

    The export replaces what is at `filepath` after it was loaded and compared with the Keras model. Object files of
    `"ahead_of_time"` are compiled but not run: they run in the program that they are linked into
    (examples/ahead_of_time has one). XLA stores zeros and computes with them like other numbers, so that only
    `remove_dead_neurons` or a compressed archive makes these exports smaller. A pruned model is exported without its
    masks, and stays pruned. Nested outputs are named by their places, `"a_0"` is the first of the list under `"a"`.

    Args:
        model: Built Keras model, plain or pruned. A subclassed model requires `x`. It is not changed.
        filepath: String or path object, a folder for `"saved_model"` and `"ahead_of_time"`, a file for `"stablehlo"`.
            Folders around it are created. A folder is only replaced if it holds an earlier export and nothing else.
        format: String. `"saved_model"`: a TensorFlow SavedModel for any batch size, whose serving function is compiled
            (`jit_compile=True`). `"stablehlo"`: a portable module, which `jax.export.deserialize` reads if the Keras
            backend is JAX. `"ahead_of_time"`: object files and a C++ header with a class `PrunedModel`, in which
            several inputs or outputs are accessed by name (`arg_feed_image_data()`, `result_fetch_output_0_data()`).
            The JAX backend writes `"stablehlo"` only. Defaults to `"saved_model"`.
        x: Inputs of shape `(n, ...)`, a structure of arrays as `model.predict` takes it. The outputs are compared on
            the first 8. Defaults to `None`, random numbers from 0 to 1, and integers 0 and 1.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.
            Defaults to `0.001`.
        batch_size: Integer, the only batch size of `"stablehlo"` and `"ahead_of_time"`. Defaults to `1`.

    Returns:
        An `XLAReport`.

    Raises:
        ValueError: If an argument is invalid, if the Keras backend cannot write the format, if XLA cannot compile the
            model, or if the outputs differ by more than `tolerance`.

    Example:

    >>> import os, tempfile
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = kp.export_xla(model, os.path.join(folder, "model.stablehlo"), "stablehlo")
    ...     os.listdir(folder)
    ['model.stablehlo']
    >>> report.relative_difference < 1e-5
    True
    """
    backend = keras.backend.backend()
    formats = FORMATS.get(backend, {})
    if format not in list(formats):
        raise ValueError(
            f"`format` must be one of {list(formats)} with the Keras backend {backend!r}. Save the model, and load it "
            f"with KERAS_BACKEND=tensorflow for {list(FORMATS['tensorflow'])}. Received: format={format!r}"
        )
    require_path("filepath", filepath)
    check_limits(tolerance, batch_size)
    with exporting(model, filepath, x, batch_size) as (plain, sample, folder):
        path = os.path.join(folder, "export")
        try:
            with caught_output():
                formats[format].write(plain, path, sample.runs[0])
                outputs = formats[format].run(path, sample)
            candidate = verify(path, outputs, sample.outputs, tolerance)
        except Exception as error:  # The passes of XLA raise any error.
            raise ValueError(
                f"The export does not compile, or its outputs are not those of the Keras model: {cause(error)}. "
                f"Received: model={model.name!r}, format={format!r}, tolerance={tolerance:g}, batch_size={batch_size}"
            ) from error
        report = XLAReport(
            path=os.fspath(filepath),
            format=format,
            bytes=candidate.bytes,
            difference=candidate.difference,
            relative_difference=candidate.relative_difference,
            samples=sample.size,
        )
        replace(candidate, filepath)
    return report
