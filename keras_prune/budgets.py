"""Budgets: from one compression for the whole model to one criterion for every layer.

A criterion sees one layer only. These functions look at all of them at once and return a mapping from layer name to
criterion, ready for `prune(model, mapping)`, so that wrappers, callback and schedules never know about budgets.
Totals are exact: of `n` connections, `round(n / compression)` are kept, and at least one in every weight. (Weights of
one layer, as an LSTM has several, and layers of one name are cut to the same share, each of them rounded.) Of a model
that is wrapped, the wrapped layers count; of a plain one, those that `prune` would wrap.
"""

import re

import numpy as np
from keras import ops

from keras_prune.criteria import StdThreshold, TargetSparsity, keep_largest, surviving_std
from keras_prune.graph import leaf_layers, pruned_layers
from keras_prune.wrappers import Prune, prunable_variables


def quality_for(model, compression: float) -> float:
    """Returns the common quality parameter that brings a model to a wanted compression, found by bisection.

    Each layer is cut below quality x the standard deviation of its surviving weights. Layers that are pruned with a
    `StdThreshold` of their own keep their proportion: theirs is multiplied by the common quality.

    Args:
        model: Keras model, wrapped by `prune` or plain. Nothing is cut.
        compression: Float above 1, connections in all over connections kept. `12` keeps a twelfth.

    Returns:
        The smallest such quality; a cut with it keeps `round(n / compression)` connections or, where several have
        the same magnitude, fewer.

    Raises:
        ValueError: If `compression` is not above 1, already exceeded or out of reach, or a layer has a criterion of
            another kind.

    Example:

    >>> import keras, keras_prune as kp
    >>> layer = keras.layers.Dense(10, kernel_initializer=keras.initializers.RandomNormal(seed=0))
    >>> model = kp.prune(keras.Sequential([keras.Input((1000,)), layer]))
    >>> quality = kp.quality_for(model, compression=20)
    >>> round(quality, 1)  # 5 % of a normal distribution lies beyond two standard deviations.
    2.0
    """
    kept = _kept_connections(model, compression)
    layers = []  # Of each weight: sorted magnitudes, standard deviation, and the quality of its own.
    for layer, weight, mask in _weights(model):
        own = layer.criterion if isinstance(layer, Prune) else StdThreshold(1.0)
        if not isinstance(own, StdThreshold):
            raise ValueError(
                "A common quality needs layers that are pruned by StdThreshold. "
                f"Received: layer {layer.name!r} with criterion={own}"
            )
        spread = np.float32(ops.convert_to_numpy(surviving_std(weight, mask)))
        layers.append((np.sort(np.abs(weight[mask])), spread, own.quality))
    if kept > sum(len(magnitudes) for magnitudes, _, _ in layers):
        raise ValueError(
            f"The model has fewer connections already than the {kept:,} that are left at the wanted compression. "
            f"Received: compression={compression} for model {model.name!r}"
        )

    def survivors(quality):
        # In float32 and in this order, as StdThreshold does it, so that the count is exact.
        return sum(
            max(1, len(magnitudes) - int(np.searchsorted(magnitudes, np.float32(quality * own) * spread)))
            for magnitudes, spread, own in layers
        )

    high = 1.001 * max((float(m[-1] / (own * spread)) for m, spread, own in layers if spread > 0), default=1.0)
    if survivors(high) > kept:
        raise ValueError(
            "Weights that all have one value have no standard deviation, and StdThreshold leaves them whole: "
            f"{survivors(high):,} connections stay at any quality, and {kept:,} were to stay. "
            f"Received: compression={compression} for model {model.name!r}"
        )
    low = 1e-30 * high  # Not 0, which is no quality; where cutting the zeros alone does it, this is the answer.
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if survivors(middle) > kept else (low, middle)
    return high


