"""Save models to files that store only their nonzero weights.

The header (see `checked_file`) holds the Keras config of the model, a list of its frozen models, and a `WeightStorage`
for each of `model.weights`. The payload holds the encoded weights one after the other (see `codecs`).

The relative indices are not entropy-coded, because there is little to gain. For LeNet-300-100 at 12x (fc1 8%, fc2 9%,
fc3 26%), indices of 5 bits are within 1% of the values and the entropy of a random mask.
"""

import dataclasses
import functools
import json
import math
import os
from itertools import accumulate
from typing import Any

import keras
import numpy as np

from keras_prune import _keras
from keras_prune._arguments import is_number, require_path
from keras_prune.layers.traversal import layers_in
from keras_prune.models.checks import require_built
from keras_prune.models.deserialize import deserialize
from keras_prune.models.rebuild import plain_model
from keras_prune.models.record import freeze, frozen_models
from keras_prune.rules.chunks import on_host
from keras_prune.storage.checked_file import open_checked, write_checked
from keras_prune.storage.codecs import WeightStorage, decode_weight, encode_weight, measure
from keras_prune.storage.config_check import require_harmless
from keras_prune.storage.relative_index import WIDTHS

# Formats of other programs, which would try to read the file.
_OTHER_SUFFIXES = (".keras", ".h5", ".hdf5", ".tflite", ".onnx", ".pb", ".pt", ".pth", ".safetensors", ".npz", ".json")
_SMALL_BYTES = 1 << 26
_EXPANSION = 10_000  # Weights take up to 65,535 times their bytes in the file, if they are zeros.


def storage_sizes(model, index_bits: int | str | None = None, value_dtype: str = "float32") -> list[WeightStorage]:
    """Returns the bytes that each weight takes in a file of `save_sparse`.

    Nothing is written. Masks and thresholds are not counted, because they are not saved.

    Args:
        model: Built Keras model, plain or pruned.
        index_bits: As in `save_sparse`. Defaults to `None`.
        value_dtype: As in `save_sparse`. Defaults to `"float32"`.

    Returns:
        A list with a `WeightStorage` for each weight, in the order of `model.weights`.

    Raises:
        ValueError: If the model is not built, `index_bits` or `value_dtype` is invalid, or a weight has a dtype that
            cannot be stored.

    Example:

    >>> from keras_prune.storage import storage_sizes
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300, name="fc1")])
    >>> kernel = np.where(np.arange(784 * 300) % 12 == 0, 1.0, 0.0).reshape(784, 300)
    >>> model.set_weights([kernel, np.zeros(300)])
    >>> fc1 = storage_sizes(model)[0]
    >>> fc1.dense_bytes, fc1.value_bytes, fc1.index_bytes, fc1.encoding
    (940800, 78400, 12251, 'relative_index')
    """
    require_built(model)
    return _measure(model.weights, index_bits, value_dtype)


def save_sparse(model, filepath, index_bits: int | str | None = None, value_dtype: str = "float32") -> None:
    """Saves a model to a file that stores only its nonzero weights.

    The nonzero values are stored with relative indices (Han et al. 2015), and weights that would not shrink are stored
    dense. A pruned model is saved as a plain model, without masks and criteria. Models that `load_sparse` could not
    rebuild are rejected.

    The file replaces a previous one only when it is complete. Besides the model, only one weight at a time is held in
    memory.

    The zeros of a pruned model are +0. If you multiply weights by a mask yourself, negative weights become -0, which is
    stored like any other value. Use `where(mask, weight, 0)` instead.

    Args:
        model: Built Keras model, plain or pruned. It is not changed.
        filepath: String or path object, such as `"lenet.kprune"`. It must not have the suffix of another format, such
            as `".keras"`.
        index_bits: Integer from 1 to 16, the bits of a relative index, or `"smallest"` for the best width of each
            weight. Defaults to `None`: as in the paper, 5 for matrices and 8 for the kernels of convolutions.
        value_dtype: `"float32"`, which is exact, or `"float16"`, which rounds float32 weights of two or more
            dimensions. Biases, statistics and other dtypes are never rounded. Defaults to `"float32"`.

    Raises:
        ValueError: If `filepath` has the suffix of another format, or `index_bits` or `value_dtype` is invalid. If the
            model is not built, has state besides its weights (vocabularies, LoRA), or cannot be rebuilt from its config
            without running code from it (Python lambdas, stateful RNNs). If a weight has another dtype, or is too large
            for float16.
        OSError: If the file cannot be written, such as in a folder that does not exist.

    Example:

    >>> import os, tempfile
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300)])
    >>> model.set_weights([np.eye(784, 300), np.zeros(300)])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     filepath = os.path.join(folder, "model.kprune")
    ...     kp.save_sparse(model, filepath)
    ...     loaded, size = kp.load_sparse(filepath), os.path.getsize(filepath)
    >>> bool(np.all(loaded.get_weights()[0] == np.eye(784, 300))), size < 10_000
    (True, True)
    """
    require_built(model)
    require_path("filepath", filepath)
    if str(filepath).lower().endswith(_OTHER_SUFFIXES):
        raise ValueError(
            "Only `load_sparse` reads a sparse file, so its suffix must not be that of another format. Use .kprune. "
            f"Received: filepath={os.fspath(filepath)!r}"
        )
    with plain_model(model) as plain:
        _require_only_weights(plain)
        rows = _measure(plain.weights, index_bits, value_dtype)
        header = {
            "model": _config(plain, rows),
            "frozen": frozen_models(plain),
            "weights": [dataclasses.asdict(row) for row in rows],
        }
        weights = zip(rows, plain.weights, strict=True)
        pieces = (piece for row, weight in weights for piece in encode_weight(row, _array(weight)))
        write_checked(filepath, header, pieces, sum(row.stored_bytes for row in rows))


