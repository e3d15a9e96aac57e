"""Attach masks to the layers of a model in place, and remove them."""

import functools
from typing import NamedTuple

import keras

from keras_prune import _keras
from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.hook import hook, hook_dropout, hook_tree, override, refuse_quantize_and_lora, restore, unhook
from keras_prune.layers.masked_scope import behind_masks
from keras_prune.layers.masks import Masks, PrunedWeight, zeros_as_mask
from keras_prune.layers.prunable import owned_connections
from keras_prune.layers.traversal import is_pruning_state, layers_around, layers_in, parents_of
from keras_prune.layers.weights import masks_of, pruned_weights, pruning_of


class Attached(NamedTuple):
    """The result of `attach`.

    Attributes:
        weights: The weights that have masks now.
        zeros: How many of their entries were zero and count as pruned.
        all_zeros: Dict from the path of a weight with zeros that do not count as pruned to the reason.
        unbuilt: How many layers are given their masks when they are built.
    """

    weights: list[PrunedWeight]
    zeros: int
    all_zeros: dict[str, str]
    unbuilt: int


def attach(root, select, keep_zeros: bool, frozen: bool = False, around=(), check=None) -> Attached:
    """Gives masks to the weights of a model or layer.

    Args:
        root: Model or layer. Layers in it that are not built get their masks when they are built.
        select: Function `(layer, variable, around) -> (whether the user named it, criterion or None)`.
        keep_zeros: Whether zeros count as pruned.
        frozen: Whether weights that are not trained are given masks, too.
        around: Layers around `root`.
        check: Function `(whether a weight has a mask then, unbuilt layers) -> None`, called before anything changes.
    """
    parents = parents_of(root)
    unbuilt = [layer for layer in layers_in(root) if not layer.built]
    present = {id(weight.variable): weight for weight in pruned_weights(root)}
    chosen, renewed = [], []
    for layer, variables in owned_connections(root, around):
        outer = [*layers_around(layer, parents), *around]
        for variable in variables:
            is_named, criterion = select(layer, variable, outer)
            weight = present.get(id(variable))
            if weight is None and criterion is not None and (frozen or variable.trainable):
                _require_free(layer)
                chosen.append((layer, variable, criterion))
            elif weight is not None and is_named and criterion is not None:
                renewed.append((weight, criterion))
    if check is not None:
        check(bool(chosen or present), unbuilt)
    for weight, criterion in renewed:
        weight.criterion = criterion
    # Arrays and old weight files hold zeros without masks.
    zeros, all_zeros = sum(weight.take_zeros() for weight in present.values()) if keep_zeros else 0, {}
    for layer, variable, criterion in chosen:
        mask, reason = zeros_as_mask(layer, variable) if keep_zeros else (None, None)
        if reason is not None:
            all_zeros[variable.path] = reason
        weight = _masks(layer).add(variable, criterion, mask)
        if mask is not None:
            zeros += weight.size - weight.kept
        present[id(variable)] = weight
        weight.show_survivors()
    hook_tree(root, present)
    for layer in around:
        hook(layer, {}, present)
    attach_dropouts(root)
    for layer in unbuilt:
        _attach_when_built(layer, select, frozen, [*layers_around(layer, parents), *around])
    return Attached(list(present.values()), zeros, all_zeros, len(unbuilt))


def _require_free(layer) -> None:
    if hasattr(layer, "pruning") and not is_pruning_state(layer.pruning):
        raise ValueError(
            "Pruning keeps its masks in the attribute `pruning` of a layer, which is taken. Rename the attribute. "
            f"Received: layer {layer.name!r} of class {type(layer).__name__} with pruning={layer.pruning!r}"
        )


def _masks(layer) -> Masks:
    if pruning_of(layer) is None:
        _keras.add_layer(layer, "pruning", Masks(layer))
        refuse_quantize_and_lora(layer)
        refuse_quantize_and_lora(layer.pruning, owner=layer)  # `Model.quantize` asks the innermost layers alone.
    return layer.pruning


def attach_dropouts(root) -> bool:
    """Gives the dropouts in a model or layer a rate that can change. Returns whether any of them lacked it."""
    # The exact class: a subclass, such as SpatialDropout, draws its noise differently.
    dropouts = [layer for layer in layers_in(root) if type(layer) is keras.layers.Dropout and layer.rate > 0]
    dropouts = [layer for layer in dropouts if pruning_of(layer) is None]
    for layer in dropouts:
        with keras.name_scope(layer.name):
            rate = DropoutRate(layer)
        _keras.add_layer(layer, "pruning", rate)
        hook_dropout(layer, rate)
    return bool(dropouts)


def _attach_when_built(layer, select, frozen, around) -> None:
    restore(layer, "build")
    build = layer.build

    @functools.wraps(build)
    def attaching_build(*args, **kwargs):
        restore(layer, "build")
        with behind_masks():
            build(*args, **kwargs)
            # Zeros in new weights, such as those of an identity initializer, do not count as pruned.
            attach(layer, select, keep_zeros=False, frozen=frozen, around=around)

    override(layer, "build", attaching_build)


def apply_masks(root) -> None:
    """Sets the stored weights of a model or layer to zero where there is no connection."""
    for weight in pruned_weights(root):
        weight.apply_mask()


def take_off(layer) -> tuple:
    """Takes masks, hooks and dropout rate off one layer, and returns what `put_back` needs."""
    methods = {name: function for name, function in vars(layer).items() if hasattr(function, "overridden")}
    unhook(layer)
    state = pruning_of(layer)
    if not is_pruning_state(state):
        return layer, methods, None
    for weight in masks_of(layer):
        weight.show_all()
    _keras.remove_layer(layer, "pruning")
    return layer, methods, state


def put_back(layer, methods, state) -> None:
    """Undoes `take_off`."""
    vars(layer).update(methods)
    if state is not None:
        _keras.add_layer(layer, "pruning", state)
        for weight in masks_of(layer):
            weight.show_survivors()
