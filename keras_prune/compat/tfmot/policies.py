"""Policies that choose the layers of a model to prune."""

import abc

import keras

from keras_prune.deployment.deployment_plan import deployment_plan


class PruningPolicy(abc.ABC):
    """Base class of policies. Override both methods.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> class OnlyDense(tfmot.sparsity.keras.PruningPolicy):
    ...     def allow_pruning(self, layer):
    ...         return isinstance(layer, keras.layers.Dense)
    ...
    ...     def ensure_model_supports_pruning(self, model):
    ...         pass
    >>> model = keras.Sequential([keras.Input((8, 1)), keras.layers.Conv1D(2, 3), keras.layers.Dense(4, name="fc")])
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model, pruning_policy=OnlyDense())
    >>> [layer.name for layer in model.layers if "prune" in layer.name]
    ['prune_low_magnitude_fc']
    """

    @abc.abstractmethod
    def allow_pruning(self, layer) -> bool:
        """Returns whether a layer is pruned."""

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model) -> None:
        """Raises a `ValueError` if the model is not supported."""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes 1x1 convolutions, and requires a model in which XNNPACK skips their zeros.

    `keras_prune.deployment_plan(model, "xnnpack")` reports why a model is not one. As in tfmot, every
    `GlobalAveragePooling2D` also needs `keepdims=True`.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> policy = tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    >>> policy.allow_pruning(keras.layers.Conv2D(8, 1)), policy.allow_pruning(keras.layers.Conv2D(8, 3))
    (True, False)
    """

    def allow_pruning(self, layer) -> bool:
        return isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model) -> None:
        reasons = dict(deployment_plan(model, "xnnpack").blockers)
        for layer in model.layers:
            if isinstance(layer, keras.layers.GlobalAveragePooling2D) and not layer.keepdims:
                reasons[layer.name] = "it needs keepdims=True"
        if reasons:
            raise ValueError(f"XNNPACK skips no zeros in this model. Received: model={model.name!r} with {reasons}")
