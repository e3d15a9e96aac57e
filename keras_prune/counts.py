"""Counts: the connections of one layer, and the operations that they take."""

import math

import keras

from keras_prune.pieces import count
from keras_prune.wrappers import Prune, prunable_variables

_CONVOLUTIONS = (
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_TRANSPOSED_CONVOLUTIONS = (
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
)


def connections(layer) -> tuple[int, int]:
    """Returns how many connections of a layer survive, and how many it has: `(kept, total)`."""
    if isinstance(layer, Prune):
        return layer.connections
    variables = prunable_variables(layer)
    kept = sum(count(variable.value) for variable in variables)
    return kept, sum(math.prod(variable.shape) for variable in variables)


def flop(layer, weights: int) -> int | None:
    """Returns the operations of a dense layer for one input, or `None` where its output positions are not known."""
    layer = layer.layer if isinstance(layer, Prune) else layer
    config = layer.get_build_config() or {}
    # A recurrent layer that is given its initial state was built with several shapes.
    shape = config.get("input_shape") or config.get("shapes_dict", {}).get("sequences_shape")
    if isinstance(layer, keras.layers.Embedding):
        return 0  # It looks rows up.
    if shape is None:
        return None
    if isinstance(layer, _CONVOLUTIONS):
        shape = layer.compute_output_shape(shape)
    elif isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional)) and len(shape) == 3:
        shape = (*shape[:2], None)
    elif not isinstance(layer, (keras.layers.Dense, *_TRANSPOSED_CONVOLUTIONS)):
        return None
    positions = shape[2:] if getattr(layer, "data_format", "") == "channels_first" else shape[1:-1]
    return None if None in positions else 2 * weights * math.prod(positions)
