"""Share of a layer's outputs that are not zero, measured on data."""

import keras
import numpy as np
from keras import ops

from keras_prune.analysis.batches import input_batches
from keras_prune.layers.hook import override, restore


def nonzero_shares(model, layers, x, steps: int | None = None, batch_size: int = 256) -> dict[int, float]:
    """Returns, by `id`, the share of each layer's outputs that are not zero.

    The model runs eagerly and in inference mode.

    Args:
        model: Built Keras model.
        layers: Layers of the model or of models nested in it.
        x: Array of shape `(n, ...)`, a structure of arrays, or an iterable of batches. Of a batch
            `(inputs, targets)`, also as a list, only the inputs are used.
        steps: Integer, number of batches to use. Defaults to `None`, all. An endless dataset needs it.
        batch_size: Integer, size of the batches if `x` holds arrays. Defaults to `256`.

    Raises:
        ValueError: If `x` is empty or endless, or `steps` is less than 1.
    """
    batches = input_batches(x, steps, batch_size)
    counts = {id(layer): np.zeros(2, np.int64) for layer in layers}

    def watched(layer):
        call = layer.call

        def watching_call(*args, **kwargs):
            outputs = call(*args, **kwargs)
            for output in keras.tree.flatten(outputs):
                counts[id(layer)] += int(ops.sum(ops.cast(output != 0, "int32"))), int(np.prod(output.shape))
            return outputs

        return watching_call

    watches = {id(layer): (layer, watched(layer)) for layer in layers}
    for layer, watching_call in watches.values():
        override(layer, "call", watching_call)
    try:
        for batch in batches:
            model(batch, training=False)
    finally:
        for layer, _ in watches.values():
            restore(layer, "call")
    if any(total == 0 for _, total in counts.values()):
        raise ValueError(f"Activations are measured on at least one input. Received: x={x!r}")
    return {key: float(nonzero / total) for key, (nonzero, total) in counts.items()}
