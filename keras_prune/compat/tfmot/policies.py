"""Policies that choose the layers of a model to prune."""

import abc

import keras

from keras_prune.deployment.deployment_plan import deployment_plan


class PruningPolicy(abc.ABC):
    """Base class of policies. Override both methods."""

    @abc.abstractmethod
    def allow_pruning(self, layer) -> bool:
        """Returns whether a layer is pruned."""

    @abc.abstractmethod
    def ensure_model_supports_pruning(self, model) -> None:
        """Raises a `ValueError` if the model is not supported."""


class PruneForLatencyOnXNNPack(PruningPolicy):
    """Prunes 1x1 convolutions, and requires a model in which XNNPACK skips their zeros.

    Which models these are, `keras_prune.deployment_plan(model, "xnnpack")` says. As in tfmot, `keepdims=True` is also
    required of every `GlobalAveragePooling2D`.
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
