"""Scope in which layers read their weights without the pruned connections."""

import keras
from keras import ops

from keras_prune import _keras


class OnSurvivors(keras.regularizers.Regularizer):
    """A regularizer that sees a weight without its pruned connections, so that its gradient there is zero.

    Not every regularizer's gradient is zero at a weight of zero: on JAX |w| has the derivative 1 there.
    """

    def __init__(self, regularizer, mask):
        self.regularizer = regularizer
        self.mask = mask

    def __call__(self, weight):
        weight = ops.convert_to_tensor(weight)
        return self.regularizer(ops.where(self.mask.value, weight, 0.0))


class MaskedScope(keras.StatelessScope):
    """Scope in which variables are read without their pruned connections. Nothing else changes.

    Args:
        masked: Dict from the `id` of a variable to the tensor that replaces it, computed before.
        weights: Dict from the `id` of a variable to its `PrunedWeight`. Weights without a tensor are masked at each
            read, because a tensor from the body of a loop cannot be used outside of it.
    """

    def __init__(self, masked, weights):
        super().__init__(collect_losses=True)
        self.masked = masked
        self.weights = weights
        self.read: set[int] = set()  # The `id` of each variable in `masked` that was read.

    def __enter__(self):
        super().__enter__()
        if self.original_scope is not None:
            self.collect_losses = self.original_scope.collect_losses
            self.losses = self.original_scope.losses
        return self

    def get_current_value(self, variable):
        key = id(variable)
        if key in self.masked:
            self.read.add(key)
            return self.masked[key]
        if key in self.weights and not is_masked(variable):
            return self.weights[key].masked()
        if self.original_scope is not None:
            return self.original_scope.get_current_value(variable)
        _initialize(variable)
        return _keras.stored_value(variable)

    def add_update(self, update):
        variable, value = update
        scope = self
        while isinstance(scope, MaskedScope):
            scope.masked.pop(id(variable), None)
            scope = scope.original_scope
        if scope is None:
            _initialize(variable)
        # At once, because the value may belong to the graph of a loop inside the layer.
        with behind_masks():
            variable.assign(value)

    def hand_on_losses(self, layer) -> None:
        """Adds the losses that layers inside `layer` added while the scope was active."""
        if self.original_scope is None:
            for loss in self.losses:
                layer.add_loss(loss)


def behind_masks():
    """Context in which no masked scope is active, and variables are read as they are stored.

    Layers are also built in it. In a scope, Keras would initialize their variables later.
    """
    scope = _keras.stateless_scope()
    while isinstance(scope, MaskedScope):
        scope = scope.original_scope
    return _keras.inside(scope)


def _initialize(variable) -> None:
    """Initializes a variable that the call of a layer made, such as the state of Keras's shared seed."""
    if _keras.stored_value(variable) is None:
        with behind_masks(), keras.StatelessScope():
            pass  # At its end, Keras initializes all variables.


def is_masked(variable) -> bool:
    """Whether a read of the variable gives a tensor in which it is masked already."""
    scope = _keras.stateless_scope()
    while isinstance(scope, MaskedScope):
        if id(variable) in scope.masked:
            return True
        scope = scope.original_scope
    return False
