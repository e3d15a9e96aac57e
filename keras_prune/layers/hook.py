"""Hooks that let a layer compute with masked weights, without changing its class.

A hook is an attribute of the layer object. Keras looks up `call` there, as it does `build` and `quantize`, which it
sets itself. The class and the config of the layer do not change.
"""

import functools
from typing import Any

import keras
from keras import ops

from keras_prune import _keras
from keras_prune.layers.kinds import LOOPS
from keras_prune.layers.masked_scope import MaskedScope, is_masked
from keras_prune.layers.traversal import is_pruning_state


def override(layer, name: str, function) -> None:
    """Sets a method on a layer object, until `restore`."""
    function.overridden = vars(layer).get(name)
    vars(layer)[name] = function


def restore(layer, name: str) -> None:
    """Undoes `override`; does nothing where the method is not overridden."""
    function = vars(layer).get(name)
    if hasattr(function, "overridden"):
        if function.overridden is None:
            del vars(layer)[name]
        else:
            vars(layer)[name] = function.overridden


def hook(layer, held: dict, below: dict) -> None:
    """Makes a layer compute with masked weights.

    Args:
        layer: Layer to hook. A second hook adds its weights to the first.
        held: Dict from the `id` of a variable to its `PrunedWeight`, for the variables that the layer holds itself.
        below: The same for all layers inside it. The layer may read their weights without calling them.
    """
    if isinstance(layer, keras.Model) and not held and _keras.is_functional_call(layer) and not _reads_variables(layer):
        return
    if isinstance(layer, LOOPS):
        # The masked weight is computed once, outside of the loop.
        held, below = {**held, **below}, {}
    present: Any = vars(layer).get("call")
    if hasattr(present, "held"):
        present.held.update(held)
        present.weights.update({**held, **below})
        return
    call = layer.call

    def call_masked(*args, **kwargs):
        held = [weight for weight in masked_call.held.values() if not is_masked(weight.variable)]
        for weight in held:
            weight.keep_at_zero()
        by_row = [weight for weight in held if _reads_rows(layer, weight, args, kwargs)]
        masked = {id(w.variable): w.unmasked() if w in by_row else w.masked() for w in held}
        with MaskedScope(masked, masked_call.weights) as scope:
            outputs = call(*args, **kwargs)
        scope.hand_on_losses(layer)
        for weight in held:
            if id(weight.variable) not in scope.read and not weight.is_read_past:
                weight.is_read_past = True
                weight.keep_at_zero()
        for weight in by_row:
            outputs = _mask_rows(outputs, weight, *args, **kwargs)
        return outputs

    masked_call: Any = functools.wraps(call)(call_masked)
    masked_call.held, masked_call.weights = dict(held), {**held, **below}
    override(layer, "call", masked_call)
    _trace_again(layer)


def _trace_again(layer) -> None:
    """Makes a rematerialized layer be traced at each call.

    JAX caches the trace of a function object, with the weights that it had then. A layer without a hook passes a new
    bound method each time.
    """
    rematerialized = layer.rematerialized_call

    def rematerialized_call(call, *args, **kwargs):
        return rematerialized(functools.partial(call), *args, **kwargs)  # A new object at each call.

    override(layer, "rematerialized_call", rematerialized_call)


def _reads_variables(model) -> bool:
    """Whether a variable is among the arguments of an operation in a Functional model, as in `matmul(x, kernel)`."""
    return any(
        isinstance(argument, keras.Variable)
        for operation in getattr(model, "operations", ())
        for node in _keras.inbound_nodes(operation)
        for argument in keras.tree.flatten((node.arguments.args, node.arguments.kwargs))
    )


def _reads_rows(layer, weight, args, kwargs) -> bool:
    """Whether the call looks rows up in the weight. Masking the rows costs less than masking the whole table."""
    if weight.name != "embeddings" or getattr(layer, "lora_enabled", False):
        return False
    if type(layer).call is keras.layers.Embedding.call:
        return True
    is_reversed = bool(kwargs.get("reverse", args[1] if len(args) > 1 else False))
    return type(layer).call is keras.layers.ReversibleEmbedding.call and not is_reversed


def _mask_rows(outputs, weight, inputs, reverse=False):
    rows = ops.take(weight.mask.value, ops.cast(inputs, "int32"), axis=0)
    masked = ops.where(rows, outputs, ops.zeros_like(outputs))
    _keras.copy_keras_mask(outputs, masked)
    return masked


def hook_tree(root, weights: dict) -> dict:
    """Hooks `root` and every layer inside it that holds or surrounds pruned weights.

    Args:
        root: Model or layer.
        weights: Dict from the `id` of a variable to its `PrunedWeight`, over `root`.

    Returns:
        The weights among them that are inside `root`.
    """
    found: dict[int, dict] = {}

    def visit(layer) -> dict:
        if id(layer) in found:
            return found[id(layer)]
        found[id(layer)] = {}  # A layer that holds itself, through a list, ends here.
        held = {id(v): weights[id(v)] for v in _keras.variables_made_trainable(layer) if id(v) in weights}
        inner = [visit(child) for child in _keras.layers_of(layer) if not is_pruning_state(child)]
        below = {key: weight for part in inner for key, weight in part.items() if key not in held}
        if held or below:
            hook(layer, held, below)
        found[id(layer)] = {**held, **below}
        return found[id(layer)]

    return visit(root)


def unhook(layer) -> None:
    """Removes all hooks of a layer."""
    for name in ("call", "rematerialized_call", "build", "quantize", "enable_lora"):
        restore(layer, name)


def hook_dropout(layer, rate) -> None:
    """Makes a `keras.layers.Dropout` drop at the current rate of its `DropoutRate`."""

    @functools.wraps(layer.call)
    def dropping_call(inputs, training=False):
        return rate.drop(inputs) if training else inputs

    override(layer, "call", dropping_call)


def refuse_quantize_and_lora(layer, owner=None) -> None:
    """Makes `quantize` and `enable_lora` raise an error. Keras would skip a pruned layer, or give it a dense update."""

    def refuse(name, *args, **kwargs):
        raise ValueError(
            f"`{name}` replaces or fills pruned weights. Call keras_prune.strip(model) first; their zeros stay. "
            f"Received: {type(owner or layer).__name__} {(owner or layer).name!r}"
        )

    for name in ("quantize", "enable_lora"):
        if hasattr(layer, name):
            override(layer, name, functools.partial(refuse, name))
