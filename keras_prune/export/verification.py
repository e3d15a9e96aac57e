"""Inputs for an exported file, what the Keras model makes of them, and how far the file's outputs are from that."""

import math
import re
import textwrap

import keras
import numpy as np

from keras_prune.models.graph import is_graph

_SAMPLES = 8


class VerificationError(ValueError):
    """An exported file does not load, does not run, or computes something else than the model."""


def input_name(tensor) -> str:
    """Returns the name that an input of a Keras model gets in a file: that of its input layer, which a copy keeps."""
    return re.sub(r"\W", "_", tensor._keras_history.operation.name)


def with_graph(model, data):
    """Returns the model as one that has a graph, and outputs in at most one list or dict, as the formats have them.

    A subclassed model becomes the only layer of a Functional model that takes inputs such as `data`. Nested inputs and
    outputs get the names of their places: `"a_0"` is the first of the list under `"a"`.

    Raises:
        ValueError: If it is subclassed and there is no data.
    """
    if is_graph(model):
        function = getattr(model, "_functional", model)  # What a Sequential model keeps its graph in.
        inputs, outputs = function._inputs_struct, function._outputs_struct
        named = _named_outputs(outputs)
        return model if named is outputs else keras.Model(inputs, named, name=model.name)
    if data is None:
        raise ValueError(
            "A subclassed model does not say what it takes: data=inputs shows it. "
            f"Received: model={model.name!r} of class {type(model).__name__}, data=None"
        )
    arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
    names = ["inputs"] if len(arrays) == 1 and not isinstance(data, dict) else _places(data, "input")
    inputs = [
        keras.Input(array.shape[1:], dtype=_input_dtype(array.dtype), name=name)
        for array, name in zip(arrays, names, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(data, inputs)
    return keras.Model(inputs, _named_outputs(model(inputs, training=False)), name=model.name)


def _input_dtype(dtype) -> str:
    return {"f": "float32", "O": "string", "S": "string", "U": "string"}.get(dtype.kind, dtype.name)


def _named_outputs(outputs):
    """Returns a structure of outputs as it is where it is a tensor, or a flat list or dict, and else as a flat dict."""
    if all(len(path) < 2 for path, _ in keras.tree.flatten_with_path(outputs)):
        return outputs
    return dict(zip(_places(outputs, "output"), keras.tree.flatten(outputs), strict=True))


def _places(structure, kind: str) -> list[str]:
    """Returns names for what a structure holds: its keys and numbers, behind its kind where it is no dict."""
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    start = () if isinstance(structure, dict) else (kind,)
    names = ["_".join(map(str, (*start, *path))).replace("/", "_") for path in paths]  # Keras names have no slash.
    if len(set(names)) < len(names):
        raise ValueError(
            f"Nested {kind}s are named by their places, which must give different names: rename some. "
            f"Received: {kind}s named {names}"
        )
    return names


def pack_inputs(model, inputs):
    """Returns one value for each input of a model, in their order, in the structure that the model is called with."""
    # Keras has no public name for that structure; a Sequential model takes a single input as it is.
    structure = getattr(model, "_inputs_struct", None)
    return inputs[0] if structure is None else keras.tree.pack_sequence_as(structure, list(inputs))


def flat_inputs(model, data) -> list[np.ndarray]:
    """Returns a structure of arrays as one array for each input of the model, in their order and of their dtypes.

    Raises:
        ValueError: If there are not as many arrays of such shapes, all of one length, as the model has inputs.
    """
    names = [tensor._keras_history.operation.name for tensor in model.inputs]
    if isinstance(data, dict) and set(data) == set(names):
        data = [data[name] for name in names]
    arrays = [np.asarray(array) for array in keras.tree.flatten(data)]
    lengths = {array.shape[:1] for array in arrays}
    if (
        len(arrays) != len(names)
        or len(lengths) != 1
        or lengths <= {(), (0,)}
        or not all(map(_fits, arrays, model.inputs))
    ):
        raise ValueError(
            "data must be inputs as model.predict takes them, as many of each, here of the shapes "
            f"{[tensor.shape for tensor in model.inputs]}. Received: data with arrays of shapes "
            f"{[array.shape for array in arrays]}"
        )
    return [array.astype(tensor.dtype) for array, tensor in zip(arrays, model.inputs, strict=True)]


def _fits(array, tensor) -> bool:
    sizes, wanted = array.shape[1:], tensor.shape[1:]
    return len(sizes) == len(wanted) and all(w in (None, size) for size, w in zip(sizes, wanted, strict=True))


def sample_runs(model, data, batch_size: int) -> list[list[np.ndarray]]:
    """Returns what a file is run on: a list of runs, each with one array `(batch_size, ...)` for each input.

    Args:
        model: Keras model with `inputs`.
        data: Inputs of shape `(n, ...)`, of which the first 8 are taken, or one batch if that is more; `None` for
            random numbers from 0 to 1, and integers 0 and 1.
        batch_size: Integer.

    Raises:
        ValueError: If the data is not of the model's shapes or less than a batch, if there is none and a dimension
            besides the batch is not known, or if the model takes text.
    """
    dtypes = [tensor.dtype for tensor in model.inputs]
    if "string" in dtypes:
        raise ValueError(
            "Neither LiteRT nor XLA takes text: export the part of the model behind the layer that makes numbers of "
            f"it. Received: model={model.name!r} with inputs of dtypes {dtypes}"
        )
    if data is None:
        if any(None in tensor.shape[1:] for tensor in model.inputs):
            raise ValueError(
                "The model takes inputs of any size; data=inputs says on which to compare the file with the model. "
                f"Received: data=None for inputs of shapes {[tensor.shape for tensor in model.inputs]}"
            )
        random = np.random.default_rng(0)
        count = max(1, _SAMPLES // batch_size) * batch_size
        arrays = []
        for tensor in model.inputs:
            # Embeddings take the integers, and most other layers what an image or a standardised number may be.
            draw = random.random((count, *tensor.shape[1:]), "float32")
            arrays.append((draw if "float" in tensor.dtype else draw < 0.5).astype(tensor.dtype))
    else:
        arrays = flat_inputs(model, data)
        if len(arrays[0]) < batch_size:
            raise ValueError(
                f"data must hold a batch at least. Received: batch_size={batch_size} and {len(arrays[0])} inputs"
            )
    runs = max(1, min(_SAMPLES, len(arrays[0])) // batch_size)
    return [[array[run * batch_size :][:batch_size] for array in arrays] for run in range(runs)]


def keras_outputs(model, runs) -> dict[str, np.ndarray]:
    """Returns what a Keras model computes, under the names that its export gives the outputs.

    Args:
        model: Keras model.
        runs: What `sample_runs` returns.

    Returns:
        Arrays of shape `(runs, batch_size, ...)`.

    Raises:
        ValueError: If an output is not finite.
    """
    outputs: dict[str, list[np.ndarray]] = {}
    for run in runs:
        result = model(pack_inputs(model, run), training=False)
        named = result if isinstance(result, dict) else enumerate_outputs(keras.tree.flatten(result))
        for name, array in named.items():
            outputs.setdefault(name, []).append(keras.ops.convert_to_numpy(array))
    stacked = {name: np.stack(arrays) for name, arrays in outputs.items()}
    bad = [name for name, array in stacked.items() if not np.all(np.isfinite(array))]
    if bad:
        raise ValueError(
            "The model's own outputs must be finite for a file to be compared with them. Pass data=inputs that the "
            f"model is made for. Received: model={model.name!r}, whose outputs {bad} are not"
        )
    return stacked


def enumerate_outputs(arrays) -> dict:
    """Returns the outputs under the names that an export gives those of a model without names for them."""
    return {f"output_{index}": array for index, array in enumerate(arrays)}


def largest_difference(outputs, expected, tolerance: float) -> tuple[float, float]:
    """Returns the largest difference between two sets of outputs, and the largest relative to its own output.

    Args:
        outputs: Dict of arrays.
        expected: Dict of arrays of the same shapes.
        tolerance: Float, how large the difference may be, relative to the largest magnitude in the same output.

    Raises:
        VerificationError: If it is larger, not a number, or the outputs are others.
    """
    shapes = {name: array.shape for name, array in outputs.items()}
    wanted = {name: array.shape for name, array in expected.items()}
    if shapes != wanted:
        raise VerificationError(f"it has the outputs {shapes} instead of {wanted}")
    absolute = relative = 0.0
    for name, array in outputs.items():
        difference = np.abs(array.astype("float64") - expected[name].astype("float64"))
        largest, scale = float(np.max(difference)), float(np.max(np.abs(expected[name].astype("float64"))))
        if not largest <= tolerance * scale:
            raise VerificationError(
                f"its output {name!r} differs by {largest:.3g}, where {tolerance:g} of the largest, {scale:.3g}, "
                "would be allowed"
            )
        absolute = max(absolute, largest)
        relative = max(relative, largest / scale if scale else 0.0)
    return absolute, relative


def cause(error) -> str:
    """Returns the message of an error on one line, without colours, cut off after 1,000 characters."""
    return textwrap.shorten(re.sub(r"\x1b\[\d*m", "", str(error)), 1000).rstrip(".") or repr(error)


def number_of_samples(runs) -> int:
    """Returns how many inputs `sample_runs` holds."""
    return math.prod((len(runs), len(runs[0][0])))
