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


class Cut(NamedTuple):
    """What a criterion decided about one weight.

    Attributes:
        mask: Boolean array of the weight's shape, `True` where the connection survives.
        threshold: Scalar. Connections of a smaller magnitude were cut.
        rescued: Boolean scalar. `True` if the rule would have cut the last connection, so that the largest was kept.
    """

    mask: Any
    threshold: Any
    rescued: Any


class Criterion:
    """Base class: override `select` to write a criterion of your own.

    A criterion may only take connections away, keeps at least one connection in every weight, and is saved with the
    model through `get_config`, so register subclasses with `keras.saving.register_keras_serializable`.

    Example:

    >>> import keras_prune as kp
    >>> class KeepPositive(kp.Criterion):
    ...     def select(self, weight, mask, strength):
    ...         return keras.ops.logical_and(mask, weight > 0), 0.0
    >>> keras.ops.convert_to_numpy(KeepPositive()(np.array([[1.0, -2.0, 3.0]])).mask)
    array([[ True, False,  True]])
    """

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
        rescued = not ops.any(selected)
        if rescued:
            selected = _largest_only(weight, mask)
        return Cut(selected, threshold, rescued)

    def select(self, weight, mask, strength) -> tuple[Any, Any]:
        """Returns the surviving mask and the threshold behind it. To be overridden."""
        raise NotImplementedError

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {}

    @classmethod
    def from_config(cls, config):
        """Builds the criterion that `get_config` described."""
        return cls(**config)

    def __eq__(self, other):
        return type(self) is type(other) and self.get_config() == other.get_config()

    def __hash__(self):
        return hash((type(self), tuple(sorted(self.get_config().items()))))

    def __repr__(self):
        arguments = ", ".join(f"{name}={value!r}" for name, value in self.get_config().items())
        return f"{type(self).__name__}({arguments})"


@keras.saving.register_keras_serializable(package="keras_prune")
class StdThreshold(Criterion):
    """Cuts below a quality parameter times the standard deviation of the layer's surviving weights.

    This is the paper's rule (Han et al. 2015, section 3). The standard deviation is taken anew at every cut, over the
    connections that are still there. The arithmetic runs on the backend, on the device that holds the weight.

    Args:
        quality: Float above 0. For a normal distribution, a quality of 1 cuts 68 % of the connections, 2 cuts 95 %.
            Defaults to `1.0`.

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

    def __init__(self, quality: float = 1.0):
        if not (isinstance(quality, numbers.Real) and np.isfinite(quality) and quality > 0):
            raise ValueError(
                "The threshold is quality times the standard deviation of the layer's weights, so quality must be a "
                f"finite number above 0; 0.5 to 2 is usual. Received: quality={quality!r}"
            )
        self.quality = float(quality)

    def select(self, weight, mask, strength):
        threshold = strength * self.quality * surviving_std(weight, mask)
        return ops.logical_and(mask, ops.cast(ops.abs(weight), "float32") >= threshold), threshold

    def get_config(self):
        return {"quality": self.quality}


@keras.saving.register_keras_serializable(package="keras_prune")
class TargetSparsity(Criterion):
    """Cuts the smallest weights of a layer until an exact share of them is gone.

    Of `n` connections, `n x sparsity x strength` (rounded, halves upwards) are cut. **Ties**: among connections of
    the same magnitude those with the lower index in row-major order survive. The selection runs on the host, one
    weight at a time.

    Args:
        sparsity: Float in (0, 1), the share of the layer's connections to cut at full strength. Defaults to `0.9`.

    Example:

    >>> import keras_prune as kp
    >>> kp.TargetSparsity(0.5)(np.array([[1.0, 1.0], [1.0, 2.0]])).mask
    array([[ True, False],
           [False,  True]])
    """

    def __init__(self, sparsity: float = 0.9):
        if not (isinstance(sparsity, numbers.Real) and 0 < sparsity < 1):
            raise ValueError(
                "sparsity is the share of a layer's connections to cut and must lie between 0 and 1, both excluded; "
                f"0.9 keeps one connection in ten. Received: sparsity={sparsity!r}"
            )
        self.sparsity = float(sparsity)

    def select(self, weight, mask, strength):
        magnitude = np.abs(ops.convert_to_numpy(ops.cast(weight, "float32")))
        return keep_largest(magnitude, ops.convert_to_numpy(mask), self.kept(weight, strength))

    def kept(self, weight, strength: float) -> int:
        """Returns how many connections of `weight` the rule leaves at `strength`, which may be none."""
        size = math.prod(weight.shape)
        return size - math.floor(size * self.sparsity * strength + 0.5)

    def get_config(self):
        return {"sparsity": self.sparsity}


@keras.saving.register_keras_serializable(package="keras_prune")
class RandomSparsity(TargetSparsity):
    """Cuts an exact share of a layer's connections at random: the baseline that every criterion is held against.

    The draw depends on the seed and the weight's shape alone, so that a stronger cut takes a superset.

    Args:
        sparsity: Float in (0, 1), the share of the layer's connections to cut at full strength. Defaults to `0.9`.
        seed: Integer. Defaults to `0`.

    Example:

    >>> import keras_prune as kp
    >>> int(kp.RandomSparsity(0.75, seed=1)(np.zeros((4, 4))).mask.sum())
    4
    """

    def __init__(self, sparsity: float = 0.9, seed: int = 0):
        super().__init__(sparsity)
        self.seed = seed

    def select(self, weight, mask, strength):
        score = np.random.default_rng(self.seed).random(weight.shape)
        kept, _ = keep_largest(score, ops.convert_to_numpy(mask), self.kept(weight, strength))
        return kept, 0.0  # No magnitude divides the kept from the cut.

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}


def keep_largest(score: np.ndarray, mask: np.ndarray, kept: int) -> tuple[np.ndarray, np.floating]:
    """Keeps the `kept` highest scores among the survivors; ties go to the lower row-major index.

    Args:
        score: Array of non-negative numbers.
        mask: Boolean array of the same shape.
        kept: Integer from 0 to `score.size`. Where fewer survive already, they all stay.

    Returns:
        The boolean mask of the same shape, and the lowest score that it keeps.
    """
    if kept == 0:
        return np.zeros_like(mask), np.max(score)
    score = np.where(mask, score, -1.0).ravel()
    threshold = np.partition(score, -kept)[-kept]
    selected = score > threshold
    tied = np.flatnonzero(score == threshold)
    selected[tied[: kept - np.count_nonzero(selected)]] = True
    return (selected & mask.ravel()).reshape(mask.shape), np.maximum(threshold, 0.0)


def surviving_std(weight, mask):
    """The standard deviation over the connections that survive, a float32 scalar on the weight's own device."""
    weight = ops.cast(weight, "float32")
    survivors = max(1, count(mask))
    mean = ops.sum(ops.where(mask, weight, 0.0)) / survivors
    return ops.sqrt(ops.sum(ops.where(mask, ops.square(weight - mean), 0.0)) / survivors)


def count(mask) -> int:
    """How many entries of a boolean array are `True`."""
    return int(ops.sum(ops.cast(mask, "int32")))


def _largest_only(weight, mask):
    magnitude = np.abs(ops.convert_to_numpy(ops.cast(weight, "float32")))
    return keep_largest(magnitude, ops.convert_to_numpy(mask), 1)[0]
