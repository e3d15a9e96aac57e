"""Sparse model files: the surviving weights, their relative indices and the model's config in one file.

The header (see `checked_file`) holds the model's Keras config and a `WeightStorage` for each of `model.weights`; the
payload holds the weights one after the other (see `weight_storage`).

Nothing is entropy-coded: on LeNet-300-100 at 12x (fc1 8 %, fc2 9 %, fc3 26 %) the indices of 5 bits bring the weights
to within 1 % of the values and the entropy of a random mask.
"""

import functools
import json
import os
from itertools import accumulate
from typing import Any

import keras
import numpy as np

# Keras documents no way to build a model without allocating it, nor to insist on safe mode where it is disabled
# globally; both names have been stable since Keras 3.0.
from keras.src.backend.common import global_state
from keras.src.saving.serialization_lib import SafeModeScope

from keras_prune.models.rebuild import plain_model
from keras_prune.rules.chunks import on_host
from keras_prune.storage.checked_file import open_checked, write_checked
from keras_prune.storage.codecs import WeightStorage, decode_weight, encode_weight, measure
from keras_prune.storage.relative_index import WIDTHS


def storage_sizes(model, index_bits: int | str | None = None, value_dtype: str = "float32") -> list[WeightStorage]:
    """Returns what `save_sparse` would write for each weight, without writing it.

    Args:
        model: Built Keras model, plain or pruned. Masks and thresholds are not counted.
        index_bits: As in `save_sparse`. Defaults to `None`.
        value_dtype: As in `save_sparse`. Defaults to `"float32"`.

    Returns:
        A list with a `WeightStorage` for every weight, in the order of `model.weights`.

    Raises:
        ValueError: If an argument is none of the above, or a weight is of a dtype that cannot be stored.

    Example:

    >>> from keras_prune.storage.sparse_file import storage_sizes
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300, name="fc1")])
    >>> kernel = np.where(np.arange(784 * 300) % 12 == 0, 1.0, 0.0).reshape(784, 300)
    >>> model.set_weights([kernel, np.zeros(300)])
    >>> row = storage_sizes(model)[0]
    >>> row.dense_bytes, row.value_bytes, row.index_bytes, row.index_bits
    (940800, 78400, 12251, 5)
    """
    _require_built(model)
    return _measure(model.weights, index_bits, value_dtype)


def save_sparse(model, path, index_bits: int | str | None = None, value_dtype: str = "float32") -> None:
    """Writes a model into one file in which cut connections take next to nothing.

    The surviving values are stored with relative indices (Han et al. 2015), and weights
    that would not shrink are stored dense. A model that `load_sparse` could not rebuild is refused. The file appears
    whole or not at all: whatever `path` held before is replaced at the very end. One weight at a time is held in memory
    beside the model. Of a pruned model, the plain one is written, without masks and criteria.

    The zeros of a pruned model are +0. A weight that was multiplied by a mask holds -0 where it was negative, which
    is stored like any other value, as the file is exact: cut with `where(mask, weight, 0)`.

    Args:
        model: Built Keras model, plain or pruned. It is not changed.
        path: String or path object, such as `"lenet.kprune"`.
        index_bits: Integer from 1 to 16, the bits of a relative index; or `"smallest"`, for each weight the width
            that takes least. Defaults to `None`: 5 for matrices, 8 for weights of more dimensions, the kernels of
            convolutions, as in the paper.
        value_dtype: `"float32"`, bit for bit, or `"float16"`, which rounds the float32 weights of two or more
            dimensions; biases, statistics and other dtypes stay as they are. Defaults to `"float32"`.

    Raises:
        ValueError: If an argument is none of the above, if the model is not built, has state outside its weights
            (vocabularies, LoRA), or cannot be rebuilt from its config without running code from it (Python lambdas,
            stateful RNNs), or if a weight is of another dtype or too large for float16.

    Example:

    >>> import os, tempfile
    >>> from keras_prune.storage.sparse_file import load_sparse, save_sparse
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300)])
    >>> model.set_weights([np.eye(784, 300), np.zeros(300)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "model.kprune")
    ...     save_sparse(model, path)
    ...     loaded, size = load_sparse(path), os.path.getsize(path)
    >>> bool(np.all(loaded.get_weights()[0] == np.eye(784, 300))), size < 10_000
    (True, True)
    """
    _require_built(model)
    with plain_model(model) as plain:
        _write(plain, path, index_bits, value_dtype)


def _write(model, path, index_bits, value_dtype) -> None:
    _layer_states(model)
    rows = _measure(model.weights, index_bits, value_dtype)
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        classes = {type(layer).__name__: type(layer) for layer in model._flatten_layers()}
        _rebuild(json.loads(json.dumps(config)), rows, classes)
    except Exception as error:  # Keras, and the get_config of custom layers, raise whatever they like.
        raise ValueError(
            "The model must be one that Keras can rebuild from its config without running code stored in it. Register "
            "custom classes and functions with keras.saving.register_keras_serializable, replace Lambda layers, build "
            "RNNs with stateful=False, and create variables with add_weight(shape=..., initializer=...). "
            f"Received: model={model.name!r}, which failed with: {error}"
        ) from error
    header = {"model": config, "weights": [row._asdict() for row in rows]}
    pieces = (
        piece for row, weight in zip(rows, model.weights, strict=True) for piece in encode_weight(row, _array(weight))
    )
    write_checked(path, header, pieces, sum(row.stored_bytes for row in rows))


