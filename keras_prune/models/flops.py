"""Count the connections of a layer and their operations."""

import math
from typing import Any

import keras

from keras_prune.layers.kinds import (
    CONVOLUTIONS,
    DEPTHWISE_CONVOLUTIONS,
    RECURRENT,
    SEPARABLE_CONVOLUTIONS,
    TRANSPOSED_CONVOLUTIONS,
)


def connections(weights) -> tuple[int, int]:
    """Returns how many connections of prunable weights survive, and how many there are: `(kept, total)`."""
    return sum(weight.kept for weight in weights), sum(weight.size for weight in weights)


def flop(layer, weights: int) -> int | None:
    """Returns the operations of a dense layer for one input, or `None` where its output positions are not known."""
    config = layer.get_build_config() or {}
    # A recurrent layer with its initial state as an input was built with several shapes.
    shape: Any = config.get("input_shape") or config.get("shapes_dict", {}).get("sequences_shape")
    if isinstance(layer, keras.layers.Embedding):
        return 0  # Embeddings look rows up.
    if shape is None:
        return None
    if isinstance(layer, (*CONVOLUTIONS, *DEPTHWISE_CONVOLUTIONS, *SEPARABLE_CONVOLUTIONS)):
        shape = layer.compute_output_shape(shape)
    elif isinstance(layer, RECURRENT) and len(shape) == 3:
        shape = (*shape[:2], None)
    elif not isinstance(layer, (keras.layers.Dense, *TRANSPOSED_CONVOLUTIONS)):
        return None
    positions = shape[2:] if getattr(layer, "data_format", "") == "channels_first" else shape[1:-1]
    return None if None in positions else 2 * weights * math.prod(positions)
