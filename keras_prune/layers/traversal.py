"""List the layers inside a model or layer, in an order that is the same after loading."""

import weakref
from collections.abc import Callable
from typing import Any

import keras

from keras_prune import _keras


def layers_in(root) -> list:
    """Returns `root` and all layers inside it, each once, every layer before those that it holds.

    The layers that hold masks are left out. Models inside models are opened.
    """
    found: dict[int, keras.layers.Layer] = {}
    pending = [root]
    while pending:
        layer = pending.pop()
        if id(layer) not in found and not is_pruning_state(layer):
            found[id(layer)] = layer
            pending.extend(reversed(_keras.layers_of(layer)))
    return list(found.values())


def models_in(root) -> list:
    """Returns the models among `layers_in(root)`."""
    return [layer for layer in layers_in(root) if isinstance(layer, keras.Model)]


def parents_of(root) -> dict[int, list[keras.layers.Layer]]:
    """Returns, by the `id` of each layer in `root`, the layers that hold it themselves."""
    parents: dict[int, list] = {}
    for layer in layers_in(root):
        for child in _keras.layers_of(layer):
            parents.setdefault(id(child), []).append(layer)
    return parents


def layers_around(layer, parents) -> list[keras.layers.Layer]:
    """Returns all layers around a layer, the innermost first."""
    found: dict[int, keras.layers.Layer] = {}
    pending = list(parents.get(id(layer), ()))
    while pending:
        one = pending.pop(0)
        if id(one) not in found and one is not layer:
            found[id(one)] = one
            pending.extend(parents.get(id(one), ()))
    return list(found.values())


def paths_in(root) -> dict[int, str]:
    """Returns, by `id`, the path of each layer inside `root`: the names from the layer in `root` down to it.

    `layer.path` starts with the model in which Keras built the layer first, and with scopes that a failed export left
    open.
    """
    paths = {id(root): ""}
    for layer in layers_in(root):
        for child in _keras.layers_of(layer):
            # A `Prune` wrapper has the name of the layer inside it.
            same = child.name == layer.name and layer is not root
            paths.setdefault(id(child), paths[id(layer)] if same else f"{paths[id(layer)]}/{child.name}".lstrip("/"))
    return paths


class PruningState(keras.layers.Layer):
    """Base class of the layers that hold masks and dropout rates, as the attribute `pruning` of another layer.

    Their variables are saved with the model and carried through training steps. They are not among `weights`, so that
    `get_weights`, `count_params` and `summary` are those of the plain model.
    """

    def __init__(self, owner):
        super().__init__(name="pruning", dtype="float32", trainable=False)
        self.built = True
        # No layer may be an attribute here: Keras would track it, and save it a second time.
        self.owner: Callable[[], Any] = weakref.ref(owner)

    @property
    def weights(self):
        return []

    def call(self):
        raise NotImplementedError


def is_pruning_state(layer) -> bool:
    """Whether a layer only holds masks or dropout rates."""
    return isinstance(layer, PruningState)
