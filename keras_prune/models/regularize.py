"""L1 or L2 penalties on all connections of a model."""

import math

import keras

from keras_prune._arguments import is_number
from keras_prune.models.checks import require_connections
from keras_prune.models.prune_model import forget_compiled_functions


def regularize(model, l1: float = 0.0, l2: float = 0.0) -> None:
    """Adds an L1 or L2 penalty to every prunable weight of a model, and replaces the penalty that was there.

    The loss gains `l1 x sum(|w|) + l2 x sum(w ** 2)` over the connections. Biases are not penalized. The next `fit`
    uses the penalty, without another `compile`. Han et al. (2015, section 3.1) find L1 better right after a cut and L2
    better after retraining. L2 in both phases is best overall. The penalty is not saved with the model.

    Args:
        model: Built Keras model, pruned or not. It is changed.
        l1: Float of at least 0. Defaults to `0.0`.
        l2: Float of at least 0. Defaults to `0.0`. If both are 0, the penalties are removed.

    Raises:
        ValueError: If `l1` or `l2` is not a finite number of at least 0, or the model has no connections.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, kernel_initializer="ones")])
    >>> kp.regularize(model, l2=0.5)
    >>> float(sum(model.losses))
    4.0
    >>> kp.regularize(model)
    >>> model.losses
    []
    """
    if not all(is_number(factor) and 0 <= factor < math.inf for factor in (l1, l2)):
        raise ValueError(f"The factors of a penalty must be finite and at least 0. Received: l1={l1!r}, l2={l2!r}")
    penalty = keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
    for weight in require_connections(model):
        weight.variable.regularizer = penalty
        if weight.pruned:
            weight.pruned.show_survivors()
    forget_compiled_functions(model)  # The old penalty is part of them.
