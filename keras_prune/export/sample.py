"""Inputs to run an exported model on, and the outputs of the Keras model for them."""

import dataclasses
import re
from typing import Any

import keras
import numpy as np

from keras_prune import _keras
from keras_prune.models.graph import has_graph, is_graph

CALIBRATED = ("full_int8", "int8_only")  # Formats of TFLite whose activations are stored in ranges seen on inputs.
_SAMPLES = 8
_GATHERED = 1000  # Some hundred inputs calibrate a file, and a dataset may be endless.
_TAKEN = (
    "`x` must hold inputs as `model.predict` takes them: an array of shape (n, ...) for each input, alone, in a list "
    "or in a dict by the names of the inputs; or a generator, a function that returns one, or a tf.data.Dataset, of "
    "such batches"
)


@dataclasses.dataclass(frozen=True)
class Sample:
    """Inputs, and the outputs of the Keras model for them.

    Attributes:
        names: List of the names of the inputs in the file, in the order of `model.inputs`.
        inputs: List of one array `(n, ...)` for each input.
        runs: List of runs on the first of them, each a list of one array `(batch_size, ...)` for each input.
        outputs: Dict from the name of each output to an array `(runs, batch_size, ...)`.
    """

    names: list[str]
    inputs: list[np.ndarray]
    runs: list[list[np.ndarray]]
    outputs: dict[str, np.ndarray]

    @property
    def size(self) -> int:
        """Number of inputs in all runs."""
        return len(self.runs) * len(self.runs[0][0])