def load_sparse(filepath, custom_objects=None, max_bytes: int | None = None):
    """Loads a model that `save_sparse` saved.

    Length, version and checksum are verified first. No code from the file is run. The file holds numbers and a Keras
    config. Layers that could run code or read files are rejected before Keras reads the config. Memory is allocated
    only after the file was checked to hold the weights, and only up to `max_bytes`.

    Args:
        filepath: String or path object.
        custom_objects: Dict from name to class or function, for objects in the model that are not registered with
            Keras. Defaults to `None`.
        max_bytes: Integer, the most bytes that the weights may take in memory. Zeros take almost no space in the file,
            so a small file may need any amount. Defaults to `None`: 64 MiB or 10,000 times the size of the file,
            whichever is larger.

    Returns:
        A plain Keras model that is not compiled, unless its constructor compiles it.

    Raises:
        ValueError: If the file is truncated, altered, has another version or was not written by `save_sparse`, if the
            config cannot be rebuilt, or if the weights take more than `max_bytes`.
        OSError: If the file cannot be opened, such as one that does not exist.

    Example:

    >>> import os, tempfile
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")], name="small")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     kp.save_sparse(model, os.path.join(folder, "model.kprune"))
    ...     loaded = kp.load_sparse(os.path.join(folder, "model.kprune"))
    >>> loaded.name, np.array_equal(loaded.get_weights()[0], model.get_weights()[0])
    ('small', True)
    """
    if max_bytes is not None and not (is_number(max_bytes) and max_bytes > 0):
        raise ValueError(f"`max_bytes` must be a positive number or None. Received: max_bytes={max_bytes!r}")
    with open_checked(filepath) as (header, payload_bytes, file):
        limit = max(_SMALL_BYTES, _EXPANSION * os.fstat(file.fileno()).st_size) if max_bytes is None else max_bytes
        try:
            return _read_model(header, payload_bytes, file, custom_objects, limit)
        except Exception as error:  # A header that is not trusted can make Keras raise anything.
            raise ValueError(
                "The model in the file cannot be rebuilt. If it has classes or functions that are not registered with "
                f"Keras, pass them in `custom_objects`. Received: filepath={os.fspath(filepath)!r}, which failed with: "
                f"{error!s:.1000}"
            ) from error


def _config(model, rows) -> dict:
    """Returns the config of a model. As a trial, a model is rebuilt from it without allocating weights."""
    try:
        config = keras.saving.serialize_keras_object(model)
        config.pop("compile_config", None)
        # Custom classes only. In Keras, the operation `x + 1` has the same class name as the layer `Add`.
        own = (type(layer) for layer in layers_in(model) if not type(layer).__module__.startswith("keras."))
        classes = {layer_class.__name__: layer_class for layer_class in own}
        _declare(json.loads(json.dumps(config)), rows, classes)
    except Exception as error:  # Keras, and the get_config of custom layers, may raise anything.
        raise ValueError(
            "The model cannot be rebuilt from its config without running code from it. Register custom classes and "
            "functions with keras.saving.register_keras_serializable, replace Lambda layers, build RNNs with "
            "stateful=False, and create variables with add_weight(shape=..., initializer=...). "
            f"Received: model={model.name!r}, which failed with: {error}"
        ) from error
    return config


