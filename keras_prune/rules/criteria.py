"""Criteria select the connections of one weight to prune.

A criterion is a pure function from a weight and its mask to a smaller mask. It does not depend on layers or time. The
schedule decides when it is used, and at which strength.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_prune._arguments import is_number, require_integer
from keras_prune._shards import is_spread
from keras_prune.rules.chunks import on_host, rows_of
from keras_prune.rules.configured import Configured
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.shards import adder, assemble, count, counted_chunks, of_processes, shards_of, share_out, total
from keras_prune.rules.statistics import magnitude, require_finite, surviving_std
from keras_prune.rules.top_k import bound_of, count_tied, keep_largest, kept_units, lowest_kept


class Cut(NamedTuple):
    """The decision of a criterion about one weight.

    Attributes:
        mask: Boolean array of the weight's shape, `True` where the connection survives.
        threshold: Scalar. Connections with a smaller magnitude were pruned, or blocks with a smaller score.
        rescued: Boolean scalar. `True` if the rule would have pruned the last connection. The largest connection, or
            the block with the largest score, was kept.
    """

    mask: Any
    threshold: Any
    rescued: Any


class Criterion(Configured):
    """Base class of criteria. Override `select` to write your own.

    A criterion only removes connections, and keeps at least one in every weight. It is saved with the model through
    `get_config`, so register subclasses with `keras.saving.register_keras_serializable`.

    Args:
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `pattern` is not a `Pattern`.

    Example:

    >>> import keras_prune as kp
    >>> class KeepPositive(kp.Criterion):
    ...     def select(self, weight, mask, strength):
    ...         return keras.ops.logical_and(mask, weight > 0), 0.0
    >>> keras.ops.convert_to_numpy(KeepPositive()(np.array([[1.0, -2.0, 3.0]])).mask)
    array([[ True, False,  True]])
    """

    def __call__(self, weight, mask=None, strength=1.0) -> Cut:
        """Returns which connections of `weight` survive.

        Args:
            weight: Array of any shape and any backend.
            mask: Boolean array of the same shape, the connections that are left. Defaults to all of them.
            strength: Float in (0, 1], how far to apply the criterion. Defaults to `1.0`.

        Returns:
            A `Cut`. Its mask is never larger than `mask` and never empty.

        Raises:
            ValueError: If `strength` is not in (0, 1], `weight` is not an array of numbers or holds NaN or infinity, or
                `mask` is not a boolean array of the same shape.
        """
        require_strength(strength)
        _require_array(weight, mask)
        if mask is None:
            mask = ops.ones(weight.shape, dtype="bool")
        if self._reads_on_host(weight):
            weight, mask = on_host(weight), on_host(mask)
        require_finite(weight, f"weight of shape {tuple(weight.shape)} with NaN or infinity")
        selected, threshold = self.select(weight, mask, strength)
        if "bool" not in str(selected.dtype) or _brings_back(selected, mask):
            selected = ops.logical_and(selected, mask)
        rescued = count(selected) == 0
        if rescued:
            selected = self._largest_only(weight, mask)
        return Cut(selected, threshold, rescued)

    def select(self, weight, mask, strength) -> tuple[Any, Any]:
        """Returns the mask of the survivors and the threshold. Subclasses override it."""
        raise NotImplementedError

    def _reads_on_host(self, weight) -> bool:
        """Whether `select` gets NumPy arrays. A weight that is spread over processes is then gathered as a whole."""
        if type(self).select in (StdThreshold.select, TargetSparsity.select):
            return not is_spread(weight) or self.pattern != Pattern()
        return is_spread(weight)

    def _largest_only(self, weight, mask):
        weight, mask = on_host(weight), on_host(mask)
        score, size = self.pattern.units(magnitude(weight), mask)
        return self.pattern.expand(keep_largest(score, size > 0, 1), mask)


@keras.saving.register_keras_serializable(package="keras_prune")
class StdThreshold(Criterion):
    """Prunes weights below a quality parameter times the standard deviation of the surviving weights.

    This is the rule of Han et al. (2015, section 3). The standard deviation is recomputed at every cut, over the
    connections that are left, so many cuts at one quality prune more than one cut.

    Args:
        quality: Float above 0. For a normal distribution, a quality of 1 prunes 68% of the connections, and 2 prunes
            95%. Defaults to `1.0`.
        pattern: A `Pattern`. The score of a block is compared with the same threshold. Defaults to `None`, single
            connections.

    Raises:
        ValueError: If `quality` is not a finite number above 0.

    Example:

    >>> import keras_prune as kp
    >>> weight = np.array([[0.1, -0.2, 3.0], [-4.0, 0.3, 0.0]], dtype="float32")
    >>> cut = kp.StdThreshold(quality=0.5)(weight)
    >>> keras.ops.convert_to_numpy(cut.mask)
    array([[False, False,  True],
           [ True, False, False]])
    >>> round(float(cut.threshold), 3)
    1.021
    """

    def __init__(self, quality: float = 1.0, pattern: Pattern | None = None):
        super().__init__(pattern)
        if not (is_number(quality) and 0 < quality < math.inf):
            raise ValueError(
                "`quality` is multiplied by the standard deviation of the weights and must be a finite number above 0, "
                f"usually 0.5 to 2. Received: quality={quality!r}"
            )
        self.quality = float(quality)

    def select(self, weight, mask, strength):
        threshold = np.float32(strength * self.quality) * surviving_std(weight, mask)
        pattern, parts = self.pattern.at(strength), {}
        for shard in shards_of(weight, mask):
            value, left = shard.arrays
            kept = parts[shard.place] = np.empty_like(left)
            for rows in rows_of(left.shape, pattern.rows):
                score, _ = pattern.units(magnitude(value[rows]), left[rows])
                kept[rows] = pattern.expand(score >= threshold, left[rows])
        return assemble(parts, weight), threshold

    def get_config(self):
        return {"quality": self.quality, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_prune")
class TargetSparsity(Criterion):
    """Prunes an exact share of the connections of each weight, those with the smallest magnitudes.

    Of `n` connections, `n x sparsity x strength` are pruned, rounded to the nearest integer with halves up. With
    blocks, the number of pruned blocks is rounded to the nearest count, and ties round up. Among connections or blocks
    with the same score, those with the lower index in row-major order survive. The selection runs on the host.

    Args:
        sparsity: Float in [0, 1), the share of the layer's connections to prune at full strength. Defaults to `0.9`.
        pattern: A `Pattern`. `NOfM` may prune more than `sparsity` asks for. Defaults to `None`, single connections.

    Raises:
        ValueError: If `sparsity` is not in [0, 1).

    Example:

    >>> import keras_prune as kp
    >>> kp.TargetSparsity(0.5)(np.array([[1.0, 1.0], [1.0, 2.0]])).mask
    array([[ True, False],
           [False,  True]])
    """

    def __init__(self, sparsity: float = 0.9, pattern: Pattern | None = None):
        super().__init__(pattern)
        if not (is_number(sparsity) and 0 <= sparsity < 1):
            raise ValueError(
                "`sparsity` is the share of a layer's connections to prune and must be at least 0 and below 1; 0.9 "
                f"keeps one connection in ten. Received: sparsity={sparsity!r}"
            )
        self.sparsity = float(sparsity)

    def select(self, weight, mask, strength):
        pattern, shards, parts = self.pattern.at(strength), shards_of(weight, mask), {}

        def chunks(shard=None):
            for one in [shard] if shard else [one for one in shards if one.is_counted]:
                yield from self._units(pattern, *one.arrays)

        bound = bound_of(chunks, self.kept(weight, strength), math.prod(weight.shape), adder(weight))
        ties = share_out(bound.ties, shards, lambda shard: count_tied(chunks(shard), bound), weight)
        for shard in shards:
            left = shard.arrays[1]
            kept = parts[shard.place] = np.empty_like(left)
            chosen = kept_units(chunks(shard), bound._replace(ties=ties[shard.place]))
            for rows, units in zip(rows_of(left.shape, pattern.rows), chosen, strict=True):
                kept[rows] = pattern.expand(units, left[rows])
        # They all know it, unless nothing is kept.
        threshold = of_processes(lowest_kept(chunks(), bound), weight).max()
        return assemble(parts, weight), threshold

    def _units(self, pattern, weight, mask):
        """Yields the scores and sizes of the units in each chunk."""
        for rows in rows_of(mask.shape, pattern.rows):
            yield pattern.units(magnitude(weight[rows]), mask[rows])

    def kept(self, weight, strength: float) -> int:
        """Returns how many connections of `weight` to keep at `strength`, which may be 0."""
        size = math.prod(weight.shape)
        return size - math.floor(size * self.sparsity * strength + 0.5)

    def get_config(self):
        return {"sparsity": self.sparsity, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_prune")
class RandomSparsity(TargetSparsity):
    """Prunes an exact share of the connections of each weight at random, as a baseline for other criteria.

    The draw depends only on the seed and the shape of the weight. A cut at a higher strength therefore prunes the same
    connections and more.

    Args:
        sparsity: Float in [0, 1), the share of the layer's connections to prune at full strength. Defaults to `0.9`.
        pattern: A `Pattern`. Blocks are drawn as a whole. Defaults to `None`, single connections.
        seed: Integer of at least 0. Defaults to `0`.

    Raises:
        ValueError: If `sparsity` is not in [0, 1), or `seed` is not an integer of at least 0.

    Example:

    >>> import keras_prune as kp
    >>> int(kp.RandomSparsity(0.75, seed=1)(np.zeros((4, 4))).mask.sum())
    4
    """

    def __init__(self, sparsity: float = 0.9, pattern: Pattern | None = None, seed: int = 0):
        super().__init__(sparsity, pattern)
        require_integer("seed", seed, 0)
        self.seed = int(seed)

    def select(self, weight, mask, strength):
        return super().select(weight, mask, strength)[0], 0.0  # No magnitude separates kept and pruned connections.

    def _units(self, pattern, weight, mask):
        connections, units = np.random.default_rng(self.seed), np.random.default_rng(self.seed)
        for rows in rows_of(mask.shape, pattern.rows):
            _, size = pattern.units(connections.random(mask[rows].shape), mask[rows])
            yield np.where(size > 0, units.random(size.shape), -1.0), size

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def _require_array(weight, mask) -> None:
    # A list has no shape, and a mask of numbers would select by index.
    if not all(hasattr(weight, name) for name in ("shape", "dtype")) or not len(weight.shape) * math.prod(weight.shape):
        raise ValueError(
            "A criterion needs an array of numbers with at least one entry and one axis. A scalar has no connections. "
            f"Received: weight={weight!r}"
        )
    if mask is not None and (
        tuple(getattr(mask, "shape", ())) != tuple(weight.shape) or "bool" not in str(getattr(mask, "dtype", ""))
    ):
        raise ValueError(
            f"`mask` must be a boolean array of the shape {tuple(weight.shape)} of the weight. Received: mask={mask!r}"
        )


def require_strength(strength: float) -> None:
    """Raises a `ValueError` if a strength is not in (0, 1]."""
    if not (is_number(strength) and 0 < strength <= 1):
        raise ValueError(
            "`strength` must be a number above 0 and at most 1. At 1 the criterion applies in full. "
            f"Received: strength={strength!r}"
        )


def _brings_back(selected, mask) -> bool:
    """Whether a selection has connections that the mask does not have."""
    return bool(total(any(np.any(new > old) for new, old in counted_chunks(selected, mask)), selected))
