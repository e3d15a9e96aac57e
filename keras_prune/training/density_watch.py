"""Restore connections together with weights during `fit`, and warn if the model becomes less sparse."""

import functools
import warnings

import keras
from keras import ops

from keras_prune.layers.hook import override, restore
from keras_prune.layers.masks import connections_of
from keras_prune.models.record import plain_class
from keras_prune.training.cut import follow_connections

_METHODS = ("get_weights", "set_weights")


class DensityWatch(keras.callbacks.Callback):
    """Allows other callbacks to save and restore weights of a pruned model. `PruningCallback` calls its hooks.

    Keras restores weights with `model.set_weights`, which does not restore masks. During `fit`, this method also
    restores the connections that the weights had.

    Args:
        at_end: Function without arguments, called after all callbacks of a run are done.
    """

    def __init__(self, at_end):
        super().__init__()
        self.at_end = at_end
        self.weights = []
        self.dropouts = []
        self.kept = 0

    def follow(self, weights, dropouts) -> None:
        """Sets the pruned weights, and the dropouts whose rates follow them, as `pruned_dropouts` returns them."""
        self.weights, self.dropouts = weights, dropouts
        self.accept()

    def accept(self) -> None:
        """Expects the present connections from now on."""
        self.kept = connections_of(self.weights)[0]

    def check(self) -> None:
        """Warns if the model has more connections than before."""
        before = self.kept
        self.kept, total = connections_of(self.weights)
        if before and self.kept > before:
            warnings.warn(
                f"The restored weights are less sparse: {self.kept:,} of {total:,} connections, previously {before:,}. "
                "This usually means that a callback restored an epoch before the last cut.",
                stacklevel=2,
            )

    def apply_masks(self) -> None:
        """Sets pruned weights to zero. Some optimizers, such as Muon, move a zero with a zero gradient."""
        for weight in self.weights:
            weight.warn_if_moved()
            weight.apply_mask()

    def on_train_begin(self, logs=None):
        model = self.model
        for name in _METHODS:
            restore(model, name)  # An interrupted run has left it there.
            override(model, name, functools.partial(getattr(self, f"_{name}")))
        # The last hook of every `fit`, after callbacks such as EarlyStopping have restored weights.
        model.history.on_train_end = self._stop
        model.history.follows_schedule = True  # `fit` of a pruned model reads it.

    def _stop(self, logs=None):
        model = self.model
        del model.history.on_train_end
        for name in _METHODS:
            restore(model, name)
        self.apply_masks()
        self.check()
        self.at_end()

    def _get_weights(self):
        self.apply_masks()  # Otherwise a zero that the optimizer has moved would be restored as a connection.
        return plain_class(self.model).get_weights(self.model)

    def _set_weights(self, weights):
        plain_class(self.model).set_weights(self.model, weights)
        for weight in self.weights:
            # Pruned connections are stored as zeros. All other entries are connections.
            weight.mask.assign(ops.logical_or(weight.mask.value, weight.variable.value != 0))
        follow_connections(self.dropouts)
        # At once, because an interrupted `fit` leaves this method on the model until the next one.
        self.check()
