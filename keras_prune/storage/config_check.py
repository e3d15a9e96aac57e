"""Reject the config of a model that could run code, read files or fill the memory, before Keras reads it.

The safe mode of Keras rejects only some of these configs, depending on the version. It also creates the objects before
a rejected one.
"""

from collections.abc import Iterator
from typing import Any

from keras_prune.storage.codecs import DTYPES

# Code as bytes, pickled modules, SavedModels, functions that allocate the weights themselves, and vocabularies.
_REJECTED = {"__lambda__", "__typespec__", "Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
_REJECTED |= {"IndexLookup", "IntegerLookup", "StringLookup", "TextVectorization", "FeatureSpace"}
# Modules with the parts of a model. Others have functions that download files, and metrics that fill the memory.
_AREAS = ("activations", "constraints", "dtype_policies", "initializers", "layers", "losses", "models", "ops")
_AREAS += ("quantizers", "random", "regularizers")


def require_harmless(config) -> None:
    """Raises a `ValueError` if a config names classes or functions that could do more than build a model.

    `compile_config` is removed from each object, because a model is loaded without it.

    Args:
        config: Config of a model from JSON, which is not trusted. Registered classes and functions are trusted.

    Raises:
        ValueError: If an object could run code, read files or allocate memory.
    """
    for node in _objects(config):
        name, inner = node["class_name"], node.get("config", {})
        path = f"{node.get('module')}.{inner if name == 'function' else name}"
        registered = str(node.get("registered_name")).replace(">", ".")
        if not (_is_harmless(path.split(".")) and _is_harmless(registered.split("."))):
            raise ValueError(f"a sparse file must not hold {path}, which could run code, read files or fill the memory")
        if name in ("__numpy__", "__tensor__") and inner["dtype"] not in DTYPES:
            raise ValueError(f"an array must be of dtype {', '.join(DTYPES)}, not {inner['dtype']!r:.100}")
        for call in node.get("inbound_nodes") or ():
            # Keras runs a call without symbolic inputs at once, such as ops.arange(10**12).
            inputs = _objects([call["args"], call["kwargs"]], nested=False)
            if not any(one["class_name"] == "__keras_tensor__" for one in inputs):
                raise ValueError(f"each call must have a symbolic input, unlike one of {node.get('name')!r:.100}")
        node.pop("compile_config", None)


def _is_harmless(path: list[str]) -> bool:
    """Whether the path of a class or function may be used. The reader must register those of other packages."""
    if path[-1] in _REJECTED or (path[0] == "keras_hub" and path[-1].endswith("Tokenizer")):
        return False
    if path[:3] == ["keras", "src", "applications"]:  # Layers of these models. Keras only takes functions from others.
        return True
    return path[0] != "keras" or len(path) == 2 or path[2 if path[1] == "src" else 1] in _AREAS


def _objects(config, nested: bool = True) -> Iterator[dict[str, Any]]:
    """Yields the dicts with a `class_name`, outer ones first, and those in their values if `nested`.

    It does not recurse, because the file could exceed the limit of Python.
    """
    waiting = [config]
    while waiting:
        node = waiting.pop()
        if isinstance(node, dict):
            if "class_name" in node:
                yield node
                node = node if nested else {}
            node = list(node.values())
        if isinstance(node, list):
            waiting.extend(node)
