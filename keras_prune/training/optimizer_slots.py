"""Reset the optimizer slots of pruned connections.

Otherwise, the momentum of Adam or SGD moves pruned weights away from zero in the steps after a cut, and saved models
are no longer sparse.
"""

import weakref

import keras
from keras import ops

from keras_prune import _keras
from keras_prune.layers.variables import assign, where_kept


def optimizers_of(model) -> list:
    """Returns the optimizers of a model, from `compile` and from attributes for a custom train step."""
    return [value for value in vars(model).values() if isinstance(value, keras.optimizers.Optimizer)]


def reset_slots(optimizer, pairs) -> None:
    """Resets the optimizer slots of pruned connections to their initial values.

    The initial values are read from a new optimizer of the same configuration, because not every slot starts at zero.
    With an accumulator of zero, Ftrl and Adagrad would divide zero by zero.

    Args:
        optimizer: Keras optimizer. Nothing is reset if it is not built.
        pairs: List of `(variable, mask)`, the pruned weights.

    Raises:
        ValueError: If the optimizer cannot be created from its config.
    """
    if hasattr(optimizer, "inner_optimizer"):  # LossScaleOptimizer
        reset_slots(optimizer.inner_optimizer, pairs)
    elif hasattr(optimizer, "optimizers"):  # MultiOptimizer
        for part in optimizer.optimizers:
            reset_slots(part, pairs)
    elif optimizer.built:
        _reset(optimizer, pairs)


def _reset(optimizer, pairs):
    trained, slots = _keras.slots_of(optimizer)
    positions = {id(variable): position for position, variable in enumerate(trained)}
    if optimizer not in _initial_values:
        _initial_values[optimizer] = _values_of_new(optimizer)
    for variable, mask in pairs:
        position, shape, kept = positions.get(id(variable)), variable.shape, mask.value
        for name, initial in _initial_values[optimizer].items():
            slot = None if position is None or name not in slots else slots[name][position]
            # Adafactor has slots for rows and columns, which do not belong to single connections.
            if slot is not None and slot.shape == shape:
                assign(slot, where_kept(kept, slot, initial))


# Slots get their values when the optimizer is built. Attributes that are set later do not change them.
_initial_values: weakref.WeakKeyDictionary = weakref.WeakKeyDictionary()


def _values_of_new(optimizer) -> dict[str, float]:
    """Returns the initial value of each kind of slot, by its attribute in an optimizer of the same configuration."""
    try:
        # Without the learning rate, which may be a schedule that is not registered.
        fresh = type(optimizer).from_config(optimizer.get_config() | {"learning_rate": 0.0})
    except (NotImplementedError, TypeError, ValueError) as error:
        raise ValueError(
            "An optimizer must be able to be created from its `get_config()`, because its slots are reset to the "
            "initial values of another with the same configuration. "
            f"Received: optimizer={optimizer.name!r} of class {type(optimizer).__name__}, which failed with: {error}"
        ) from error
    fresh.build([keras.Variable(ops.zeros((1, 1)), name="probe")])
    _, slots = _keras.slots_of(fresh)
    return {
        name: float(ops.convert_to_numpy(probe).ravel()[0])
        for name, (probe,) in slots.items()
        if isinstance(probe, keras.Variable)
    }
