"""Regularizers: L1 or L2 on all connections of a model in one call, and off again."""

import keras

from keras_prune.layers.weights import prunable_weights


def regularize(model, l1: float = 0.0, l2: float = 0.0) -> None:
    """Puts an L1 or L2 penalty on every prunable weight of a model, in place of what was there.

    The loss gains `l1 x sum(|w|) + l2 x sum(w ** 2)` over the connections; biases are left alone. The next `fit`
    trains with it, without another `compile`. Han et al. (2015, section 3.1) find L1 better right after a cut and L2
    better after retraining; L2 in both phases is best over all. The penalty is not saved with the model.

    Args:
        model: Built Keras model, pruned or not. It is changed.
        l1: Float of at least 0. Defaults to `0.0`.
        l2: Float of at least 0. Defaults to `0.0`; with both at 0, the penalties are taken off.

    Raises:
        ValueError: If a factor is negative, or the model has no connections.

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
    if not (l1 >= 0 and l2 >= 0):
        raise ValueError(f"The factors of a penalty must be at least 0. Received: l1={l1}, l2={l2}")
    penalty = keras.regularizers.L1L2(l1, l2) if l1 or l2 else None
    weights = prunable_weights(model)
    if not weights:
        raise ValueError(
            "There is nothing to regularize: no layer has a trainable weight of two or more dimensions. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    for weight in weights:
        weight.variable.regularizer = penalty
        if weight.pruned:
            weight.pruned.show_survivors()
    if model.compiled:
        model.train_function = None  # The compiled training step has the old penalty in it; `fit` makes a new one.
        model.test_function = None
