"""Criteria select the connections of one weight to prune.

A criterion is a pure function from a weight and its mask to a smaller mask. It knows neither layers nor time. The
schedule decides when it is used, and at which strength.
"""

import math
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_prune._arguments import is_number, require_integer
from keras_prune.rules.chunks import count, on_host, rows_of
from keras_prune.rules.configured import Configured
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.top_k import keep_largest, keep_largest_of


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
            ValueError: If `strength` lies outside (0, 1], `weight` is no array of numbers or holds NaN or infinity, or
                `mask` is not a boolean array of its shape.
        """
        require_strength(strength)
        _require_array(weight, mask)
        require_finite(weight, f"weight of shape {tuple(weight.shape)} with NaN or infinity")
        if mask is None:
            mask = ops.ones(weight.shape, dtype="bool")
        selected, threshold = self.select(weight, mask, strength)
        if _brings_back(selected, mask):
            selected = ops.logical_and(selected, mask)
        rescued = count(selected) == 0
        if rescued:
            selected = self._largest_only(weight, mask)
        return Cut(selected, threshold, rescued)

    def select(self, weight, mask, strength) -> tuple[Any, Any]:
        """Returns the mask of the survivors and the threshold. Subclasses override it."""
        raise NotImplementedError

    def _largest_only(self, weight, mask):
        mask = on_host(mask)
        score, size = self.pattern.units(_magnitude(weight), mask)
        return self.pattern.expand(keep_largest(score, size > 0, 1)[0], mask)


@keras.saving.register_keras_serializable(package="keras_prune")
class StdThreshold(Criterion):
    """Prunes weights below a quality parameter times the standard deviation of the surviving weights.

    This is the rule of Han et al. (2015, section 3). The standard deviation is recomputed at every cut, over the
    connections that are left.

    Args:
        quality: Float above 0. For a normal distribution, a quality of 1 prunes 68% of the connections, and 2
            prunes 95%.
            Defaults to `1.0`.
        pattern: A `Pattern`. The score of a block is compared with the same threshold. Defaults to `None`, single
            connections.

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
        pattern, weight, mask = self.pattern.at(strength), on_host(weight), on_host(mask)
        kept = np.empty_like(mask)
        for rows in rows_of(mask.shape, pattern.rows):
            score, _ = pattern.units(_magnitude(weight[rows]), mask[rows])
            kept[rows] = pattern.expand(score >= threshold, mask[rows])
        return kept, threshold

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
        pattern: A `Pattern`. `NOfM` may prune more than `sparsity` asks for. Defaults to `None`,
            single connections.

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
        pattern, weight, mask = self.pattern.at(strength), on_host(weight), on_host(mask)
        chunks = list(rows_of(mask.shape, pattern.rows))
        chosen, threshold = keep_largest_of(
            lambda: self._units(pattern, weight, mask, chunks), self.kept(weight, strength)
        )
        kept = np.empty_like(mask)
        for rows, units in zip(chunks, chosen, strict=True):
            kept[rows] = pattern.expand(units, mask[rows])
        return kept, threshold

    def _units(self, pattern, weight, mask, chunks):
        """Yields the scores and sizes of the units in each piece."""
        for rows in chunks:
            yield pattern.units(_magnitude(weight[rows]), mask[rows])

    def kept(self, weight, strength: float) -> int:
        """Returns how many connections of `weight` to keep at `strength`, which may be 0."""
        size = math.prod(weight.shape)
        return size - math.floor(size * self.sparsity * strength + 0.5)

    def get_config(self):
        return {"sparsity": self.sparsity, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_prune")
class RandomSparsity(TargetSparsity):
    """Prunes an exact share of the connections of each weight at random, as a baseline for other criteria.

    The draw depends only on the seed and the shape of the weight. A stronger cut therefore prunes a superset.

    Args:
        sparsity: Float in [0, 1), the share of the layer's connections to prune at full strength. Defaults to `0.9`.
        pattern: A `Pattern`. Blocks are drawn as a whole. Defaults to `None`, single connections.
        seed: Integer of at least 0. Defaults to `0`.

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

    def _units(self, pattern, weight, mask, chunks):
        connections, units = np.random.default_rng(self.seed), np.random.default_rng(self.seed)
        for rows in chunks:
            _, size = pattern.units(connections.random(mask[rows].shape), mask[rows])
            yield units.random(size.shape), size

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def _require_array(weight, mask) -> None:
    # A list has no shape, and a mask of numbers would select by index.
    if not all(hasattr(weight, name) for name in ("shape", "dtype")) or not math.prod(weight.shape):
        raise ValueError(f"A criterion needs an array of numbers with at least one entry. Received: weight={weight!r}")
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


def require_finite(weight, received: str) -> None:
    """Raises a `ValueError` if a weight holds NaN or infinity: a mask could not be told from it.

    Args:
        weight: Array of any shape and any backend.
        received: String for the message, such as `"layer=fc, weight=kernel"`.
    """
    weight = on_host(weight)
    # The sum of a chunk is finite in float64 if its entries are, and takes no memory.
    with np.errstate(invalid="ignore"):
        finite = all(math.isfinite(np.sum(weight[rows], dtype="float64")) for rows in rows_of(weight.shape))
    if not finite:
        raise ValueError(
            "A cut needs finite weights. NaN or infinity usually mean that training has diverged. Lower the learning "
            f"rate. Received: {received}"
        )


def surviving_std(weight, mask) -> np.float32:
    """Returns the standard deviation of the surviving weights."""
    weight, mask = on_host(weight), on_host(mask)
    number, mean, squares = 0, 0.0, 0.0
    for rows in rows_of(mask.shape):
        piece = weight[rows][mask[rows]].astype("float32", copy=False)
        if piece.size:
            # The squared deviations of two parts add up, and so does the distance of their means (Chan et al. 1979).
            own = piece.mean(dtype="float64")
            piece -= np.float32(own)
            distance = float(own) - mean
            squares += float(np.sum(np.square(piece), dtype="float64"))
            squares += distance**2 * number * piece.size / (number + piece.size)
            number += piece.size
            mean += distance * piece.size / number
    return np.float32(math.sqrt(squares / max(1, number)))


def _brings_back(selected, mask) -> bool:
    """Whether a selection has connections that the mask does not have."""
    selected, mask = on_host(selected), on_host(mask)
    return any(bool((selected[rows] > mask[rows]).any()) for rows in rows_of(mask.shape))


def _magnitude(weight) -> np.ndarray:
    return np.abs(on_host(weight).astype("float32", copy=False))
