"""Cutting a model: its layers, the optimizer slots that go with the connections, and the dropout rates that follow."""

from collections.abc import Sequence

from keras_prune.graph import pruned_dropouts, pruned_layers
from keras_prune.schedules import Schedule
from keras_prune.slots import optimizers_of, reset_slots
from keras_prune.wrappers import LayerCut, Prune


def cut(model, schedule: Schedule, now: int, optimizer=None) -> list[LayerCut]:
    """Cuts what a schedule asks for at this epoch or step, in a training loop written by hand.

    It is called once before every epoch (or step, for a schedule by step), and does at the scheduled times what
    `PruningCallback` does inside `fit`; at all others it only sets stored weights that an optimizer has moved back to
    zero. It reads and writes the variables of the model: a loop on JAX that carries its state along assigns it to the
    variables before, and reads it from them afterwards. Another library's optimizer keeps its momentum.

    Args:
        model: Built model that went through `prune`.
        schedule: A `Schedule`, such as `Iterative(rounds=5, epochs_per_round=4)`.
        now: Integer, the epoch or step that is about to begin, counted from 0.
        optimizer: The Keras optimizer of the loop. Defaults to `None`, those that the model knows of.

    Returns:
        A list with a `LayerCut` for every prunable weight; an empty one when nothing is due.

    Raises:
        ValueError: If the model has nothing to prune, or a weight holds NaN or infinity.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> for epoch in range(3):
    ...     cuts = kp.cut(model, kp.OneShot(at=1), epoch)
    ...     print(epoch, model.get_layer("fc").density)  # ... and the steps of the epoch.
    0 1.0
    1 0.25
    2 0.25
    """
    layers = layers_to_cut(model)
    strength = schedule.strength(now)
    if strength is None:
        for layer in layers:
            layer.apply_masks()
        return []
    optimizers = optimizers_of(model) if optimizer is None else [optimizer]
    return [one for _, one in cut_layers(layers, strength, optimizers, pruned_dropouts(model))]


def layers_to_cut(model) -> list[Prune]:
    """Returns the `Prune` layers of a model that are not frozen, of which there must be one."""
    layers = [layer for layer in pruned_layers(model) if not layer.frozen]
    if not layers:
        raise ValueError(
            "There is no Prune layer in the model that is not frozen. Call model = keras_prune.prune(model, criterion) "
            f"before training. Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    return layers


def cut_layers(layers: Sequence[Prune], strength: float, optimizers, dropouts) -> list[tuple[Prune, LayerCut]]:
    """Cuts layers at a strength; the optimizers' slots and the rates of `(dropout, layer)` pairs go with them."""
    unbuilt = [layer.name for layer in layers if not layer.built]
    if unbuilt:
        raise ValueError(
            "A cut needs layers that have their weights, and a subclassed model makes them at its first step. Call "
            f"the model on a batch of data before training. Received: unbuilt layers {unbuilt}"
        )
    for layer in layers:
        layer.require_finite()  # All layers before the first is touched: a cut happens whole or not at all.
    for optimizer in optimizers:
        reset_slots(optimizer, [])  # Of no connection yet: one that fails does so while all is whole.
    cuts = [(layer, one) for layer in layers for one in layer.cut(strength)]
    for optimizer in optimizers:
        reset_slots(optimizer, [(one.weight.variable, one.weight.mask) for _, one in cuts])
    for dropout, layer in dropouts:
        dropout.follow(layer.density)
    return cuts
