"""Read and write the model files and arrays of the command."""

import importlib
import importlib.util
import json
import os
import sys
import zipfile
from collections.abc import Sequence

import keras_prune as kp

_UNSAFE = (
    "Expected a model that Keras loads without running Python code from the file, such as that of a Lambda layer. If "
    "you trust the file, call the functions of keras_prune in a program after "
    "keras.config.enable_unsafe_deserialization()."
)


def load_model(path: str, modules: Sequence[str] = (), compiled: bool = False, preprocessor: bool = True):
    """Returns the model in a `.keras`, `.h5` or `.kprune` file, or in a KerasHub preset folder.

    Args:
        path: String.
        modules: Strings, names of Python modules to import first. Defaults to `()`.
        compiled: Boolean, whether the model must be compiled. Defaults to `False`: compile settings are not read.
        preprocessor: Boolean, whether a task in a preset keeps its preprocessor, which a sparse file cannot hold.
            Defaults to `True`.

    Raises:
        ValueError: If a module cannot be imported, or the file is missing, damaged, or not a Keras 3 model with known
            layers, or not compiled.
    """
    import keras

    from keras_prune.terminal.progress import steps

    _import_modules(modules)
    if not os.path.exists(path):
        raise ValueError(f"Expected a model that Keras saved, but there is no such file. Received: {path!r}")
    if path.endswith(".keras") and os.path.isfile(path) and not zipfile.is_zipfile(path):
        raise ValueError(
            "Expected a model that Keras saved as .keras, but the file is damaged or not a Keras file. "
            f"Received: {path!r}"
        )
    with steps(f"loading {path}"):
        model = _load(path, compiled, preprocessor)
    if not isinstance(model, keras.Model):
        raise ValueError(f"Expected a whole model, but the file holds a {type(model).__name__}. Received: {path!r}")
    if compiled and not model.compiled:
        raise ValueError(
            "Expected a compiled model, whose loss and metrics are used. Call model.compile(...) before it is saved. "
            f"Received: {path!r}"
        )
    return model


def _import_modules(modules):
    # Unlike `python -m`, the script of a package does not look into the current folder.
    if modules and os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    for module in modules:
        try:
            importlib.import_module(module)
        except ImportError as error:
            raise ValueError(f"Cannot import a module of --modules: {error}. Received: {module!r}") from error


def _load(path, compiled, preprocessor):
    import keras

    if path.endswith(".kprune"):
        return kp.load_sparse(path)
    if os.path.isfile(os.path.join(path, "config.json")):
        return _load_preset(path, preprocessor)
    try:
        if _needs_keras_hub(path):
            importlib.import_module("keras_hub")  # Registers the classes.
        return keras.models.load_model(path, compile=compiled)
    except Exception as error:  # Keras may raise anything for a file that it did not write.
        if "enable_unsafe_deserialization" in str(error):
            raise ValueError(f"{_UNSAFE} Received: {path!r}") from error
        reason = (str(error).strip().splitlines() or ["no reason given"])[0].partition(" Full object config:")[0]
        raise ValueError(
            f"Expected a model that Keras saved as .keras or .h5, a .kprune file, or the folder of a KerasHub preset: "
            f"{type(error).__name__}: {reason}. If it has custom layers, add --modules=their.module. "
            f"Received: {path!r}"
        ) from error


def _needs_keras_hub(path):
    if not zipfile.is_zipfile(path) or importlib.util.find_spec("keras_hub") is None:
        return False
    with zipfile.ZipFile(path) as archive:
        return b'"keras_hub' in archive.read("config.json")