def take_sample(model, x, batch_size: int) -> Sample:
    """Returns the first 8 inputs, or one batch if that is more, with the outputs of a Keras model.

    Args:
        model: Keras model with `inputs`.
        x: Inputs of shape `(n, ...)`. `None` for random numbers from 0 to 1, and integers 0 and 1.
        batch_size: Integer.

    Raises:
        ValueError: If `x` does not fit the model or is smaller than a batch, if there is no `x` for inputs of unknown
            size, if the model takes text, or if an output is not finite.
    """
    dtypes = [tensor.dtype for tensor in model.inputs]
    if "string" in dtypes:
        raise ValueError(
            "Neither LiteRT nor XLA takes text. Export the part of the model behind the layer that converts text to "
            f"numbers. Received: model={model.name!r} with inputs of dtypes {dtypes}"
        )
    arrays = _random_inputs(model, batch_size) if x is None else flat_inputs(model, x)
    if len(arrays[0]) < batch_size:
        raise ValueError(
            f"`x` must hold at least one batch. Received: batch_size={batch_size}, x={len(arrays[0])} inputs"
        )
    count = max(1, min(_SAMPLES, len(arrays[0])) // batch_size)
    runs = [[array[run * batch_size :][:batch_size] for array in arrays] for run in range(count)]
    return Sample([input_name(tensor) for tensor in model.inputs], arrays, runs, _outputs(model, runs))


def gather(model, x):
    """Returns the first 1,000 inputs of an iterable of batches as a structure of arrays, and any other `x` unchanged.

    Args:
        model: Keras model.
        x: Inputs as `export_tflite` takes them. Targets and sample weights beside the inputs are left out.

    Raises:
        ValueError: If there is no batch, or the arrays of the batches do not go together.
    """
    batches: Any = x() if callable(x) else x
    if isinstance(batches, (str, list, tuple, dict)) or hasattr(batches, "shape") or not hasattr(batches, "__iter__"):
        return x
    count = len(model.inputs) if has_graph(model) else None
    gathered, size = [], 0
    for batch in batches:
        # TensorFlow's converter takes a list of inputs, and Keras a tuple of inputs, targets and sample weights.
        whole = len(keras.tree.flatten(batch)) == count
        inputs = batch if whole else keras.utils.unpack_x_y_sample_weight(batch)[0]
        gathered.append(keras.tree.map_structure(np.asarray, inputs))
        size += max((len(array) for array in keras.tree.flatten(gathered[-1]) if array.ndim), default=0)
        if size >= _GATHERED:
            break
    try:
        return keras.tree.map_structure(lambda *arrays: np.concatenate(arrays)[:_GATHERED], *gathered)
    except (TypeError, ValueError) as error:
        shapes = [[array.shape for array in keras.tree.flatten(inputs)] for inputs in gathered[:3]]
        raise ValueError(f"{_TAKEN}. Received: x={x!r} with {len(gathered)} batches, shapes {shapes}") from error


def _random_inputs(model, batch_size):
    if any(None in tensor.shape[1:] for tensor in model.inputs):
        raise ValueError(
            "The model takes inputs of any size. Pass inputs as `x`, so that the file can be compared with the model. "
            f"Received: x=None for inputs of shapes {[tensor.shape for tensor in model.inputs]}"
        )
    random = np.random.default_rng(0)
    count = max(1, _SAMPLES // batch_size) * batch_size
    arrays = []
    for tensor in model.inputs:
        # Embeddings take the integers, and most other layers the range of an image or a standardized number.
        draw = random.random((count, *tensor.shape[1:]), "float32")
        arrays.append((draw if "float" in tensor.dtype else draw < 0.5).astype(tensor.dtype))
    return arrays


def _outputs(model, runs):
    outputs: dict[str, list[np.ndarray]] = {}
    for run in runs:
        result = model(pack_inputs(model, run), training=False)
        named = result if isinstance(result, dict) else enumerate_outputs(keras.tree.flatten(result))
        for name, array in named.items():
            outputs.setdefault(name, []).append(keras.ops.convert_to_numpy(array))
    stacked = {name: np.stack(arrays) for name, arrays in outputs.items()}
    if bad := [name for name, array in stacked.items() if not np.all(np.isfinite(array))]:
        raise ValueError(
            "The outputs of the Keras model must be finite to be compared with those of the file. Pass inputs that the "
            f"model is made for as `x`. Received: model={model.name!r}, whose outputs {bad} are not finite"
        )
    return stacked


def input_name(tensor) -> str:
    """Returns the name of an input in a file: that of its input layer, which a copy keeps."""
    return re.sub(r"\W", "_", _layer_name(tensor))


def enumerate_outputs(arrays) -> dict:
    """Returns outputs by the names that an export gives them if the model has none."""
    return {f"output_{index}": array for index, array in enumerate(arrays)}


def pack_inputs(model, inputs):
    """Returns one value for each input of a model, in their order, in the structure that the model is called with."""
    return keras.tree.pack_sequence_as(_keras.graph_structures(model)[0], list(inputs))


def flat_inputs(model, x) -> list[np.ndarray]:
    """Returns a structure of arrays as one array for each input of the model, in their order and of their dtypes.

    Raises:
        ValueError: If the number, shapes or lengths of the arrays do not fit the inputs of the model.
    """
    names = [_layer_name(tensor) for tensor in model.inputs]
    if isinstance(x, dict) and set(x) == set(names):
        x = [x[name] for name in names]
    arrays = [np.asarray(array) for array in keras.tree.flatten(x)]
    lengths = {array.shape[:1] for array in arrays}
    of_one_length = len(lengths) == 1 and not lengths <= {(), (0,)}
    if len(arrays) != len(names) or not of_one_length or not all(map(_fits, arrays, model.inputs)):
        raise ValueError(
            f"{_TAKEN}. The shapes here are {[tensor.shape for tensor in model.inputs]}. "
            f"Received: x={[(array.shape, array.dtype.name) for array in arrays]} in a {type(x).__name__}"
        )
    return [array.astype(tensor.dtype) for array, tensor in zip(arrays, model.inputs, strict=True)]


def _fits(array, tensor) -> bool:
    sizes, wanted = array.shape[1:], tensor.shape[1:]
    return (
        array.dtype.kind not in "OSU"
        and len(sizes) == len(wanted)
        and all(w in (None, size) for size, w in zip(sizes, wanted, strict=True))
    )


def with_graph(model, x):
    """Returns the model with a graph, and with outputs in at most one list or dict, as the file formats have them.

    A subclassed model becomes the only layer of a Functional model with inputs such as `x`. Nested inputs and outputs
    are named by their places: `"a_0"` is the first of the list under `"a"`.

    Raises:
        ValueError: If the model is subclassed and `x` is `None`, or two places have the same name.
    """
    if is_graph(model):
        inputs, outputs = _keras.graph_structures(model)
        named = _named_outputs(outputs)
        return model if named is outputs else keras.Model(inputs, named, name=model.name)
    if x is None:
        raise ValueError(
            "The inputs of a subclassed model are unknown. Pass inputs as `x`. "
            f"Received: x=None, model={model.name!r} of class {type(model).__name__}"
        )
    arrays = [np.asarray(array) for array in keras.tree.flatten(x)]
    names = ["inputs"] if len(arrays) == 1 and not isinstance(x, dict) else _places(x, "input")
    inputs = [
        keras.Input(array.shape[1:], dtype=_input_dtype(array.dtype), name=name)
        for array, name in zip(arrays, names, strict=True)
    ]
    inputs = keras.tree.pack_sequence_as(x, inputs)
    return keras.Model(inputs, _named_outputs(model(inputs, training=False)), name=model.name)


def _layer_name(tensor) -> str:
    return _keras.origin_of(tensor)[0].name


def _input_dtype(dtype) -> str:
    return {"f": "float32", "O": "string", "S": "string", "U": "string"}.get(dtype.kind) or dtype.name


def _named_outputs(outputs):
    """Returns a tensor or a flat list or dict of outputs unchanged, and other structures as a flat dict."""
    if all(len(path) < 2 for path, _ in keras.tree.flatten_with_path(outputs)):
        return outputs
    return dict(zip(_places(outputs, "output"), keras.tree.flatten(outputs), strict=True))


def _places(structure, kind: str) -> list[str]:
    """Returns a name for each leaf: its keys and indices, after the kind if the structure is not a dict."""
    paths = [path for path, _ in keras.tree.flatten_with_path(structure)]
    start = () if isinstance(structure, dict) else (kind,)
    names = ["_".join(map(str, (*start, *path))).replace("/", "_") for path in paths]  # Keras names have no slash.
    if len(set(names)) < len(names):
        raise ValueError(
            f"Nested {kind}s are named by their places, which must give different names. Rename some. "
            f"Received: {kind}s={names}"
        )
    return names
