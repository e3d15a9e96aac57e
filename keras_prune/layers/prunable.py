"""Find the weights of a layer that can be pruned."""

import keras

from keras_prune import _keras
from keras_prune.layers.skip_reasons import unmaskable
from keras_prune.layers.traversal import layers_in

# Weights of two or more dimensions that do not connect neurons: the biases of a GRU and of multi-head attention, the
# scale of a normalization over several axes, the slopes of a PReLU.
_NOT_CONNECTIONS = ("bias", "gamma", "beta", "alpha", "scale")


def connection_variables(layer) -> list:
    """Returns the variables that a layer holds itself and whose entries are connections, frozen ones included."""
    return [] if unmaskable(layer) else _connections(_keras.variables_made_trainable(layer), "float")


def stored_connections(layer) -> list:
    """Returns the same for any layer, including those without masks, if its variables store the zeros of a kernel."""
    mode = layer.quantization_mode if _keras.is_quantized(layer) else None
    if mode in (None, "float8"):  # With float8, the layer rounds a float kernel at each call.
        return _connections(_keras.variables_made_trainable(layer), "float")
    return _connections(layer.weights, "int8") if mode == "int8" else []


def _connections(variables, kind) -> list:
    return [
        variable
        for variable in variables
        if len(variable.shape) >= 2
        and kind in str(variable.dtype)
        and not variable.name.endswith(_NOT_CONNECTIONS)
        and not variable.name.startswith("lora_")
    ]


def owned_connections(root, around=(), of_layer=connection_variables) -> list[tuple[keras.layers.Layer, list]]:
    """Returns every layer in `root` that owns connections, with those variables.

    A variable that several layers hold is owned by the innermost of them: `SpectralNormalization` lists the kernel of
    the layer inside it. A layer with a method `get_prunable_weights`, as in TensorFlow Model Optimization, decides
    for itself which of its weights and of those inside it are connections.

    Args:
        root: Model or layer.
        around: The layers around `root`, the innermost first.
        of_layer: Function from a layer to its variables whose entries are connections.
    """
    asked: dict[int, set[int]] = {}  # The variables that a layer, or the outermost one around it, asks for.
    for layer in [*reversed(around), *layers_in(root)]:
        if hasattr(layer, "get_prunable_weights") and id(layer) not in asked:
            variables = _asked_of(layer) if layer.built else set()
            asked.update({id(inner): variables for inner in layers_in(layer)})
    owned = {}
    seen = set()
    for layer in reversed(layers_in(root)):
        if id(layer) in asked and not unmaskable(layer):
            variables = [one for one in _keras.variables_made_trainable(layer) if id(one) in asked[id(layer)]]
        else:
            variables = of_layer(layer)
        variables = [variable for variable in variables if id(variable) not in seen]
        seen.update(map(id, variables))
        if variables:
            owned[id(layer)] = (layer, variables)
    return list(reversed(owned.values()))


def _asked_of(layer) -> set[int]:
    weights = layer.get_prunable_weights()
    held = {id(weight) for inner in layers_in(layer) for weight in _keras.variables_made_trainable(inner)}
    if not {*map(id, weights)} <= held:
        raise ValueError(
            "`get_prunable_weights` must return a list of weights of the layer that can be trained. "
            f"Received: layer={layer.name!r} of class {type(layer).__name__} with {weights}"
        )
    return {*map(id, weights)}
