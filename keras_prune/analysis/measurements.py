"""Numbers that describe a pruned model in the logs of a training run."""

from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import labels, pruned_weights, pruning_of, weights_by_layer
from keras_prune.rules.chunks import on_host


def measurements(model, log_layers: bool = False) -> dict[str, float]:
    """Returns what `PruningCallback` adds to the epoch logs.

    Args:
        model: Pruned model.
        log_layers: Boolean, whether to add `sparsity/<path>`, `threshold/<path>` and `dropout/<path>` of each layer.
            Where a layer has several pruned weights, the name of the weight is added to the path of its threshold.
            Defaults to `False`.

    Returns:
        Dict from log key to float.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, {"fc": 0.75})
    >>> cuts = kp.cut(model)
    >>> measurements(model), sorted(measurements(model, log_layers=True))
    ({'sparsity': 0.75}, ['sparsity', 'sparsity/fc', 'threshold/fc'])
    """
    weights = pruned_weights(model)
    kept = {id(weight): weight.kept for weight in weights}
    values = {"sparsity": _sparsity(weights, kept)}
    if not log_layers:
        return values
    by_layer = weights_by_layer(weights)
    rates = [rate for rate in map(pruning_of, layers_in(model)) if isinstance(rate, DropoutRate)]
    names = labels(model, [layer for layer, _ in by_layer] + [rate.owner() for rate in rates])
    for layer, of_layer in by_layer:
        name = names[id(layer)]
        values[f"sparsity/{name}"] = _sparsity(of_layer, kept)
        for weight in of_layer:
            suffix = "" if len(of_layer) == 1 else f"/{weight.name}"
            # Through NumPy, because a variable under `tf.distribute` does not support float().
            values[f"threshold/{name}{suffix}"] = float(on_host(weight.threshold.value))
    return values | {f"dropout/{names[id(rate.owner())]}": rate.current_rate for rate in rates}


def _sparsity(weights, kept: dict[int, int]) -> float:
    return 1 - sum(kept[id(weight)] for weight in weights) / max(1, sum(weight.size for weight in weights))
