"""Wrapper of a layer that is pruned by its own schedule."""

import abc
import functools

import keras
import numpy as np

from keras_prune import _keras
from keras_prune.compat.tfmot.schedules import ConstantSparsity
from keras_prune.layers.attachment import attach
from keras_prune.layers.kinds import SEPARABLE_CONVOLUTIONS
from keras_prune.layers.prune import Prune
from keras_prune.layers.weights import pruned_weights
from keras_prune.rules.chunks import on_host
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.patterns import Blocks, NOfM, Pattern
from keras_prune.rules.statistics import magnitude
from keras_prune.rules.top_k import bound_of


class PrunableLayer(abc.ABC):
    """Mixin for own layers that say which of their weights are pruned. The method alone is enough.

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
    """

    def select(self, weight, mask, strength):
        weight, mask = magnitude(on_host(weight)), on_host(mask)
        if isinstance(self.pattern, NOfM):
            by_channel = np.moveaxis(weight, -2, 0)
            matrix = (len(by_channel), -1)
            _, left = self.pattern.units(by_channel.reshape(matrix), np.moveaxis(mask, -2, 0).reshape(matrix))
            return np.moveaxis(left.reshape(by_channel.shape), 0, -2), 0.0
        if strength == 1:
            raise ValueError(
                "The schedule of `prune_low_magnitude` tells the sparsity: train with UpdatePruningStep, or pass a "
                "sparsity, as in keras_prune.cut(model, 0.5). Received: strength=1.0"
            )
        score, left = self.pattern.units(weight, mask)
        kept = max(1, int(np.round(np.float32(score.size) * (1 - np.float32(strength)))))
        bound = bound_of(lambda: [(score, left > 0)], kept, score.size)
        return self.pattern.expand(score >= bound.score, mask), bound.score


@keras.saving.register_keras_serializable(package="keras_prune")
class PruneLowMagnitude(Prune):
    """Wraps a layer that is pruned by its own schedule. `prune_low_magnitude` makes it.

    Args:
        layer: Keras layer, built or not. Of a separable convolution, the pointwise kernel is pruned.
        pruning_schedule: A `PruningSchedule`. Defaults to `None`, `ConstantSparsity(0.5, 0)`.
        block_size: Two integers, inputs and outputs of a block, for weights of two dimensions. Defaults to `(1, 1)`.
        block_pooling_type: `"AVG"` or `"MAX"`, the magnitude that stands for a block. Defaults to `"AVG"`.
        sparsity_m_by_n: Two integers, such as `(2, 4)`: two zeros in four input channels, from step 1 on and whatever
            the schedule says. Defaults to `None`.
        **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
        ValueError: If an argument is invalid, or a weight of the built layer has other dimensions than blocks need.
    """

    def __init__(
        self,
        layer,
        pruning_schedule=None,
        block_size=(1, 1),
        block_pooling_type="AVG",
        sparsity_m_by_n=None,
        **kwargs,
    ):
        if block_pooling_type not in _REDUCTIONS:
            raise ValueError(f"`block_pooling_type` is 'AVG' or 'MAX'. Received: {block_pooling_type=}")
        pattern = Pattern() if tuple(block_size) == (1, 1) else Blocks(block_size, _REDUCTIONS[block_pooling_type])
        if sparsity_m_by_n:
            zeros, of = sparsity_m_by_n
            pattern = NOfM(kept=of - zeros, of=of)
        self.pruning_schedule = pruning_schedule or ConstantSparsity(0.5, 0)
        # With N of M, the pattern tells the sparsity, and the first step the time.
        self.update_schedule = ConstantSparsity(0.5, 1, end_step=1) if sparsity_m_by_n else self.pruning_schedule
        self.block_size, self.block_pooling_type = tuple(block_size), block_pooling_type
        self.sparsity_m_by_n = sparsity_m_by_n and tuple(sparsity_m_by_n)
        self.pruning_step = -1  # The last training step, which UpdatePruningStep counts.
        if isinstance(layer, SEPARABLE_CONVOLUTIONS) and not hasattr(layer, "get_prunable_weights"):
            layer.get_prunable_weights = lambda: [layer.pointwise_kernel]
        super().__init__(layer, LowMagnitude(pattern), **{**kwargs, "name": f"prune_low_magnitude_{layer.name}"})

    def _attach(self, keep_zeros):
        attach(self.layer, lambda *_: (True, self._criterion), keep_zeros, frozen=True)
        weights, pattern = self.get_prunable_weights(), self._criterion.pattern
        ranks = {len(weight.shape) for weight in weights}
        if (isinstance(pattern, Blocks) and ranks - {2}) or (isinstance(pattern, NOfM) and 1 in ranks):
            raise ValueError(
                "`block_size` needs weights of two dimensions, and `sparsity_m_by_n` of two or more. "
                f"Received: {pattern} for layer {self.layer.name!r} with weights of {sorted(ranks)} dimensions"
            )
        if weights and not hasattr(self.layer, "get_prunable_weights"):
            self.layer.get_prunable_weights = functools.partial(list, weights)

    def get_prunable_weights(self) -> list:
        """Returns the weights that are pruned."""
        return [weight.variable for weight in pruned_weights(self.layer)]

    def call(self, *args, **kwargs):
        if self.pruning_step < 0 and _keras.is_training():
            raise RuntimeError(
                f"Layer {self.name!r} is trained without the callback that prunes it. Pass callbacks=["
                "tfmot.sparsity.keras.UpdatePruningStep()] to `fit`."
            )
        return super().call(*args, **kwargs)

    def save_own_variables(self, store):
        super().save_own_variables(store)
        store["pruning_step"] = np.int64(self.pruning_step)

    def load_own_variables(self, store):
        if "pruning_step" in store.keys():  # noqa: SIM118 - not every store of Keras is a dict.
            self.pruning_step = int(store["pruning_step"][()])

    def get_config(self):
        config = super().get_config()
        del config["criterion"]
        return config | {
            "pruning_schedule": keras.saving.serialize_keras_object(self.pruning_schedule),
            "block_size": self.block_size,
            "block_pooling_type": self.block_pooling_type,
            "sparsity_m_by_n": self.sparsity_m_by_n,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        schedule = keras.saving.deserialize_keras_object(config["pruning_schedule"], custom_objects)
        # Past `Prune`, whose criterion is not in the config.
        return super(Prune, cls).from_config({**config, "pruning_schedule": schedule}, custom_objects)


_REDUCTIONS = {"AVG": "mean", "MAX": "max"}
