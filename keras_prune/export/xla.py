"""Pruned models compiled by XLA: SavedModel, StableHLO, and objects to link into a C++ program."""

import dataclasses
import numbers
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import keras
import numpy as np

from keras_prune.export.refusals import refuse_layers
from keras_prune.export.verification import (
    VerificationError,
    cause,
    enumerate_outputs,
    input_name,
    keras_outputs,
    largest_difference,
    number_of_samples,
    pack_inputs,
    sample_runs,
    with_graph,
)
from keras_prune.models.rebuild import plain_model

_FORMATS = {"tensorflow": ("saved_model", "stablehlo", "ahead_of_time"), "jax": ("stablehlo",)}
_NAMES = {"saved_model": "saved_model", "ahead_of_time": "ahead_of_time", "stablehlo": "model.stablehlo"}


@dataclasses.dataclass(frozen=True)
class XLAReport:
    """What `export_xla` wrote; `print` it for one line each.

    Attributes:
        paths: Dict from format to path.
        bytes: Dict from format to size, that of all its files.
        differences: Dict from format to the largest difference from an output of the Keras model, relative to the
            largest magnitude in the same output; `None` for `"ahead_of_time"`, which runs only once it is linked.
        samples: Integer, how many inputs that was measured on.
    """

    paths: dict[str, str]
    bytes: dict[str, int]
    differences: dict[str, float | None]
    samples: int

    def __str__(self):
        lines = []
        for name, path in self.paths.items():
            difference = self.differences[name]
            proof = (
                "compiled; it runs once it is linked"
                if difference is None
                else f"largest difference {difference:.1e} of the largest output, on {self.samples} inputs"
            )
            lines.append(f"{path}: {self.bytes[name]:,} bytes, {proof}")
        return "\n".join(lines)


def export_xla(model, directory, formats=None, data=None, tolerance: float = 1e-3, batch_size: int = 1) -> XLAReport:
    """Writes a model in the formats that XLA compiles, with its weights inside.

    Each is loaded and compared with the Keras model before it is put in its place; an ahead-of-time object can be run
    only by the program that it is linked into (examples/ahead_of_time has one). XLA computes with zeros as with any
    other number and stores them: what pruning saves here is what `remove_dead_neurons` takes away, or a compressed
    archive. Nested outputs are named by their places, `"a_0"` the first of the list under `"a"`. A pruned model
    is exported as the plain one, without masks, and stays pruned.

    Args:
        model: Built Keras model, plain or pruned; a subclassed one takes `data`. It is not changed.
        directory: String or path object, where the formats go under their own names. It is made if need be, with
            its parents. What it holds under those names is replaced, folders as a whole, and the rest stays.
        formats: List of strings. `"saved_model"`: a TensorFlow SavedModel for any batch size whose serving function
            is compiled (`jit_compile=True`), in `saved_model/`; `"stablehlo"`: the portable `model.stablehlo`, with
            the JAX backend what `jax.export.deserialize` reads; `"ahead_of_time"`: object files and a C++ header
            with a class `PrunedModel`, from TensorFlow's own compiler, in `ahead_of_time/`; several inputs or outputs
            go there by their names (`arg_feed_image_data()`, `result_fetch_output_0_data()`). Defaults to `None`, all
            that the Keras backend can write: those three with TensorFlow, `"stablehlo"` with JAX.
        data: Inputs of shape `(n, ...)`, a structure of arrays as `model.predict` takes it, on the first 8 of which
            the outputs are compared. Defaults to `None`: random numbers from 0 to 1, and integers 0 and 1.
        tolerance: Float, the largest difference allowed, relative to the largest magnitude in the same output.
            Defaults to `0.001`.
        batch_size: Integer, the one batch size of `"stablehlo"` and `"ahead_of_time"`. Defaults to `1`.

    Returns:
        An `XLAReport`.

    Raises:
        ValueError: If an argument is none of the above, if the Keras backend cannot write a format, if the model has
            layers of `to_sparse` that XLA does not compile, or if what was written does not compile or differs by more
            than `tolerance`.

    Example:

    >>> import os, tempfile
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     report = kp.export_xla(model, folder, formats=["stablehlo"])
    ...     os.listdir(folder)
    ['model.stablehlo']
    >>> report.differences["stablehlo"] < 1e-5
    True
    """
    backend = keras.backend.backend()
    known = _FORMATS.get(backend, ())
    formats = known if formats is None else formats
    if not known or not formats or isinstance(formats, str) or any(name not in known for name in formats):
        raise ValueError(
            f"formats must be a list of some of {list(known)}, which are what can be written with the Keras backend "
            f"{backend!r}; save the model and load it with KERAS_BACKEND=tensorflow for all three. Received: "
            f"formats={formats!r}"
        )
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1. Received: batch_size={batch_size!r}")
    if not (isinstance(tolerance, numbers.Real) and tolerance >= 0):
        raise ValueError(f"tolerance must be a number of at least 0. Received: tolerance={tolerance!r}")
    target = pathlib.Path(os.path.realpath(directory))
    existing = next(folder for folder in (target, *target.parents) if folder.exists())
    if not existing.is_dir():
        raise ValueError(f"directory must be a directory. Received: directory={os.fspath(directory)!r}")
    with plain_model(model) as plain:
        return _export(plain, target, existing, directory, formats, data, tolerance, batch_size)


