"""Prune a model now, with its optimizer slots and dropout rates."""

from collections.abc import Iterator, Sequence
from typing import Any

import keras

from keras_prune.layers.masks import LayerCut, PrunedWeight, connections_of, require_finite_weights
from keras_prune.layers.weights import pruned_weights
from keras_prune.models.checks import require_model
from keras_prune.models.graph import pruned_dropouts
from keras_prune.rules.budgets import Budget, Candidate
from keras_prune.rules.criteria import TargetSparsity, require_strength
from keras_prune.training.optimizer_slots import optimizers_of, reset_slots


def cut(model, strength: float | None = 1.0, optimizer=None) -> list[LayerCut]:
    """Prunes a model now, as `PruningCallback` does during `fit`.

    The criteria of the model select connections. These are zeroed in the stored weights, their optimizer slots are
    reset to the initial values, and dropout rates follow. In a custom training loop, call this function before every
    epoch (or step) with `schedule(epoch)`. It reads and writes the variables of the model. In a JAX loop that carries
    its own state, assign the state to the variables before the call, and read it from them afterwards. The slots of
    optimizers of other libraries are not reset.

    Args:
        model: Built model with pruning enabled, or a layer with masks. A part of a model takes the full compression of
            a budget that it shares with other parts.
        strength: Float in (0, 1], how far to apply the criteria, such as `schedule(epoch)`. A schedule returns `None`
            if no cut is due. Then nothing is pruned, and pruned weights that an optimizer has moved are set back to
            zero. Defaults to `1.0`.
        optimizer: The Keras optimizer of the loop. Defaults to `None`, the optimizers of the model.

    Returns:
        A list with a `LayerCut` for every trainable pruned weight. The list is empty if no cut is due.

    Raises:
        ValueError: If the model has nothing to prune, or a weight holds NaN or infinity.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> schedule = kp.OneShot(start=1)
    >>> for epoch in range(3):
    ...     cuts = kp.cut(model, schedule(epoch))  # ... and the steps of the epoch.
    ...     print(epoch, kp.report(model).sparsity)
    0 0.0
    1 0.75
    2 0.75
    """
    if not isinstance(model, keras.layers.Layer):
        require_model(model)
    weights = weights_to_cut(model)
    if strength is None:
        for weight in weights:
            weight.warn_if_moved()
            weight.apply_mask()
        return []
    if not isinstance(optimizer, (keras.optimizers.Optimizer, type(None))):
        raise ValueError(
            "`optimizer` is the Keras optimizer whose slots are reset. Leave it out if the loop has one of another "
            "library. "
            f"Received: optimizer={optimizer!r}"
        )
    optimizers = optimizers_of(model) if optimizer is None else [optimizer]
    dropouts = pruned_dropouts(model) if isinstance(model, keras.Model) else []
    return cut_weights(weights, strength, optimizers, dropouts)


def weights_to_cut(model) -> list[PrunedWeight]:
    """Returns the pruned weights of a model, one of which must be trained."""
    weights = pruned_weights(model)
    if not all(weight.frozen for weight in weights):
        return weights
    if isinstance(model, keras.Model) and not all(layer.built for layer in model.layers):
        unbuilt = [layer.name for layer in model.layers if not layer.built]
        raise ValueError(
            "The model has layers without weights, which a subclassed model creates in its first step. Call the model "
            f"on a batch of data first. Received: model={model.name!r} with unbuilt layers {unbuilt}"
        )
    raise ValueError(
        "The model has no trainable weights with pruning enabled. Call keras_prune.prune(model, criterion) first. "
        f"Received: model={getattr(model, 'name', model)!r}"
    )


def cut_weights(weights: Sequence[PrunedWeight], strength: float, optimizers, dropouts) -> list[LayerCut]:
    """Prunes weights at a strength. Optimizer slots and dropout rates follow.

    Args:
        weights: Pruned weights. Frozen weights do not change, but count in the budgets that they share.
        strength: Float in (0, 1].
        optimizers: Keras optimizers of the model.
        dropouts: Pairs of a `DropoutRate` and the pruned weights of the layer that it follows.
    """
    require_strength(strength)
    require_finite_weights(weights)  # Before the first weight changes, so that a cut happens as a whole or not at all.
    for optimizer in optimizers:
        reset_slots(optimizer, [])  # With no connections, so that a failing optimizer fails before anything changes.
    rules = _budgeted(weights, strength)
    cuts = []
    for weight in weights:
        if not weight.frozen:
            criterion, at, least = rules.get(id(weight), (weight.criterion, strength, 0))
            one = weight.cut(criterion, at)
            cuts.append(one._replace(rescued=one.rescued or (0 < one.kept <= least and one.cut > 0)))
    for optimizer in optimizers:
        reset_slots(optimizer, [(one.weight.variable, one.weight.mask) for one in cuts])
    follow_connections(dropouts)
    return cuts


def _budgeted(weights, strength: float) -> dict[int, tuple]:
    """Returns, by the `id` of each weight that shares a budget, its criterion, strength and least connections."""
    rules = {}
    for budget, group, candidates in _budgets(weights):
        criteria = budget.criteria(candidates, strength)
        for weight, criterion, candidate in zip(group, criteria, candidates, strict=True):
            rules[id(weight)] = (criterion, 1.0, budget.least(candidate))
    return rules


def _budgets(weights) -> Iterator[tuple[Any, list[PrunedWeight], list[Candidate]]]:
    """Yields each budget with the weights that share it."""
    sharing: dict[int, list[PrunedWeight]] = {}
    for weight in weights:
        if isinstance(weight.criterion, Budget):
            sharing.setdefault(id(weight.criterion), []).append(weight)
    for group in sharing.values():
        budget: Any = group[0].criterion
        yield budget, group, [budget.candidate(one.variable.value, one.mask.value, one.frozen) for one in group]


def require_reachable(weights: Sequence[PrunedWeight]) -> None:
    """Raises a `ValueError` if weights cannot be compressed as much as their budget requires."""
    for budget, _, candidates in _budgets(weights):
        budget.require_reachable(candidates)


def asked_sparsity(weights: Sequence[PrunedWeight]) -> float | None:
    """Returns the sparsity that the criteria of pruned weights ask for, or `None` if one of them does not define it."""
    asked = 0.0
    for weight in weights:
        if isinstance(weight.criterion, Budget):
            asked += weight.size * (1 - 1 / weight.criterion.compression)
        elif isinstance(weight.criterion, TargetSparsity):
            asked += weight.size * (1 - weight.density if weight.frozen else weight.criterion.sparsity)
        else:
            return None
    return asked / sum(weight.size for weight in weights) if weights else None


def follow_connections(dropouts) -> None:
    """Sets the rate of each dropout for the connections left in the layer before it."""
    for rate, source in dropouts:
        kept, total = connections_of(source)
        rate.follow(kept / total)
