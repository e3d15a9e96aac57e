"""Masking: how a layer and its regularizers come to see a weight without its cut connections."""

import keras
from keras import ops


class OnSurvivors(keras.regularizers.Regularizer):
    """A regularizer that sees a weight without its cut connections, so that its gradient there is zero.

    Not every regularizer's is at a weight of zero: on JAX |w| has the derivative 1 there.
    """

    def __init__(self, regularizer, mask):
        self.regularizer = regularizer
        self.mask = mask

    def __call__(self, weight):
        weight = ops.convert_to_tensor(weight)
        return self.regularizer(ops.where(self.mask.value, weight, 0.0))


class MaskedScope(keras.StatelessScope):
    """Hands a layer its masked weights, and keeps in `updates` what the layer assigns meanwhile.

    Not every variable that a layer assigns is one of `layer.variables`: the states of a stateful LSTM are not, nor is
    the seed that layers without one of their own share.
    """

    def __init__(self, state_mapping):
        super().__init__(state_mapping, collect_losses=True)
        self.updates = {}

    def add_update(self, update):
        super().add_update(update)
        self.updates[id(update[0])] = update

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        # On JAX a training step is itself a scope, which knows the variables that are not masked.
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value
