"""Policies that choose the layers of a model to prune."""

import abc
import warnings

import keras

from keras_prune.analysis.xnnpack_subgraph import is_misread, sparse_subgraph


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

    What XNNPACK supports is asked of `keras_prune.deployment_plan`, which also names models that LiteRT misreads.
    """

    def allow_pruning(self, layer) -> bool:
        return isinstance(layer, keras.layers.Conv2D) and layer.kernel_size == (1, 1)

    def ensure_model_supports_pruning(self, model) -> None:
        _, blockers = sparse_subgraph(model)
        reasons = [f"{operation.name}: {reason}" for operation, reason in blockers]
        if is_misread(model):
            warnings.warn(" ".join(reasons), stacklevel=3)
            reasons = []
        reasons += [
            f"{layer.name}: the GlobalAveragePooling2D that ends the subgraph needs keepdims=True"
            for layer in model.layers
            if isinstance(layer, keras.layers.GlobalAveragePooling2D) and not layer.keepdims
        ]
        if reasons:
            raise ValueError(
                f"XNNPACK would skip no zeros in this model. {'. '.join(reasons)}. Received: model={model.name!r}"
            )
