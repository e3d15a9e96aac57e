"""Functions that wrap layers and models for pruning, and remove the wrappers."""

import contextlib
import functools

import keras

from keras_prune import _keras
from keras_prune.compat.tfmot.low_magnitude import LowMagnitude, PruneLowMagnitude
from keras_prune.compat.tfmot.schedules import ConstantSparsity
from keras_prune.layers.kinds import DEPTHWISE_CONVOLUTIONS, TRANSPARENT
from keras_prune.layers.prunable import owned_connections
from keras_prune.layers.prune import Prune, wrappers_in
from keras_prune.models.checks import require_model
from keras_prune.models.graph import is_graph
from keras_prune.models.prune_model import strip
from keras_prune.models.rebuild import clone_graph
from keras_prune.rules.patterns import Blocks, NOfM


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
    layer can choose its weights with a method `get_prunable_weights`.

    Args:
        to_prune: Keras 3 layer, list of layers, or Sequential or Functional model, built or not.
        pruning_schedule: A `PruningSchedule`. Defaults to `None`, `ConstantSparsity(0.5, begin_step=0)`.
        block_size: Two integers, inputs and outputs of a block, for weights of two dimensions. Defaults to `(1, 1)`.
        block_pooling_type: `"AVG"` or `"MAX"`, how the magnitudes in a block are pooled. Defaults to `"AVG"`.
        pruning_policy: A `PruningPolicy` that chooses the layers of a model. Defaults to `None`, all layers.
        sparsity_m_by_n: Two integers, such as `(2, 4)` for two zeros in four input channels. Defaults to `None`.
        **kwargs: Arguments of the wrapper of a single layer, such as `input_shape`.

    Returns:
        The wrapped layer, or list of layers. For a model, a new model around the same layers, which is not compiled.

    Raises:
        ValueError: If `to_prune` cannot be pruned or the policy rejects it, or if an argument is invalid.

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

    blocks = Blocks(block_size, {"AVG": "mean", "MAX": "max"}.get(block_pooling_type, block_pooling_type))
    pattern = None if blocks.block_size == (1, 1) else blocks
    criterion = LowMagnitude(pruning_schedule or ConstantSparsity(0.5, 0), pattern)
    if sparsity_m_by_n:
        zeros, of = sparsity_m_by_n  # They set the sparsity. Layers are pruned once, before step 1.
        criterion = LowMagnitude(ConstantSparsity(0.5, 1, end_step=1), NOfM(kept=of - zeros, of=of))

    @functools.cache  # A layer that several models share has one wrapper.
    def wrap(layer):
        if isinstance(layer, keras.Model) and is_graph(layer):
            with _keras.strategy_scope(layer):
                return clone_graph(layer, wrap)
        if not isinstance(layer, keras.Operation):
            require_model(layer)  # Names what was passed instead, such as a model of Keras 2.
        if not _is_prunable(layer) or (pruning_policy and not pruning_policy.allow_pruning(layer)):
            return layer
        return PruneLowMagnitude(layer, criterion, **kwargs)

    if pruning_policy and isinstance(to_prune, keras.Model):
        pruning_policy.ensure_model_supports_pruning(to_prune)
    return [wrap(layer) for layer in to_prune] if isinstance(to_prune, list) else wrap(to_prune)


def _is_prunable(layer) -> bool:
    if isinstance(layer, Prune) or not isinstance(layer, keras.layers.Layer):
        return False
    never = isinstance(layer, (*DEPTHWISE_CONVOLUTIONS, *TRANSPARENT)) or (layer.built and not owned_connections(layer))
    return hasattr(layer, "get_prunable_weights") or not never


def strip_pruning(model):
    """Removes the wrappers of `prune_low_magnitude`, for export. The zeros stay.

    Args:
        model: Model with pruned layers. It keeps its wrappers, which no longer prune.

    Returns:
        A new model around the same layers, or the model itself if it has no wrappers.

    Raises:
        ValueError: If `model` is not a Keras 3 model.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = tfmot.sparsity.keras.prune_low_magnitude(model)
    >>> tfmot.sparsity.keras.strip_pruning(model).layers[0].name
    'fc'
    """
    stripped = strip(model)
    for wrapper in wrappers_in(model):
        vars(wrapper.layer).pop("get_prunable_weights", None)
    return stripped


def prune_scope():
    """Returns a context that does nothing. Once this module is imported, Keras can load pruned models.

    Example:

    >>> import keras_prune.compat.tfmot as tfmot
    >>> with tfmot.sparsity.keras.prune_scope():
    ...     model = keras.models.load_model("model.keras")  # doctest: +SKIP
    """
    return contextlib.nullcontext()