def _load_preset(folder, preprocessor):
    if importlib.util.find_spec("keras_hub") is None:
        raise ValueError(
            f"The folder is a KerasHub preset, and KerasHub is missing: pip install keras-hub. Received: {folder!r}"
        )
    import keras
    import keras_hub

    try:
        kind, options = keras_hub.models.Backbone, {}
        if os.path.isfile(task := os.path.join(folder, "task.json")):
            with open(task, encoding="utf-8") as file:
                kind = keras.saving.get_registered_object(json.load(file)["registered_name"])
            if not (preprocessor and os.path.isfile(os.path.join(folder, "preprocessor.json"))):
                options = {"preprocessor": None}  # KerasHub would fail if the preset has none.
        return kind.from_preset(folder, **options)
    except Exception as error:  # KerasHub may raise anything for a file that it did not write.
        raise ValueError(
            f"Expected the folder of a KerasHub preset: {type(error).__name__}: {error}. Received: {folder!r}"
        ) from error


def require_output(path: str) -> None:
    """Raises a `ValueError` if `save_model` could not write a model, before time is spent on it."""
    if not path.endswith((".keras", ".kprune")) or not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        raise ValueError(f"The output must be a .keras or .kprune file in a folder that exists. Received: {path!r}")


def save_model(model, path: str) -> None:
    """Writes a model atomically to a `.keras` file, or without its masks to a `.kprune` file.

    Args:
        model: Keras model.
        path: String.

    Raises:
        ValueError: If `path` has another suffix, or its folder does not exist.
    """
    from keras_prune.storage.checked_file import atomic_write
    from keras_prune.terminal.progress import steps

    require_output(path)
    with steps(f"writing {path}"):
        if path.endswith(".kprune"):
            kp.save_sparse(model, path)
            return
        with atomic_write(path) as unfinished:
            model.save(unfinished)


def load_inputs(path: str, model):
    """Returns the array in a .npy file or an .npz file with one array, or a dict of arrays by their names.

    Raises:
        ValueError: If the file cannot be read, or its names are not those of the inputs of the model.
    """
    expected = "--data must be a .npy file, or an .npz file with an array for each input of the model by its name"
    data = _read(path, expected)
    if not isinstance(data, dict):
        return data
    names = input_names(model) or list(data)
    if len(names) > 1 and set(names) != set(data):
        raise ValueError(f"{expected}, here {names}. Received: {path!r} with {list(data)}")
    return next(iter(data.values())) if len(data) == 1 else data


def load_pairs(path: str, model, flag: str = "data") -> tuple:
    """Returns the inputs and targets in an .npz file for `model.fit(x, y)`.

    Args:
        path: String.
        model: Keras model.
        flag: String, the flag that named the file.

    Raises:
        ValueError: If the file cannot be read or lacks arrays, or if they differ in length.
    """
    expected = f"--{flag} must be an .npz file with the arrays x and y"
    data = _read(path, expected)
    arrays = data if isinstance(data, dict) else {}
    names = input_names(model)
    if len(names) > 1:
        expected += f", where x may be one array for each input by its name, here {names}"
    wanted = ["x"] if "x" in arrays or not set(names) <= set(arrays) else names
    if missing := {*wanted, "y"} - set(arrays):
        raise ValueError(f"{expected}. Received: {path!r} without {sorted(missing)}")
    lengths = {name: arrays[name].shape[:1] for name in (*wanted, "y")}
    if len(set(lengths.values())) > 1 or () in lengths.values():
        raise ValueError(f"{expected}, each with one entry for each sample. Received: {path!r} with {lengths}")
    return arrays["x"] if wanted == ["x"] else {name: arrays[name] for name in wanted}, arrays["y"]


def _read(path, expected):
    import numpy as np

    try:
        loaded = np.load(path)
        data = loaded if isinstance(loaded, np.ndarray) else dict(loaded)
    except Exception as error:  # Files that NumPy did not write raise any error.
        raise ValueError(f"{expected}. Received: {path!r}: {type(error).__name__}: {error}") from error
    if isinstance(data, dict) and not all(isinstance(array, np.ndarray) for array in data.values()):
        raise ValueError(f"{expected}. Received: {path!r} with {list(data)}")
    return data


def input_names(model) -> list[str]:
    """Returns the names of the inputs. The inputs of a subclassed model have no names, so the list is empty."""
    from keras_prune import _keras
    from keras_prune.models.graph import has_graph

    return [_keras.origin_of(tensor)[0].name for tensor in model.inputs] if has_graph(model) else []
