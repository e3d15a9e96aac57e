"""Budgets: from one compression for the whole model to one criterion for every layer.

A criterion sees one layer only. These functions look at all of them at once and return a mapping from layer path to
criterion, ready for `prune(model, mapping)`, so that masks, callback and schedules never know about budgets.
Totals are exact: of `n` connections, `round(n / compression)` are kept, and at least one in every weight. (Weights of
one layer, as an LSTM has several, are cut to the same share, each of them rounded.) Of a pruned model, the weights with
masks count; of a plain one, those that `prune` would give masks, whose zeros count as pruned.

The criteria have the patterns of those that the layers have: to give a budget to blocks, prune first, as in
`budgets.uniform(prune(model, StdThreshold(pattern=Blocks((4, 1)))), 12)`. Then every weight keeps at least one block,
and whole blocks only, so that each comes to within half a block of its share.
"""

import math
import re
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_prune.layers.weights import labels, prunable_weights, weights_by_layer
from keras_prune.rules.criteria import Criterion, StdThreshold, TargetSparsity, surviving_std
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.top_k import keep_largest


def quality_for(model, compression: float) -> float:
    """Returns the common quality parameter that brings a model to a wanted compression, found by bisection.

    Each layer is cut below quality x the standard deviation of its surviving weights. Layers that are pruned with a
    `StdThreshold` of their own keep their proportion: theirs is multiplied by the common quality.

    Args:
        model: Keras model, pruned or plain. Nothing is cut.
        compression: Float above 1, connections in all over connections kept. `12` keeps a twelfth.

    Returns:
        The smallest such quality; a cut with it keeps `round(n / compression)` connections or, where several have
        the same magnitude or stand in one block, fewer.

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
    weights = _weights(model)
    kept = _kept_connections(model, weights, compression)
    layers = []  # Of each weight: scores and sizes of its units, its spread, and the quality of its own.
    for weight in weights:
        if weight.frozen:
            continue
        if not isinstance(weight.criterion, StdThreshold):
            raise ValueError(
                "A common quality needs layers that are pruned by StdThreshold. "
                f"Received: layer {weight.layer!r} with criterion={weight.criterion}"
            )
        spread = surviving_std(weight.value, weight.mask)
        layers.append((weight.score, weight.size, spread, weight.criterion.quality))

    fixed = sum(weight.least for weight in weights if weight.frozen)

    def survivors(quality):
        # In float32 and in this order, as StdThreshold does it, so that the count is exact.
        return fixed + sum(
            int(size[score >= np.float32(quality * own) * spread].sum()) or int(size.flat[np.argmax(score)])
            for score, size, spread, own in layers
        )

    largest = [float(score.max() / (own * spread)) for score, _, spread, own in layers if spread > 0]
    high = 1.001 * max(largest, default=1.0)
    if survivors(high) > kept:
        raise ValueError(
            "Weights that all have one value have no standard deviation, and StdThreshold leaves them whole: "
            f"{survivors(high):,} connections stay at any quality, and {kept:,} were to stay. "
            f"Received: compression={compression} for model {model.name!r}"
        )
    low = 1e-30 * high  # Not 0, which is no quality. Where nothing is left to cut, this is the answer.
    while high - low > 1e-12 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if survivors(middle) > kept else (low, middle)
    return high


def uniform(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns the same sparsity for every layer.

    Args:
        model: Keras model, pruned or plain.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer pattern to `TargetSparsity`.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    >>> kp.budgets.uniform(model, compression=4)
    {'a': TargetSparsity(sparsity=0.75), 'b': TargetSparsity(sparsity=0.75)}
    """
    return _in_proportion(model, compression, math.prod)


def erdos_renyi_kernel(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns densities proportional to the sum over the product of each kernel's dimensions (ERK).

    Large layers are cut more than small ones; a layer that would be given more than it has stays dense and the others
    share the rest (Evci et al. 2020, "Rigging the Lottery", section 3).

    Args:
        model: Keras model, pruned or plain.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer pattern to `TargetSparsity`; layers that stay dense are missing from it.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="a"), keras.layers.Dense(2, name="b")])
    >>> kp.budgets.erdos_renyi_kernel(model, compression=2)
    {'a': TargetSparsity(sparsity=0.59375), 'b': TargetSparsity(sparsity=0.125)}
    """
    return _in_proportion(model, compression, sum)


def global_magnitude(model, compression: float) -> dict[str, TargetSparsity]:
    """Returns the densities that ranking all connections of the model by magnitude gives.

    Args:
        model: Keras model, pruned or plain, trained.
        compression: Float above 1, connections in all over connections kept.

    Returns:
        A mapping from layer pattern to `TargetSparsity`; layers that stay dense are missing from it.

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
    weights = _weights(model)
    kept = _kept_connections(model, weights, compression)
    scores = [weight.score.flatten() for weight in weights]
    for weight, score in zip(weights, scores, strict=True):
        # The best unit of every weight is kept whatever its rank, so that no weight is emptied.
        score[slice(None) if weight.frozen else np.argmax(score)] = np.inf
    size = np.concatenate([weight.size.ravel() for weight in weights])
    chosen, _ = keep_largest(np.concatenate(scores), size, kept)
    counts = dict.fromkeys(_layers(weights), 0)
    for weight, part in zip(weights, np.split(size * chosen, np.cumsum([len(s) for s in scores])[:-1]), strict=True):
        counts[weight.layer] += int(part.sum())
    return _criteria(_layers(weights), counts)


