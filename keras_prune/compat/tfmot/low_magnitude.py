"""Wrapper of a layer that is pruned by its own schedule."""

import abc

import keras
import numpy as np

from keras_prune import _keras
from keras_prune.layers.attachment import attach
from keras_prune.layers.kinds import SEPARABLE_CONVOLUTIONS
from keras_prune.layers.prune import Prune
from keras_prune.layers.weights import pruned_weights
from keras_prune.rules.chunks import on_host
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.patterns import Blocks, NOfM
from keras_prune.rules.statistics import magnitude


class PrunableLayer(abc.ABC):
    """Mixin for custom layers that choose which of their weights are pruned. A layer may also define the method alone.

    Example:

    >>> import keras, keras_prune.compat.tfmot as tfmot
    >>> class WithBias(keras.layers.Dense, tfmot.sparsity.keras.PrunableLayer):
    ...     def get_prunable_weights(self):
    ...         return [self.kernel, self.bias]
    >>> layer = tfmot.sparsity.keras.prune_low_magnitude(WithBias(2, name="fc"))
    >>> layer.build((None, 3))
    >>> [weight.name for weight in layer.get_prunable_weights()]
    ['kernel', 'bias']
    """

    @abc.abstractmethod
    def get_prunable_weights(self) -> list:
        """Returns the weights that are pruned."""


@keras.saving.register_keras_serializable(package="keras_prune")
class LowMagnitude(Criterion):
    """Keeps the share `1 - strength` of connections or blocks, or as many input channels of each tap as `NOfM` keeps.

    Equal magnitudes are kept together, as in tfmot. A bias that is still zero is therefore not pruned.

    Args:
        pruning_schedule: A `PruningSchedule`, which gives the sparsity of each cut.
        pattern: A `Pattern`. Defaults to `None`, single connections.
    """

    def __init__(self, pruning_schedule, pattern=None):
        super().__init__(pattern)
        self.pruning_schedule = pruning_schedule

    def select(self, weight, mask, strength):
        weight, mask = magnitude(on_host(weight)), on_host(mask)
        if isinstance(self.pattern, NOfM):
            # A matrix of input channels by taps and outputs. A vector has one channel, of which none is pruned.
            by_channel, left = (np.moveaxis(np.atleast_2d(one), -2, 0) for one in (weight, mask))
            matrix = (len(left), -1)
            _, left = self.pattern.units(by_channel.reshape(matrix), left.reshape(matrix))
            return np.moveaxis(left.reshape(by_channel.shape), 0, -2).reshape(mask.shape), 0.0
        if strength == 1:
            raise ValueError("A cut by `LowMagnitude` needs a sparsity, as in cut(model, 0.5). Received: strength=1.0")
        score, _ = self.pattern.units(weight, mask)
        kept = max(1, int(np.round(np.float32(score.size) * (1 - np.float32(strength)))))
        threshold = max(np.partition(score, -kept, axis=None)[-kept], 0)
        return self.pattern.expand(score >= threshold, mask), threshold

    def get_config(self):
        return {"pruning_schedule": keras.saving.serialize_keras_object(self.pruning_schedule), **super().get_config()}

    @classmethod
    def from_config(cls, config):
        schedule = keras.saving.deserialize_keras_object(config["pruning_schedule"])
        return super().from_config({**config, "pruning_schedule": schedule})


@keras.saving.register_keras_serializable(package="keras_prune")
class PruneLowMagnitude(Prune):
    """Wraps a layer that is pruned by its own schedule. It is created by `prune_low_magnitude`.

    Args:
        layer: Keras layer, built or not. Of a separable convolution, the pointwise kernel is pruned.
        criterion: A `LowMagnitude`, which holds the schedule.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If `layer` cannot be wrapped, or a weight has other dimensions than blocks need.

    Example:

    >>> import keras, keras_prune.compat.tfmot as tfmot
    >>> layer = tfmot.sparsity.keras.prune_low_magnitude(keras.layers.Dense(2, name="fc"))
    >>> type(layer).__name__, layer.name
    ('PruneLowMagnitude', 'prune_low_magnitude_fc')
    """

    def __init__(self, layer, criterion: LowMagnitude, **kwargs):
        if isinstance(layer, SEPARABLE_CONVOLUTIONS) and not hasattr(layer, "get_prunable_weights"):
            layer.get_prunable_weights = lambda: [layer.pointwise_kernel]
        super().__init__(layer, criterion, **{"name": f"prune_low_magnitude_{layer.name}", **kwargs})
        self.pruning_schedule = criterion.pruning_schedule
        self.pruning_step = 0  # The step of the last update by `UpdatePruningStep`, counted from 1.

    def _attach(self, keep_zeros):
        attach(self.layer, lambda *_: (True, self._criterion), keep_zeros, frozen=True)
        weights = self.get_prunable_weights()
        if isinstance(self._criterion.pattern, Blocks) and any(len(weight.shape) != 2 for weight in weights):
            raise ValueError(f"`block_size` needs weights of two dimensions. Received: layer={self.layer.name!r}")
        if weights and not hasattr(self.layer, "get_prunable_weights"):
            self.layer.get_prunable_weights = lambda: weights

    def get_prunable_weights(self) -> list:
        """Returns the weights that are pruned."""
        return [weight.variable for weight in pruned_weights(self.layer)]

    def call(self, *args, **kwargs):
        if self.pruning_step == 0 and _keras.is_training():
            raise RuntimeError(f"Pass `UpdatePruningStep()` as a callback to `fit`. It prunes layer {self.name!r}.")
        return super().call(*args, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["pruning_step"] = np.int64(self.pruning_step)

    def load_own_variables(self, store):
        if "pruning_step" in store.keys():  # noqa: SIM118 - not every store of Keras is a dict.
            self.pruning_step = int(store["pruning_step"][()])
