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
    if unmaskable(layer):
        return []
    return [
        variable
        for variable in _keras.variables_made_trainable(layer)
        if len(variable.shape) >= 2
        and "float" in str(variable.dtype)
        and not variable.name.endswith(_NOT_CONNECTIONS)
        and not variable.name.startswith("lora_")
    ]


def owned_connections(root) -> list[tuple[keras.layers.Layer, list]]:
    """Returns every layer in `root` that owns connections, with those variables.

    A variable that several layers hold is owned by the innermost of them: `SpectralNormalization` lists the kernel of
    the layer inside it.
    """
    owned = {}
    seen = set()
    for layer in reversed(layers_in(root)):
        variables = [variable for variable in connection_variables(layer) if id(variable) not in seen]
        seen.update(map(id, variables))
        if variables:
            owned[id(layer)] = (layer, variables)
    return list(reversed(owned.values()))