class _Weight(NamedTuple):
    """A prunable weight: its layer's name and criterion, value and mask, and the scores and sizes of its units."""

    layer: str
    criterion: Criterion
    value: np.ndarray
    mask: np.ndarray
    score: np.ndarray
    size: np.ndarray
    frozen: bool

    @property
    def least(self) -> int:
        """How few connections can stay: one unit, or all that a frozen layer still has."""
        return int(self.size.sum() if self.frozen else self.size.max())


class _Layer(NamedTuple):
    """The weights of one layer: connections in all, how few and how many can stay, and the pattern."""

    size: int
    least: int
    most: int
    pattern: Pattern


def _weights(model) -> list[_Weight]:
    """Returns every prunable weight of a model, of a pruned model those with masks."""
    prunable = prunable_weights(model)
    prunable = [weight for weight in prunable if weight.pruned] or [w for w in prunable if w.variable.trainable]
    if not prunable:
        raise ValueError(
            "A budget needs a model with trainable weights of two or more dimensions. "
            f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    names = labels(model, [layer for layer, _ in weights_by_layer(prunable)])
    found = []
    for weight in prunable:
        criterion = weight.criterion or StdThreshold(1.0)
        mask = weight.mask()
        value = ops.cast(weight.variable.value, "float32")
        # On the backend, as a criterion does it, because another order of summing moves a block's mean.
        score, size = criterion.pattern.units(ops.abs(value), mask)
        arrays = map(ops.convert_to_numpy, (value, mask, score, size))
        found.append(_Weight(names[id(weight.layer)], criterion, *arrays, not weight.variable.trainable))
    return found


def _layers(weights: list[_Weight]) -> dict[str, _Layer]:
    layers: dict[str, _Layer] = {}
    for weight in weights:
        size, least, most, pattern = layers.get(weight.layer, (0, 0, 0, weight.criterion.pattern))
        layers[weight.layer] = _Layer(
            size + weight.mask.size, least + weight.least, most + int(weight.size.sum()), pattern
        )
    return layers


def _kept_connections(model, weights: list[_Weight], compression: float) -> int:
    if not compression > 1:
        raise ValueError(
            "compression is connections in all over connections kept and must be above 1; 12 keeps a twelfth. "
            f"Received: compression={compression}"
        )
    total = sum(weight.mask.size for weight in weights)
    most = sum(int(weight.size.sum()) for weight in weights)
    least = sum(weight.least for weight in weights)
    kept = round(total / compression)
    if kept < least:
        raise ValueError(
            "Every weight keeps at least one connection or block, and a frozen layer all that it has, so that "
            f"{total:,} connections in {len(weights)} weights can be compressed {total / least:.1f}x at most. "
            f"Received: compression={compression}"
        )
    if kept > most:
        raise ValueError(
            f"The model has fewer connections already than the {kept:,} that are left at the wanted compression, or "
            f"its patterns let no more than {most:,} stay. Received: compression={compression} for model {model.name!r}"
        )
    return kept


def _in_proportion(model, compression: float, factor: Callable) -> dict[str, TargetSparsity]:
    """Splits the connections that are to stay in proportion to `factor(shape)`, summed over the weights of a layer."""
    weights = _weights(model)
    kept = _kept_connections(model, weights, compression)
    layers = _layers(weights)
    factors = dict.fromkeys(layers, 0)
    for weight in weights:
        factors[weight.layer] += factor(weight.mask.shape)
    return _criteria(layers, _shares(layers, factors, kept))


def _shares(layers: dict[str, _Layer], factors: dict[str, float], kept: int) -> dict[str, int]:
    """Splits `kept` connections in proportion to `factors`, within the limits of every layer."""
    _, least, most, _ = zip(*layers.values(), strict=True)
    factor = np.array([factors[name] for name in layers])
    low, high = 0.0, float(np.max(most / factor))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * factor, least, most).sum() <= kept else (low, middle)
    # Largest remainders, so that the total is exact.
    exact = np.clip(low * factor, least, most)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: kept - counts.sum()]] += 1
    return dict(zip(layers, counts.tolist(), strict=True))


def _criteria(layers: dict[str, _Layer], counts: dict[str, int]) -> dict[str, TargetSparsity]:
    return {
        re.escape(name): TargetSparsity(1 - counts[name] / layer.size, layer.pattern)
        for name, layer in layers.items()
        if counts[name] < layer.size
    }
