"""Criteria: which connections of one layer to cut.

A criterion is pure: a weight and its mask go in, a smaller mask comes out. It knows neither layers nor time; the
schedule decides when it is asked and at which strength.
"""

import math
import numbers
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_prune.rules.chunks import count, on_host, rows_of
from keras_prune.rules.patterns import Pattern, require_pattern
from keras_prune.rules.top_k import keep_largest, keep_largest_of


class Cut(NamedTuple):
    """What a criterion decided about one weight.

    Attributes:
        mask: Boolean array of the weight's shape, `True` where the connection survives.
        threshold: Scalar. Connections of a smaller magnitude were cut, or blocks of a smaller score.
        rescued: Boolean scalar. `True` if the rule would have cut the last connection, so that the largest was kept,
            or the block of the largest score.
    """

    mask: Any
    threshold: Any
    rescued: Any


class Criterion:
    """Base class: override `select` to write a criterion of your own.

    A criterion may only take connections away, keeps at least one connection in every weight, and is saved with the
    model through `get_config`, so register subclasses with `keras.saving.register_keras_serializable`.

    Args:
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, every connection on its own.

    Example:

    >>> import keras_prune as kp
    >>> class KeepPositive(kp.Criterion):
    ...     def select(self, weight, mask, strength):
    ...         return keras.ops.logical_and(mask, weight > 0), 0.0
    >>> keras.ops.convert_to_numpy(KeepPositive()(np.array([[1.0, -2.0, 3.0]])).mask)
    array([[ True, False,  True]])
    """

    pattern = Pattern()

    def __init__(self, pattern: Pattern | None = None):
        self.pattern = require_pattern(pattern)

    def __call__(self, weight, mask=None, strength=1.0) -> Cut:
        """Decides which connections of `weight` survive.

        Args:
            weight: Array of any shape and any backend.
            mask: Boolean array of the same shape, the connections that are still there. Defaults to all of them.
            strength: Float in (0, 1], how much of the criterion's aim to apply. Defaults to `1.0`.

        Returns:
            A `Cut`. Its mask is never larger than `mask` and never empty.

        Raises:
            ValueError: If `strength` lies outside (0, 1].
        """
        if not 0 < strength <= 1:
            raise ValueError(
                f"A cut needs a strength in (0, 1]; 1 applies the criterion in full. Received: strength={strength}"
            )
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
        """Returns the surviving mask and the threshold behind it. To be overridden."""
        raise NotImplementedError

    def _largest_only(self, weight, mask):
        mask = on_host(mask)
        score, size = self.pattern.units(_magnitude(weight), mask)
        return self.pattern.expand(keep_largest(score, size > 0, 1)[0], mask)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {} if self.pattern == Pattern() else {"pattern": keras.saving.serialize_keras_object(self.pattern)}

    @classmethod
    def from_config(cls, config):
        """Builds the criterion that `get_config` described."""
        if "pattern" in config:
            config = {**config, "pattern": keras.saving.deserialize_keras_object(config["pattern"])}
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash(repr(self))

    def __repr__(self):
        values = {name: self.pattern if name == "pattern" else value for name, value in self.get_config().items()}
        arguments = ", ".join(f"{name}={value!r}" for name, value in values.items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_prune")
class StdThreshold(Criterion):
    """Cuts below a quality parameter times the standard deviation of the layer's surviving weights.

    This is the paper's rule (Han et al. 2015, section 3). The standard deviation is taken anew at every cut, over the
    connections that are still there.

    Args:
        quality: Float above 0. For a normal distribution, a quality of 1 cuts 68 % of the connections, 2 cuts 95 %.
            Defaults to `1.0`.
        pattern: A `Pattern`. The score of a block is held against the same threshold. Defaults to `None`, every
            connection on its own.

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
        if not (isinstance(quality, numbers.Real) and np.isfinite(quality) and quality > 0):
            raise ValueError(
                "The threshold is quality times the standard deviation of the layer's weights, so quality must be a "
                f"finite number above 0; 0.5 to 2 is usual. Received: quality={quality!r}"
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
    """Cuts the smallest weights of a layer until an exact share of them is gone.

    Of `n` connections, `n x sparsity x strength` (rounded, halves upwards) are cut; of blocks, the number of whole
    ones whose connections come nearest to that, and of two numbers as near the larger. **Ties**: among connections or
    blocks of the same score those with the lower index in row-major order survive. The selection runs on the host, one
    weight at a time.

    Args:
        sparsity: Float in [0, 1), the share of the layer's connections to prune at full strength. Defaults to `0.9`.
        pattern: A `Pattern`. Of `NOfM` no more stay than it lets, even if `sparsity` asks for less. Defaults to `None`,
            every connection on its own.

    Example:

    >>> import keras_prune as kp
    >>> kp.TargetSparsity(0.5)(np.array([[1.0, 1.0], [1.0, 2.0]])).mask
    array([[ True, False],
           [False,  True]])
    """

    def __init__(self, sparsity: float = 0.9, pattern: Pattern | None = None):
        super().__init__(pattern)
        if not (isinstance(sparsity, numbers.Real) and 0 <= sparsity < 1):
            raise ValueError(
                "`sparsity` is the share of a layer's connections to prune and must be at least 0 and below 1; 0.9 "
                f"keeps one connection in ten. Received: sparsity={sparsity!r}"
            )
        self.sparsity = float(sparsity)

    def select(self, weight, mask, strength):
        pattern, weight, mask = self.pattern.at(strength), on_host(weight), on_host(mask)
        pieces = list(rows_of(mask.shape, pattern.rows))
        chosen, threshold = keep_largest_of(
            lambda: self._units(pattern, weight, mask, pieces), self.kept(weight, strength)
        )
        kept = np.empty_like(mask)
        for rows, units in zip(pieces, chosen, strict=True):
            kept[rows] = pattern.expand(units, mask[rows])
        return kept, threshold

    def _units(self, pattern, weight, mask, pieces):
        """Yields the scores and sizes of the units in each piece."""
        for rows in pieces:
            yield pattern.units(_magnitude(weight[rows]), mask[rows])

    def kept(self, weight, strength: float) -> int:
        """Returns how many connections of `weight` are to be left at `strength`, which may be none."""
        size = math.prod(weight.shape)
        return size - math.floor(size * self.sparsity * strength + 0.5)

    def get_config(self):
        return {"sparsity": self.sparsity, **super().get_config()}


@keras.saving.register_keras_serializable(package="keras_prune")
class RandomSparsity(TargetSparsity):
    """Cuts an exact share of a layer's connections at random: the baseline that every criterion is held against.

    The draw depends on the seed and the weight's shape alone, so that a stronger cut takes a superset.

    Args:
        sparsity: Float in [0, 1), the share of the layer's connections to prune at full strength. Defaults to `0.9`.
        pattern: A `Pattern`. Blocks are drawn as a whole. Defaults to `None`, single connections.
        seed: Integer. Defaults to `0`.

    Example:

    >>> import keras_prune as kp
    >>> int(kp.RandomSparsity(0.75, seed=1)(np.zeros((4, 4))).mask.sum())
    4
    """

    def __init__(self, sparsity: float = 0.9, pattern: Pattern | None = None, seed: int = 0):
        super().__init__(sparsity, pattern)
        self.seed = seed

    def select(self, weight, mask, strength):
        return super().select(weight, mask, strength)[0], 0.0  # No magnitude divides the kept from the cut.

    def _units(self, pattern, weight, mask, pieces):
        connections, units = np.random.default_rng(self.seed), np.random.default_rng(self.seed)
        for rows in pieces:
            _, size = pattern.units(connections.random(mask[rows].shape), mask[rows])
            yield units.random(size.shape), size

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def criterion_of(value, name: str) -> Criterion | None:
    """Returns the criterion of one layer: a `Criterion` or `None` as it is, and `TargetSparsity` for a float.

    Raises:
        ValueError: If `value` is none of these.
    """
    if isinstance(value, numbers.Real):
        return TargetSparsity(value)
    if isinstance(value, (Criterion, type(None))):
        return value
    raise ValueError(
        "The criterion of a layer must be a Criterion such as StdThreshold(1.0), a sparsity such as 0.9, or None. "
        f"Received: criterion={value!r} for layer {name!r}"
    )


def surviving_std(weight, mask) -> np.float32:
    """The standard deviation over the connections that survive."""
    weight, mask = on_host(weight), on_host(mask)
    number, mean, squares = 0, 0.0, 0.0
    for rows in rows_of(mask.shape):
        piece = weight[rows][mask[rows]].astype("float32", copy=False)
        if piece.size:
            # Of two parts the squared deviations add up, and the distance of their means (Chan et al. 1979).
            own = piece.mean(dtype="float64")
            piece -= np.float32(own)
            distance = float(own) - mean
            squares += float(np.sum(np.square(piece), dtype="float64"))
            squares += distance**2 * number * piece.size / (number + piece.size)
            number += piece.size
            mean += distance * piece.size / number
    return np.float32(math.sqrt(squares / max(1, number)))


def _brings_back(selected, mask) -> bool:
    """Whether a selection has connections that the mask has not, looked at piece by piece."""
    selected, mask = on_host(selected), on_host(mask)
    return any(bool((selected[rows] > mask[rows]).any()) for rows in rows_of(mask.shape))


def _magnitude(weight) -> np.ndarray:
    return np.abs(on_host(weight).astype("float32", copy=False))
