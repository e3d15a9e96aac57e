"""Find the weights of a model that are or can be pruned, and name the layers that own them."""

import itertools
import math
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_prune import _keras
from keras_prune.layers.masks import Masks, PrunedWeight, zeros_as_mask
from keras_prune.layers.prunable import connection_variables, owned_connections, stored_connections
from keras_prune.layers.traversal import layers_in, paths_in
from keras_prune.rules.budgets import Budget
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.shards import count


def pruned_weights(root) -> list[PrunedWeight]:
    """Returns the pruned weights of a model or layer with their masks, in the order of its layers.

    Args:
        root: Model or layer, pruned or not.

    Returns:
        A list of `PrunedWeight`, each with `path`, `variable`, `mask`, `threshold` and `criterion`.

    Raises:
        ValueError: If `root` is not a Keras 3 model or layer.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> cuts = kp.cut(model)
    >>> [(weight.name, weight.density, weight.criterion) for weight in kp.layers.pruned_weights(model)]
    [('kernel', 0.25, TargetSparsity(sparsity=0.75))]
    """
    if not isinstance(root, keras.layers.Layer):
        raise ValueError(f"Expected a Keras 3 model or layer. Received: root={root!r} of class {type(root).__name__}")
    return [weight for layer in layers_in(root) for weight in masks_of(layer)]


def masks_of(layer) -> list[PrunedWeight]:
    """Returns the pruned weights that a layer owns."""
    state = pruning_of(layer)
    return state.pruned_weights if isinstance(state, Masks) else []


def pruning_of(layer) -> Any:
    """Returns the attribute `pruning` of a layer object, or `None`."""
    return _keras.attribute_of(layer, "pruning")


class PrunableWeight(NamedTuple):
    """One weight whose entries are connections.

    Attributes:
        layer: The layer that owns the weight.
        variable: The weight.
        pruned: Its `PrunedWeight`; `None` in a plain model.
    """

    layer: keras.layers.Layer
    variable: Any
    pruned: PrunedWeight | None

    @property
    def criterion(self) -> Criterion | Budget | None:
        """The criterion of a pruned weight."""
        return self.pruned.criterion if self.pruned else None

    @property
    def size(self) -> int:
        """Number of connections before pruning."""
        return math.prod(self.variable.shape)

    @property
    def kept(self) -> int:
        """How many connections survive: those in the mask, or the nonzero entries of a plain weight."""
        return self.pruned.kept if self.pruned else count(self.value)

    @property
    def value(self):
        """The weight as it is stored, a tensor. With LoRA, the sum of the weight and its update."""
        has_update = self.pruned is None and getattr(self.layer, "lora_enabled", False)
        return getattr(self.layer, self.variable.name) if has_update else self.variable.value

    def mask(self):
        """Returns which connections survive, a boolean array. The zeros of a plain weight count as pruned."""
        if self.pruned:
            return self.pruned.mask.value
        mask, _ = zeros_as_mask(self.layer, self.variable)
        return ops.ones(self.variable.shape, "bool") if mask is None else ops.convert_to_tensor(mask)


def prunable_weights(root, stored: bool = False) -> list[PrunableWeight]:
    """Returns the weights in a model or layer whose entries are connections, frozen ones included.

    Args:
        root: Model or layer.
        stored: Whether to return weights of layers that cannot have masks, too. Defaults to `False`.
    """
    pruned = {id(weight.variable): weight for weight in pruned_weights(root)}
    return [
        PrunableWeight(layer, variable, pruned.get(id(variable)))
        for layer, variables in owned_connections(root, of_layer=stored_connections if stored else connection_variables)
        for variable in variables
    ]


def weights_by_layer(weights) -> list[tuple[keras.layers.Layer, list]]:
    """Groups weights by the layer that owns them: `[(layer, its weights)]`."""
    groups: dict[int, tuple] = {}
    for weight in weights:
        groups.setdefault(id(weight.layer), (weight.layer, []))[1].append(weight)
    return list(groups.values())


def labels(model, layers) -> dict[int, str]:
    """Returns a unique name for each layer by `id`, its path inside the model.

    Layers with the same path, as in a subclassed model, are numbered.

    Args:
        model: The model around the layers.
        layers: Layers.
    """
    paths = paths_in(model)
    found: dict[int, str] = {}
    taken: set[str] = set()
    for layer in layers:
        path = paths[id(layer)] or layer.name
        names = itertools.chain([path], (f"{path}_{number}" for number in itertools.count(2)))
        found[id(layer)] = next(name for name in names if name not in taken)
        taken.add(found[id(layer)])
    return found