def load_sparse(path, custom_objects=None):
    """Reads a model that `save_sparse` wrote.

    Length, version and checksum are verified before anything is built. No code from the file is run: it holds
    numbers and a Keras config, which is read in safe mode. The model's weights are allocated only after the file has
    shown to hold them: every 65,535 zeros that a weight claims cost at least 16 bits.

    Args:
        path: String or path object.
        custom_objects: Dict from name to class or function, for those in the model that are not registered with
            Keras. Defaults to `None`.

    Returns:
        A plain Keras model, not compiled.

    Raises:
        ValueError: If the file is truncated, altered, of another version or no such file at all, or if the model's
            config cannot be rebuilt.

    Example:

    >>> import os, tempfile
    >>> from keras_prune.storage.sparse_file import load_sparse, save_sparse
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")], name="small")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_sparse(model, os.path.join(folder, "model.kprune"))
    ...     loaded = load_sparse(os.path.join(folder, "model.kprune"))
    >>> loaded.name, np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    ('small', True)
    """
    with open_checked(path) as (header, payload_bytes, file):
        try:
            rows = [WeightStorage.from_header(row) for row in header["weights"]]
            if sum(row.stored_bytes for row in rows) != payload_bytes:
                raise ValueError(f"the weights should fill the {payload_bytes} bytes of the payload")
            starts = list(accumulate((row.stored_bytes for row in rows), initial=file.tell()))

            def read(position, shape, dtype):
                file.seek(starts[position])
                return decode_weight(rows[position], file)

            model = _rebuild(header["model"], rows, custom_objects, read)
            for layer, state in _layer_states(model):
                # It has its values, but a Normalization, for one, has more to do once it has its statistics.
                values = {key: model.weights[position].value for key, position in state.items()}
                layer.load_own_variables({key: keras.ops.stop_gradient(value) for key, value in values.items()})
        except Exception as error:  # A header from outside can make Keras raise anything.
            raise ValueError(
                "Expected a model that Keras can rebuild without running code stored in the file; classes and "
                "functions that are not registered with Keras go into custom_objects. "
                f"Received: path={os.fspath(path)!r}, which failed with: {error}"
            ) from error
    return model


def _require_built(model):
    if not isinstance(model, keras.Model) or not model.built:
        raise ValueError(
            "Expected a built Keras 3 model. Give it a keras.Input((...)) as its first layer, or call "
            f"model.build(input_shape) first. Received: model={model!r} of type {type(model).__name__}"
        )


def _measure(weights, index_bits, value_dtype) -> list[WeightStorage]:
    if not (index_bits in (None, "smallest") or (type(index_bits) is int and index_bits in WIDTHS)):
        raise ValueError(
            "index_bits must be an integer from 1 to 16, 'smallest', or None for 5 bits in matrices and 8 in the "
            f"kernels of convolutions. Received: index_bits={index_bits!r}"
        )
    if value_dtype not in ("float32", "float16"):
        raise ValueError(f"value_dtype must be 'float32' or 'float16'. Received: value_dtype={value_dtype!r}")
    return [measure(weight.path, _array(weight), index_bits, value_dtype) for weight in weights]


def _array(weight) -> np.ndarray:
    # JAX holds a variable of 64 bits in 32 unless told otherwise; the file holds what the config declares.
    return on_host(weight.value).astype(weight.dtype, copy=False)


def _own_variables(layer) -> dict[str, Any]:
    variables: dict[str, Any] = {}
    layer.save_own_variables(variables)
    return variables


def _layer_states(model) -> list[tuple[keras.Layer, dict[str, int]]]:
    """Returns every layer with the keys of its state, each with the position of that weight in `model.weights`."""
    positions = {id(weight): position for position, weight in enumerate(model.weights)}
    states = []
    for layer in model._flatten_layers():
        variables = _own_variables(layer)
        if hasattr(layer, "save_assets") or any(id(variable) not in positions for variable in variables.values()):
            raise ValueError(
                "A sparse model file holds weights and nothing else. Move layers with a vocabulary out of the model, "
                "and merge LoRA weights first. "
                f"Received: layer {layer.name!r} of class {type(layer).__name__}, which has other state"
            )
        states.append((layer, {key: positions[id(variable)] for key, variable in variables.items()}))
    lost = set(range(len(positions))).difference(*(state.values() for _, state in states))
    if lost:
        raise ValueError(
            "Every weight must be saved by the layer that has it (`save_own_variables`); merge LoRA weights first. "
            f"Received: weights that none saves, {[model.weights[position].path for position in sorted(lost)]}"
        )
    return states


def _rebuild(config, rows, custom_objects, read=None):
    """Builds the model from its config, and allocates its weights only if they are those of `rows` and can be read."""
    declared = global_state.get_global_attribute("uninitialized_variables", [], set_to_default=True)
    before = len(declared)
    try:
        # In this scope layers declare their weights, and no memory is taken for them.
        with keras.StatelessScope(initialize_variables=False), SafeModeScope(True):
            model = keras.saving.deserialize_keras_object(config, custom_objects=custom_objects, safe_mode=True)
        if not isinstance(model, keras.Model):
            raise ValueError(f"the config describes {model!r}, which is no model")
        weights = [(tuple(weight.shape), str(weight.dtype)) for weight in model.weights]
        stored = [(row.shape, row.dtype) for row in rows]
        if weights != stored:
            raise ValueError(f"the config describes the weights {weights}, but those stored are {stored}")
        if read is not None:
            for position, weight in enumerate(model.weights):
                weight._initializer = functools.partial(read, position)
            with keras.StatelessScope():
                pass  # On leaving it, Keras initialises what has been declared.
    finally:
        del declared[before:]
    return model
