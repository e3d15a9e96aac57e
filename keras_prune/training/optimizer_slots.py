"""Optimizer slots: the momentum of a connection goes with it.

Without this, the momentum that Adam or SGD has gathered moves a stored weight off zero in the steps after the cut, and
what is saved is no longer sparse.
"""

import keras
from keras import ops


def optimizers_of(model) -> list:
    """Returns the optimizer that a model was compiled with, and those that its class keeps for a step of its own."""
    return [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]


def reset_slots(optimizer, pairs) -> None:
    """Takes every optimizer slot back to its initial value wherever a connection is cut.

    Not every slot starts at zero (the accumulator of Ftrl and of Adagrad starts at 0.1, and 0 would make it divide
    0 by 0), so the values are read off a fresh optimizer of the same configuration.

    Args:
        optimizer: Keras optimizer, built or not. One that has not taken a step yet has nothing to reset.
        pairs: List of `(variable, mask)`, the pruned weights.
    """
    if hasattr(optimizer, "inner_optimizer"):  # LossScaleOptimizer
        reset_slots(optimizer.inner_optimizer, pairs)
    elif hasattr(optimizer, "optimizers"):  # MultiOptimizer
        for part in optimizer.optimizers:
            reset_slots(part, pairs)
    elif optimizer.built:
        _reset(optimizer, pairs)


def _reset(optimizer, pairs):
    trainable = optimizer._trainable_variables
    positions = {id(variable): position for position, variable in enumerate(trainable)}
    for slots, initial in _slot_lists(optimizer, len(trainable)):
        for variable, mask in pairs:
            slot = slots[positions[id(variable)]] if id(variable) in positions else None
            # Adafactor keeps rows and columns of its second moment, which belong to no single connection.
            if slot is not None and tuple(slot.shape) == tuple(variable.shape):
                slot.assign(ops.where(mask.value, slot.value, ops.full_like(slot.value, initial)))


def _slot_lists(optimizer, count):
    """Yields `(one slot per trainable variable, initial value)` for each kind of slot that the optimizer keeps."""
    try:
        # Without the learning rate, which may be a schedule of the user's own that is not registered.
        fresh = type(optimizer).from_config(optimizer.get_config() | {"learning_rate": 0.0})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "The initial values of an optimizer's slots are read off another of its configuration, so its class must "
            f"be made from its get_config(). Received: optimizer={optimizer.name!r} of class "
            f"{type(optimizer).__name__}, for which this failed: {error}"
        ) from error
    fresh.build([keras.Variable(ops.zeros((1, 1)), name="probe")])
    for name, slots in vars(optimizer).items():
        if name == "_trainable_variables" or not isinstance(slots, list) or len(slots) != count:
            continue
        probes = getattr(fresh, name, None)
        if isinstance(probes, list) and len(probes) == 1 and isinstance(probes[0], keras.Variable):
            yield slots, float(ops.convert_to_numpy(probes[0]).ravel()[0])
