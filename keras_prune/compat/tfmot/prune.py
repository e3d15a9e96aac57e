"""Functions that wrap layers and models for pruning, and remove the wrappers."""

import contextlib
import functools

import keras

from keras_prune import _keras
from keras_prune.compat.tfmot.low_magnitude import PruneLowMagnitude
from keras_prune.layers.kinds import DEPTHWISE_CONVOLUTIONS, TRANSPARENT
from keras_prune.layers.prunable import owned_connections
from keras_prune.layers.prune import Prune, wrappers_in
from keras_prune.models.graph import is_graph
from keras_prune.models.prune_model import strip
from keras_prune.models.rebuild import clone_graph


def prune_low_magnitude(
    to_prune,
    pruning_schedule=None,
    block_size=(1, 1),
    block_pooling_type="AVG",
    pruning_policy=None,
    sparsity_m_by_n=None,
    **kwargs,
):
    """Wraps layers so that training with the callback `UpdatePruningStep` prunes them.

    Layers without prunable weights are not wrapped, nor are depthwise convolutions. Frozen layers are pruned, too. A
    layer can choose its weights by a method `get_prunable_weights`.

    Args:
        to_prune: Keras 3 layer, list of layers, or Sequential or Functional model, built or not.
        pruning_schedule: A `PruningSchedule`. Defaults to `None`, `ConstantSparsity(0.5, begin_step=0)`.
        block_size: Two integers, inputs and outputs of a block, for weights of two dimensions. Defaults to `(1, 1)`.
        block_pooling_type: `"AVG"` or `"MAX"`, the magnitude that stands for a block. Defaults to `"AVG"`.
        pruning_policy: A `PruningPolicy` that chooses the layers of a model. Defaults to `None`, all layers.
        sparsity_m_by_n: Two integers, such as `(2, 4)` for two zeros in four input channels. Defaults to `None`.
        **kwargs: Arguments of the wrapper of a single layer, such as `input_shape`.

    Returns:
        The wrapped layer, or list of layers. Of a model, a new one around the same layers, which is not compiled.

    Raises:
        ValueError: If `to_prune` cannot be pruned, or the policy does not support it.

    Example:

    >>> import numpy as np, keras_prune.compat.tfmot as tfmot
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> schedule = tfmot.sparsity.keras.ConstantSparsity(0.75, begin_step=1, frequency=1)
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model, schedule)
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 8)), np.ones((8, 4))
    >>> history = model.fit(x, y, verbose=0, callbacks=[tfmot.sparsity.keras.UpdatePruningStep()])
    >>> model = tfmot.sparsity.keras.strip_pruning(model)
    >>> model.layers[0].name, int(keras.ops.count_nonzero(model.layers[0].kernel.value))
    ('fc', 8)
    """

    @functools.cache  # A layer that several models share has one wrapper.
    def wrap(layer):
        if isinstance(layer, keras.Model) and is_graph(layer):
            with _keras.strategy_scope(layer):
                return clone_graph(layer, wrap)
        if isinstance(layer, keras.Model) or not isinstance(layer, keras.Operation):
            raise ValueError(
                "`prune_low_magnitude` can only prune Keras 3 objects of the following types: a Sequential or "
                "Functional model, a layer, a list of layers. Build Keras 2 models anew with `import keras`. A "
                "subclassed model can be pruned by keras_prune.prune(model) and keras_prune.PruningCallback. "
                f"Received: {layer!r} of class {type(layer).__module__}.{type(layer).__name__}"
            )
        if not _is_prunable(layer) or (pruning_policy and not pruning_policy.allow_pruning(layer)):
            return layer
        return PruneLowMagnitude(layer, pruning_schedule, block_size, block_pooling_type, sparsity_m_by_n, **kwargs)

    if pruning_policy and isinstance(to_prune, keras.Model):
        pruning_policy.ensure_model_supports_pruning(to_prune)
    return [wrap(layer) for layer in to_prune] if isinstance(to_prune, list) else wrap(to_prune)


def _is_prunable(layer) -> bool:
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, (Prune, keras.layers.InputLayer)):
        return False
    own = hasattr(layer, "get_prunable_weights")
    never = isinstance(layer, (*DEPTHWISE_CONVOLUTIONS, *TRANSPARENT))
    return own or not (never or (layer.built and not owned_connections(layer)))


def strip_pruning(model):
    """Removes the wrappers of `prune_low_magnitude`, for export. The zeros stay.

    Args:
        model: Model with pruned layers. It keeps its wrappers, which no longer prune.

    Returns:
        A new model around the same layers, or the model itself if it has no wrappers.

    Raises:
        ValueError: If `model` is not a Keras 3 model.
    """
    stripped = strip(model)
    for wrapper in wrappers_in(model):
        vars(wrapper.layer).pop("get_prunable_weights", None)
    return stripped


def prune_scope():
    """Returns a context that does nothing. Once this module is imported, Keras can load pruned models."""
    return contextlib.nullcontext()
