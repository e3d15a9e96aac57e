"""Reasons why pruning leaves a layer out, or leaves a dropout at its rate."""

from keras_prune import _keras

# Layers with weights.
ADAPTED = "LoRA adds an update without zeros to its frozen weights"
FROZEN = "its weights are not trainable"
NO_CRITERION = "it has no criterion"
QUANTIZED = "its weights are quantized"

# Dropouts.
DROPS_INPUTS = "it drops the inputs of the model"
FIXED_RATE = "the rate of its class cannot change during training"
MERGED_INPUTS = "it is called more than once or merges several inputs"
NO_GRAPH = "the layers of a subclassed model cannot be followed"
NO_SOURCE = "its inputs are not the outputs of a single layer with connections"
SOURCE_NOT_PRUNED = "the layer before it is not pruned"


def unmaskable(layer) -> str | None:
    """Returns why no weight of a layer can have a mask, or `None` if it can."""
    if getattr(layer, "lora_enabled", False):
        return ADAPTED
    return QUANTIZED if _keras.is_quantized(layer) else None


def unmaskable_layers(layers) -> list[tuple]:
    """Returns the layers whose weights cannot have masks, each with the reason."""
    return [(layer, reason) for layer in layers if (reason := unmaskable(layer))]