def uniform(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns the same sparsity for every layer.

    Args:
        model: Keras model, wrapped by `prune` or plain.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer-name pattern to `TargetSparsity`.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    >>> kp.budgets.uniform(model, compression=4)
    {'a': TargetSparsity(sparsity=0.75), 'b': TargetSparsity(sparsity=0.75)}
    """
    sizes = _sizes(model)
    return _criteria(sizes, _shares(sizes, {name: 1.0 for name in sizes}, _kept_connections(model, compression)))


def erdos_renyi_kernel(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns densities proportional to the sum over the product of each kernel's dimensions (ERK).

    Large layers are cut more than small ones; a layer that would be given more than it has stays dense and the others
    share the rest (Evci et al. 2020, "Rigging the Lottery", section 3).

    Args:
        model: Keras model, wrapped by `prune` or plain.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer-name pattern to `TargetSparsity`; layers that stay dense are missing from it.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    >>> kp.budgets.erdos_renyi_kernel(model, compression=2)
    {'a': TargetSparsity(sparsity=0.59375), 'b': TargetSparsity(sparsity=0.125)}
    """
    factors = {}
    for layer, weight, _ in _weights(model):
        factors[layer.name] = factors.get(layer.name, 0.0) + sum(weight.shape)
    sizes = _sizes(model)
    ratios = {name: factors[name] / sizes[name] for name in sizes}
    return _criteria(sizes, _shares(sizes, ratios, _kept_connections(model, compression)))


def global_magnitude(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns the densities that ranking all connections of the model by magnitude gives.

    Args:
        model: Keras model, wrapped by `prune` or plain, trained.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer-name pattern to `TargetSparsity`; layers that stay dense are missing from it.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([
    ...     keras.Input((8,)),
    ...     keras.layers.Dense(4, kernel_initializer="ones", name="a"),
    ...     keras.layers.Dense(2, kernel_initializer="zeros", name="b"),
    ... ])
    >>> kp.budgets.global_magnitude(model, compression=2)
    {'a': TargetSparsity(sparsity=0.40625), 'b': TargetSparsity(sparsity=0.875)}
    """
    kept = _kept_connections(model, compression)
    names, magnitudes, masks = [], [], []
    for layer, weight, mask in _weights(model):
        names.append(layer.name)
        masks.append(mask.ravel())
        magnitudes.append(np.where(mask, np.abs(weight), -1.0).ravel())
        # The largest connection of every weight is kept whatever its rank, so that no weight is emptied.
        magnitudes[-1][np.argmax(magnitudes[-1])] = np.inf
    chosen, _ = keep_largest(np.concatenate(magnitudes), np.concatenate(masks), kept)
    counts: dict[str, int] = {}
    for name, part in zip(names, np.split(chosen, np.cumsum([len(mask) for mask in masks])[:-1]), strict=True):
        counts[name] = counts.get(name, 0) + int(part.sum())
    return _criteria(_sizes(model), counts)


def _weights(model):
    """Returns `(layer, weight, mask)` as NumPy arrays for every prunable weight; an unwrapped layer has a full mask."""
    found = []
    for layer in pruned_layers(model) or leaf_layers(model):
        if isinstance(layer, Prune):
            for weight in layer.pruned_weights:
                mask = ops.convert_to_numpy(weight.mask.value)
                found.append((layer, ops.convert_to_numpy(ops.cast(weight.variable.value, "float32")), mask))
        elif layer.trainable:
            for variable in prunable_variables(layer):
                weight = ops.convert_to_numpy(ops.cast(variable.value, "float32"))
                found.append((layer, weight, np.ones(weight.shape, bool)))
    if not found:
        raise ValueError(
            "A budget needs a model with trainable weights of two or more dimensions. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    return found


def _sizes(model) -> dict[str, int]:
    sizes: dict[str, int] = {}
    for layer, weight, _ in _weights(model):
        sizes[layer.name] = sizes.get(layer.name, 0) + weight.size
    return sizes


def _kept_connections(model, compression: float) -> int:
    if not compression > 1:
        raise ValueError(
            "compression is connections in all over connections kept and must be above 1; 12 keeps a twelfth. "
            f"Received: compression={compression}"
        )
    weights = _weights(model)
    total = sum(weight.size for _, weight, _ in weights)
    kept = round(total / compression)
    if kept < len(weights):
        raise ValueError(
            f"Every weight keeps at least one connection, so that {total:,} connections in {len(weights)} weights can "
            f"be compressed {total / len(weights):.1f}x at most. Received: compression={compression}"
        )
    return kept


def _shares(sizes: dict[str, int], ratios: dict[str, float], kept: int) -> dict[str, int]:
    """Splits `kept` connections in proportion to `ratios` x size, at least one and at most all of every layer."""
    size = np.array(list(sizes.values()))
    ratio = np.array([ratios[name] for name in sizes])
    low, high = 0.0, 1 / ratio.min()
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * ratio * size, 1, size).sum() <= kept else (low, middle)
    # Largest remainders, so that the total is exact.
    exact = np.clip(low * ratio * size, 1, size)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: kept - counts.sum()]] += 1
    return dict(zip(sizes, counts.tolist(), strict=True))


def _criteria(sizes: dict[str, int], counts: dict[str, int]) -> dict[str, TargetSparsity]:
    return {
        re.escape(name): TargetSparsity(1 - counts[name] / size) for name, size in sizes.items() if counts[name] < size
    }
