"""Budgets for whole models. `prune` takes them, and each cut splits them among the weights of the model."""

import re
from collections import Counter

from keras_prune.layers.masks import require_finite_weights
from keras_prune.layers.weights import labels, weights_by_layer
from keras_prune.models.checks import require_connections
from keras_prune.rules.budgets import Budget, Candidate, ErdosRenyiKernel, Uniform
from keras_prune.rules.criteria import TargetSparsity
from keras_prune.rules.rankings import CommonQuality, GlobalMagnitude
from keras_prune.rules.rule import budget_of

__all__ = ["Budget", "Candidate", "CommonQuality", "ErdosRenyiKernel", "GlobalMagnitude", "Uniform", "shares"]


def shares(model, budget: Budget | float, strength: float = 1.0) -> dict[str, TargetSparsity]:
    """Returns the sparsity that a budget gives each weight of a model now. Nothing is pruned.

    Args:
        model: Built Keras model, pruned or plain. In a pruned model, the weights with masks count. In a plain model,
            the trainable weights that `prune` would give masks count. Their zeros count as pruned.
        budget: Budget, such as `CommonQuality(compression=12)`, or a float, the sparsity of the model.
        strength: Float in (0, 1]. Defaults to `1.0`.

    Returns:
        Dict from layer path, or weight path where a layer has several weights, to `TargetSparsity`. Pass it to `prune`
        to keep these shares at every cut.

    Raises:
        ValueError: If the model has no such weights, cannot be compressed that much, or holds NaN or infinity.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    >>> kp.budgets.shares(model, kp.budgets.ErdosRenyiKernel(compression=2))
    {'a': TargetSparsity(sparsity=0.59375), 'b': TargetSparsity(sparsity=0.125)}
    """
    weights = require_connections(model)
    counts = Counter(id(weight.layer) for weight in weights)
    weights = [weight for weight in weights if weight.pruned] or [w for w in weights if w.variable.trainable]
    if not weights:
        raise ValueError(
            "A budget needs a model with trainable weights of two or more dimensions. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    require_finite_weights(weights)
    chosen = budget if isinstance(budget, Budget) else budget_of(budget)
    candidates = [chosen.candidate(w.variable.value, w.mask(), not w.variable.trainable) for w in weights]
    found = dict(zip((id(w.variable) for w in weights), chosen.criteria(candidates, strength), strict=True))
    layers = weights_by_layer(weights)
    names = labels(model, [layer for layer, _ in layers])
    table = {}
    for layer, of_layer in layers:
        for weight in of_layer:
            suffix = "" if counts[id(layer)] == 1 else f"/{weight.variable.name}"
            if weight.variable.trainable:
                table[re.escape(names[id(layer)] + suffix)] = found[id(weight.variable)]
    return table