def _read_model(header, payload_bytes, file, custom_objects, max_bytes):
    rows = [WeightStorage.from_header(row) for row in header["weights"]]
    dense_bytes = sum(row.dense_bytes for row in rows)
    _require_bytes(dense_bytes, max_bytes)
    stored = sum(row.stored_bytes for row in rows)
    if stored != payload_bytes:
        raise ValueError(f"the weights take {stored} bytes, but the payload has {payload_bytes}")
    starts = accumulate((row.stored_bytes for row in rows), initial=file.tell())

    def read(start, row, shape, dtype):
        file.seek(start)
        return decode_weight(row, file)

    model, declared = _declare(header["model"], rows, custom_objects)
    # A config can also hide variables that no layer of the model uses.
    _require_bytes(sum(math.prod(v.shape) * np.dtype(v.dtype).itemsize for v in declared) - dense_bytes, max_bytes)
    _keras.allocate(
        declared,
        {
            id(weight): functools.partial(read, start, row)
            for weight, start, row in zip(model.weights, starts, rows, strict=False)  # One more start than weights.
        },
        layers_in(model),
    )
    _require_only_weights(model)
    for layer in layers_in(model):
        # The values are set, but a Normalization layer, for example, derives constants from its statistics on loading.
        values = {key: keras.ops.stop_gradient(weight.value) for key, weight in _saved_weights(layer).items()}
        layer.load_own_variables(values)
    freeze(model, header["frozen"])
    return model


def _require_bytes(needed, max_bytes) -> None:
    if needed > max_bytes:
        raise ValueError(
            f"the weights take {needed} bytes in memory, and the limit for this file is {max_bytes}. If you trust the "
            f"file, pass max_bytes={needed}"
        )


def _declare(config, rows, custom_objects):
    """Returns a model that is built from its config, and its variables, for which no memory is allocated."""
    require_harmless(config)
    with _keras.declaring() as declared, _keras.safe_mode():
        model = deserialize(config, custom_objects)
    if not isinstance(model, keras.Model):
        raise ValueError(f"the config describes {model!r}, which is not a model")
    weights = [(tuple(weight.shape), str(weight.dtype)) for weight in model.weights]
    stored = [(row.shape, row.dtype) for row in rows]
    if weights != stored:
        raise ValueError(f"the config describes the weights {weights}, but the file holds {stored}")
    return model, declared


def _measure(weights, index_bits, value_dtype) -> list[WeightStorage]:
    if not (index_bits in (None, "smallest") or (type(index_bits) is int and index_bits in WIDTHS)):
        raise ValueError(
            "`index_bits` must be an integer from 1 to 16, 'smallest', or None for 5 bits in matrices and 8 in the "
            f"kernels of convolutions. Received: index_bits={index_bits!r}"
        )
    if value_dtype not in ("float32", "float16"):
        raise ValueError(f"`value_dtype` must be 'float32' or 'float16'. Received: value_dtype={value_dtype!r}")
    return [measure(weight.path, _array(weight), index_bits, value_dtype) for weight in weights]


def _array(weight) -> np.ndarray:
    # JAX stores 64-bit variables in 32 bits by default, but the config declares 64.
    return on_host(weight.value).astype(weight.dtype, copy=False)


def _saved_weights(layer) -> dict[str, Any]:
    """Returns the variables that a layer saves itself, by key."""
    variables: dict[str, Any] = {}
    layer.save_own_variables(variables)
    return variables


def _require_only_weights(model) -> None:
    """Raises a `ValueError` if the state of a model is not exactly its weights."""
    missing = {id(weight): weight.path for weight in model.weights}
    known = set(missing)
    for layer in layers_in(model):
        saved = {id(variable) for variable in _saved_weights(layer).values()}
        if hasattr(layer, "save_assets") or not saved <= known:
            raise ValueError(
                "A sparse file only holds weights. Remove lookup layers from the model, load tasks of KerasHub with "
                f"preprocessor=None, and merge LoRA weights before saving. Received: layer {layer.name!r} of class "
                f"{type(layer).__name__}, which has other state"
            )
        missing = {key: path for key, path in missing.items() if key not in saved}
    if missing:
        raise ValueError(
            "Each weight must be saved by a layer (`save_own_variables`). Merge LoRA weights before saving. "
            f"Received: weights {sorted(missing.values())}, which no layer saves"
        )