def _export(model, target, existing, directory, formats, data, tolerance, batch_size):
    refuse_layers(model)
    model = with_graph(model, data)
    runs = sample_runs(model, data, batch_size)
    expected = keras_outputs(model, runs)
    differences: dict[str, float | None] = {}
    # Its parent may be another disk, from which nothing can be renamed into it.
    with tempfile.TemporaryDirectory(dir=existing, prefix=".export_xla_") as folder:
        paths = {name: os.path.join(folder, _NAMES[name]) for name in formats}
        for name, path in paths.items():
            try:
                if name == "ahead_of_time":
                    _compile_ahead_of_time(model, runs[0], path)
                    differences[name] = None
                    continue
                if name == "saved_model":
                    _save(model, path, [(None, *tensor.shape[1:]) for tensor in model.inputs])
                    outputs = _run_saved_model(model, path, runs)
                else:
                    is_jax = keras.backend.backend() == "jax"
                    write, run = (_lower_jax, _run_jax) if is_jax else (_lower, _run)
                    write(model, path, runs[0])
                    outputs = enumerate_outputs(run(path, runs, list(expected.values())))
                    outputs = dict(zip(expected, outputs.values(), strict=True))
                differences[name] = largest_difference(outputs, expected, tolerance)[1]
            except Exception as error:  # XLA raises whatever its passes do.
                raise ValueError(
                    "What is written must compile and compute what the model computes in Keras, and with the format "
                    f"{name!r} it does not: {cause(error)}. Received: model={model.name!r}, tolerance={tolerance:g}, "
                    f"batch_size={batch_size}"
                ) from error
        sizes = {name: _bytes(path) for name, path in paths.items()}
        os.makedirs(target, exist_ok=True)
        for path in paths.values():
            place = os.path.join(target, os.path.basename(path))
            if os.path.isdir(place):
                os.rename(place, f"{path}.old")  # It goes with the temporary directory.
            os.replace(path, place)
    places = {name: os.path.join(os.fspath(directory), _NAMES[name]) for name in formats}
    return XLAReport(places, sizes, differences, number_of_samples(runs))


def _save(model, path, shapes):
    """Writes a SavedModel whose serving function XLA compiles."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec(shape, tensor.dtype, name=input_name(tensor))
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    function = tf.function(
        lambda inputs: model(inputs, training=False), jit_compile=True, input_signature=[pack_inputs(model, specs)]
    )
    archive = keras.export.ExportArchive()  # To `track` the model as well would store its variables twice.
    archive.add_endpoint("serve", function)
    archive.write_out(path, verbose=False)


def _run_saved_model(model, path, runs):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    serve = loaded.signatures["serving_default"]
    names = [input_name(tensor) for tensor in model.inputs]
    results = [serve(**{name: tf.constant(a) for name, a in zip(names, run, strict=True)}) for run in runs]
    return {name: np.stack([result[name].numpy() for result in results]) for name in results[0]}


def _frozen(model):
    """Returns a function of the model's inputs, in their order, with its weights inside as constants."""
    trainable = [keras.ops.convert_to_numpy(variable.value) for variable in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(variable.value) for variable in model.non_trainable_variables]

    def call(*inputs):
        constants = [[keras.ops.convert_to_tensor(value) for value in values] for values in (trainable, others)]
        outputs, _ = model.stateless_call(*constants, pack_inputs(model, inputs), training=False)
        return list(outputs.values()) if isinstance(outputs, dict) else keras.tree.flatten(outputs)

    return call


