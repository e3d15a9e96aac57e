"""Activations: how many of a layer's outputs are not zero, measured on data."""

import keras
import numpy as np
from keras import ops

from keras_prune.layers.hook import override, restore


def nonzero_shares(model, layers, data, batch_size: int = 256) -> dict[int, float]:
    """Returns, by `id`, the share of each layer's outputs that are not zero.

    The model runs in inference mode and eagerly; its layers are watched where they are, nested ones included.

    Args:
        model: Built Keras model.
        layers: Layers of the model or of models nested in it.
        data: Array of shape `(n, ...)`, a structure of arrays, or an iterable of batches `inputs` or
            `(inputs, targets)`, a list counting as a tuple.
        batch_size: Integer, inputs run at once where `data` holds arrays. Defaults to `256`.

    Returns:
        A dictionary from `id(layer)` to a float in [0, 1].

    Raises:
        ValueError: If `data` is empty.
    """
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
        for batch in _batches(data, batch_size):
            model(batch, training=False)
    finally:
        for layer, _ in watches.values():
            restore(layer, "call")
    if any(total == 0 for _, total in counts.values()):
        raise ValueError(f"Measuring activations needs at least one input. Received: data={data!r}")
    return {key: nonzero / total for key, (nonzero, total) in counts.items()}


def _batches(data, batch_size):
    if isinstance(data, (list, tuple, dict)) or hasattr(data, "shape"):
        size = min((len(array) for array in keras.tree.flatten(data)), default=0)
        for start in range(0, size, batch_size):
            yield keras.tree.map_structure(lambda array: array[start : start + batch_size], data)  # noqa: B023
    else:
        for batch in data:
            yield keras.utils.unpack_x_y_sample_weight(batch)[0]
