"""Budgets split the compression of a model into a share for each weight, again at each cut.

A criterion sees one weight. A budget sees all weights that share it. It is a pure function of weights, masks and
strength.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_prune._arguments import is_number
from keras_prune.rules.chunks import count, rows_of
from keras_prune.rules.configured import Configured
from keras_prune.rules.criteria import TargetSparsity, require_finite, require_strength, surviving_std
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.top_k import keep_largest_of


class Candidate(NamedTuple):
    """A weight that a budget looks at.

    Attributes:
        value: NumPy array, the weight.
        mask: Boolean NumPy array of the same shape, the connections that are left.
        frozen: Whether nothing of the weight may be cut. What it has left counts.
        quality: Float above 0, what `CommonQuality` multiplies the common quality by for this weight.
    """

    value: np.ndarray
    mask: np.ndarray
    frozen: bool = False
    quality: float = 1.0


class Budget(Configured):
    """Base class of budgets. Override `shares` to write your own.

    Budgets are saved with the model through `get_config`, so register subclasses with
    `keras.saving.register_keras_serializable`.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `compression` is not a finite number above 1.
    """

    def __init__(self, compression: float, pattern: Pattern | None = None):
        if not (is_number(compression) and 1 < compression < math.inf):
            raise ValueError(
                "`compression` is the number of all connections over those kept, a finite number above 1; 12 keeps a "
                f"twelfth. Received: compression={compression!r}"
            )
        super().__init__(pattern)
        self.compression = float(compression)

    def shares(self, candidates: Sequence[Candidate], strength: float = 1.0) -> list[float]:
        """Returns the share of its connections that each weight is to lose in all, counted from the dense weight.

        At strength `s`, `s` times the connections of the full budget go. A weight keeps at least one connection or
        block, a frozen weight all that it has. Where more than the budget asks for is gone already, nothing is cut.

        Raises:
            ValueError: If the weights cannot be compressed that much, or one holds NaN or infinity.
        """
        require_strength(strength)
        for index, one in enumerate(candidates):
            require_finite(one.value, f"candidate {index} of shape {one.value.shape} with NaN or infinity")
        trained = [one for one in candidates if not one.frozen]
        if not trained:
            return [1 - count(one.mask) / one.mask.size for one in candidates]
        pattern = self.pattern.at(strength)
        limits = [_limits(one, pattern) for one in trained]
        total = sum(one.mask.size for one in candidates)
        fixed = sum(count(one.mask) for one in candidates if one.frozen)
        least, most = (sum(limit[i] for limit in limits) for i in (0, 1))
        self._require_reachable(total, fixed + least, len(candidates))

        def kept(strength):
            exact = total / self.compression
            return min(max(round(exact + (1 - strength) * (total - exact)) - fixed, least), most)

        shares = iter(self._shares(trained, pattern, limits, kept, strength))
        return [1 - count(one.mask) / one.mask.size if one.frozen else next(shares) for one in candidates]

    def _require_reachable(self, total: int, least: int, count: int) -> None:
        if round(total / self.compression) < least:
            raise ValueError(
                "Every weight keeps at least one connection or block, and a frozen weight all that it has, so "
                f"{total:,} connections in {count} weights can be compressed {math.floor(10 * total / least) / 10}x at "
                f"most. Received: compression={self.compression}"
            )

    def least(self, candidate: Candidate) -> int:
        """Returns how many connections a weight keeps at full strength at least: those of one connection or block."""
        return count(candidate.mask) if candidate.frozen else _limits(candidate, self.pattern)[0]

    def require_reachable(self, candidates: Sequence[Candidate]) -> None:
        """Raises a `ValueError` if the weights cannot be compressed that much. Takes less time than `shares`."""
        total = sum(one.mask.size for one in candidates)
        self._require_reachable(total, sum(map(self.least, candidates)), len(candidates))

    def _shares(self, candidates, pattern, limits, kept, strength) -> list[float]:
        raise NotImplementedError

    def criteria(self, candidates: Sequence[Candidate], strength: float = 1.0) -> list[TargetSparsity]:
        """Returns the criterion that gives each weight its share at a strength."""
        pattern = self.pattern.at(strength)
        return [TargetSparsity(share, pattern) for share in self.shares(candidates, strength)]

    def get_config(self) -> dict[str, Any]:
        return {"compression": self.compression, **super().get_config()}


class _Ranking(Budget):
    """Keeps the connections with the highest scores in all weights together."""

    def _scale(self, candidate: Candidate) -> float:
        """Returns what the magnitudes of a weight are divided by."""
        raise NotImplementedError

    def _shares(self, candidates, pattern, limits, kept, strength):
        scales = [self._scale(one) for one in candidates]
        best = [_best_unit(one, pattern) for one in candidates]

        def scored(one, scale, best):
            for index, (score, size) in enumerate(_units(one, pattern)):
                scaled = score / np.float32(scale)
                if index == best[0]:
                    scaled.flat[best[1]] = np.inf  # No weight is emptied.
                yield scaled, size

        def chunks():
            for arguments in zip(candidates, scales, best, strict=True):
                yield from scored(*arguments)

        chosen = iter(keep_largest_of(chunks, kept(strength))[0])
        left = [sum(int(size[next(chosen)].sum()) for _, size in _units(one, pattern)) for one in candidates]
        return [1 - number / one.mask.size for number, one in zip(left, candidates, strict=True)]


@keras.saving.register_keras_serializable(package="keras_prune")
class CommonQuality(_Ranking):
    """Ranks |w| over the standard deviation of the weight's survivors: the paper's rule at one quality for all.

    Han et al. (2015, section 3) cut below a quality times the standard deviation of the layer. This budget finds, at
    each cut, the one quality that reaches the compression.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Example:

    >>> import numpy as np
    >>> random = np.random.default_rng(0)
    >>> small, large = random.normal(size=(2, 100, 50)) * [[[0.1]], [[1.0]]]
    >>> candidates = [Candidate(one, np.ones((100, 50), "bool")) for one in (small, large)]
    >>> [round(share, 2) for share in CommonQuality(10).shares(candidates)]
    [0.9, 0.9]
    >>> [round(share, 2) for share in GlobalMagnitude(10).shares(candidates)]
    [1.0, 0.8]
    """

    def _scale(self, candidate):
        spread = surviving_std(candidate.value, candidate.mask)
        # Equal magnitudes, as a fresh layer may have, count as one standard deviation.
        return candidate.quality * (spread or float(np.abs(candidate.value[candidate.mask]).mean()) or 1.0)


@keras.saving.register_keras_serializable(package="keras_prune")
class GlobalMagnitude(_Ranking):
    """Ranks |w| over all weights together.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.
    """

    def _scale(self, candidate):
        return 1.0


class _Proportional(Budget):
    """Keeps numbers of connections in a fixed proportion."""

    def _factor(self, shape: tuple[int, ...]) -> float:
        """Returns what the number of connections kept in a weight of that shape is proportional to."""
        raise NotImplementedError

    def _shares(self, candidates, pattern, limits, kept, strength):
        counts = _in_proportion([self._factor(one.mask.shape) for one in candidates], limits, kept(1.0))
        sizes = [one.mask.size for one in candidates]
        # All weights approach the shares of the full budget at the same pace.
        targets = [size - strength * (size - number) for size, number in zip(sizes, counts, strict=True)]
        counts = _in_proportion(targets, limits, kept(strength))
        return [1 - number / size for number, size in zip(counts, sizes, strict=True)]


@keras.saving.register_keras_serializable(package="keras_prune")
class Uniform(_Proportional):
    """Gives every weight the same sparsity.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Example:

    >>> candidates = [Candidate(np.ones(shape), np.ones(shape, "bool")) for shape in ((8, 4), (4, 2))]
    >>> Uniform(4).shares(candidates)
    [0.75, 0.75]
    """

    def _factor(self, shape):
        return math.prod(shape)


@keras.saving.register_keras_serializable(package="keras_prune")
class ErdosRenyiKernel(_Proportional):
    """Gives densities in proportion to the sum over the product of each weight's dimensions (ERK).

    Large weights are pruned more than small ones. A weight that would be given more connections than it has stays
    dense, and the others share the rest (Evci et al. 2020, "Rigging the Lottery", section 3).

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Example:

    >>> candidates = [Candidate(np.ones(shape), np.ones(shape, "bool")) for shape in ((8, 4), (4, 2))]
    >>> ErdosRenyiKernel(2).shares(candidates)
    [0.59375, 0.125]
    """

    def _factor(self, shape):
        return sum(shape)


def _units(candidate: Candidate, pattern: Pattern) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the scores of the units in each chunk of a weight, and how many connections they have left."""
    for rows in rows_of(candidate.mask.shape, pattern.rows):
        magnitude = np.abs(candidate.value[rows].astype("float32", copy=False))
        yield pattern.units(magnitude, candidate.mask[rows])


def _limits(candidate: Candidate, pattern: Pattern) -> tuple[int, int]:
    """Returns how few connections can stay in a weight, which is one unit, and how many."""
    sizes = [(int(size.max()), int(size.sum())) for _, size in _units(candidate, pattern)]
    return max(largest for largest, _ in sizes), sum(every for _, every in sizes)


def _best_unit(candidate: Candidate, pattern: Pattern) -> tuple[int, int]:
    """Returns the chunk and the place in it of the unit with the highest score."""
    highest = [
        (float(score.max()), -index, int(score.argmax())) for index, (score, _) in enumerate(_units(candidate, pattern))
    ]
    _, index, place = max(highest)
    return -index, place


def _in_proportion(factors, limits, kept: int) -> list[int]:
    """Splits `kept` connections in proportion to `factors`, within the limits of each weight."""
    least, most = np.array(limits).T
    factor = np.array(factors)
    low, high = 0.0, float(np.max(most / factor))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * factor, least, most).sum() <= kept else (low, middle)
    # Largest remainders, so that the total is exact.
    exact = np.clip(low * factor, least, most)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: kept - counts.sum()]] += 1
    return counts.tolist()