def _lower(model, path, inputs):
    import tensorflow as tf

    specs = [tf.TensorSpec(array.shape, array.dtype) for array in inputs]
    function = tf.function(_frozen(model), jit_compile=True)
    with open(path, "xb") as file:
        file.write(function.experimental_get_compiler_ir(*specs)(stage="stablehlo_serialized"))


def _run(path, runs, expected):
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    with open(path, "rb") as file:
        module = file.read()
    types = {"Tout": [array.dtype for array in expected], "Sout": [array.shape[1:] for array in expected]}

    @tf.function(jit_compile=True)
    def call(*inputs):
        return xla.call_module(inputs, version=9, module=module, platforms=["CPU"], **types)

    return [np.stack(arrays) for arrays in zip(*(call(*run) for run in runs), strict=True)]


def _lower_jax(model, path, inputs):
    import jax

    shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in inputs]
    with open(path, "xb") as file:
        file.write(jax.export.export(jax.jit(_frozen(model)))(*shapes).serialize())


def _run_jax(path, runs, expected):
    import jax

    with open(path, "rb") as file:
        exported = jax.export.deserialize(bytearray(file.read()))
    return [np.stack(arrays) for arrays in zip(*(exported.call(*run) for run in runs), strict=True)]


def _compile_ahead_of_time(model, inputs, path):
    """Writes object files and a header by TensorFlow's `saved_model_cli`, which compiles what it can freeze."""
    with tempfile.TemporaryDirectory(dir=os.path.dirname(path)) as folder:
        _save(model, folder, [array.shape for array in inputs])
        os.mkdir(path)
        tool = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", "aot_compile_cpu", "--dir", folder]
        signature = ["--tag_set", "serve", "--signature_def_key", "serving_default"]
        outputs = ["--output_prefix", os.path.join(path, "model"), "--cpp_class", "PrunedModel"]
        done = subprocess.run([*tool, *signature, *outputs], capture_output=True, text=True, check=False)
    if done.returncode:
        raise VerificationError(f"saved_model_cli ends with {done.stderr.strip().splitlines()[-1]}")
    os.remove(os.path.join(path, "model_makefile.inc"))  # It holds the paths of this machine,
    os.remove(os.path.join(path, "model_metadata.o"))  # and this a copy of the weights that nothing refers to.
    header = os.path.join(path, "model.h")
    with open(header, encoding="utf-8") as file:
        content = file.read()
    with open(header, "w", encoding="utf-8") as file:
        file.write(_without_numbers(content))


def _without_numbers(header: str) -> str:
    """Returns a header whose inputs and outputs, where there are several, have their names alone.

    TensorFlow numbers them anew each time that it compiles the same model.
    """
    for kind in ("arg", "result"):
        numbered = rf"^  \S.*\b(?:set_)?{kind}\d+(?:_\w+)?\(.*\{{\n(?:    .*\n)+  \}}\n\n?"
        if re.search(rf"\b{kind}1_data\(", header):
            note = f"  // The methods {kind}N are left out: their numbers change from one export to the next.\n\n"
            header = re.sub(numbered, "", re.sub(numbered, note, header, count=1, flags=re.M), flags=re.M)
    return header


def _bytes(path) -> int:
    if os.path.isfile(path):
        return os.path.getsize(path)
    return sum(os.path.getsize(os.path.join(root, name)) for root, _, names in os.walk(path) for name in names)
