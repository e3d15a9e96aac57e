"""Budgets split the compression of a model into a share for each weight, at each cut.

A criterion sees one weight. A budget sees all weights that share it. It is a pure function of weights, masks and
strength.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_prune._arguments import is_number
from keras_prune._shards import is_spread
from keras_prune.rules.chunks import on_host
from keras_prune.rules.configured import Configured
from keras_prune.rules.criteria import TargetSparsity, require_strength
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.shards import count, counted_chunks
from keras_prune.rules.statistics import magnitude, require_finite


class Candidate(NamedTuple):
    """A weight that a budget looks at.

    Attributes:
        value: NumPy array, the weight. The budgets of the package also take JAX arrays that are spread over processes.
        mask: Boolean array of the same kind and shape, the connections that are left.
        frozen: Whether the weight must not be pruned. The connections that it has left count.
        quality: Float above 0, the factor by which `CommonQuality` multiplies the common quality for this weight.
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

    Example:

    >>> import keras_prune as kp
    >>> class SameSparsity(kp.budgets.Budget):
    ...     def shares(self, candidates, strength=1.0):
    ...         return [strength * (1 - 1 / self.compression) for candidate in candidates]
    >>> SameSparsity(4).shares([Candidate(np.ones((8, 4)), np.ones((8, 4), "bool"))])
    [0.75]
    """

    def __init__(self, compression: float, pattern: Pattern | None = None):
        if not (is_number(compression) and 1 < compression < math.inf):
            raise ValueError(
                "`compression` is the number of all connections over those kept, a finite number above 1; 12 keeps a "
                f"twelfth. Received: compression={compression!r}"
            )
        super().__init__(pattern)
        self.compression = float(compression)

    def candidate(self, value, mask, frozen: bool = False, quality: float = 1.0) -> Candidate:
        """Returns a weight and its mask, arrays of any backend, as `shares` needs them."""
        by_shard = type(self).shares is Budget.shares and self.pattern == Pattern()
        if not (by_shard and is_spread(value)):
            value, mask = on_host(value), on_host(mask)
        return Candidate(value, mask, frozen, quality)

    def shares(self, candidates: Sequence[Candidate], strength: float = 1.0) -> list[float]:
        """Returns the sparsity that each weight is to have, as a share of its connections.

        At strength `s`, `s` times the connections of the full budget are pruned. A weight keeps at least one connection
        or block, and a frozen weight keeps all that it has. A weight that is sparser already is not pruned further.

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
        """Returns the fewest connections that a weight can keep at full strength, one connection or block."""
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
        # At least one connection, because `TargetSparsity` cannot restore one if none is left.
        most = [1 - 1 / one.mask.size for one in candidates]
        return [TargetSparsity(share, pattern) for share in map(min, self.shares(candidates, strength), most)]

    def get_config(self) -> dict[str, Any]:
        return {"compression": self.compression, **super().get_config()}


class _Proportional(Budget):
    """Keeps numbers of connections in fixed proportions."""

    def _factor(self, shape: tuple[int, ...]) -> float:
        """Returns the number to which the connections kept in a weight of that shape are proportional."""
        raise NotImplementedError

    def _shares(self, candidates, pattern, limits, kept, strength):
        counts = _in_proportion([self._factor(one.mask.shape) for one in candidates], limits, kept(1.0))
        sizes = [one.mask.size for one in candidates]
        # All weights approach the shares of the full budget in proportion.
        targets = [size - strength * (size - number) for size, number in zip(sizes, counts, strict=True)]
        counts = _in_proportion(targets, limits, kept(strength))
        return [1 - number / size for number, size in zip(counts, sizes, strict=True)]


@keras.saving.register_keras_serializable(package="keras_prune")
class Uniform(_Proportional):
    """Gives every weight the same sparsity.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `compression` is not a finite number above 1.

    Example:

    >>> candidates = [Candidate(np.ones(shape), np.ones(shape, "bool")) for shape in ((8, 4), (4, 2))]
    >>> Uniform(4).shares(candidates)
    [0.75, 0.75]
    """

    def _factor(self, shape):
        return math.prod(shape)


@keras.saving.register_keras_serializable(package="keras_prune")
class ErdosRenyiKernel(_Proportional):
    """Gives each weight a density in proportion to the sum of its dimensions over their product (ERK).

    Large weights are pruned more than small ones. A weight that would be given more connections than it has stays
    dense, and the others share the rest (Evci et al. 2020, "Rigging the Lottery", section 3).

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `compression` is not a finite number above 1.

    Example:

    >>> candidates = [Candidate(np.ones(shape), np.ones(shape, "bool")) for shape in ((8, 4), (4, 2))]
    >>> ErdosRenyiKernel(2).shares(candidates)
    [0.59375, 0.125]
    """

    def _factor(self, shape):
        return sum(shape)


def units_of(candidate: Candidate, pattern: Pattern) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields the scores of the units in each chunk that this process counts, and how many connections each has left."""
    for value, mask in counted_chunks(candidate.value, candidate.mask, multiple=pattern.rows):
        yield pattern.units(magnitude(value), mask)


def _limits(candidate: Candidate, pattern: Pattern) -> tuple[int, int]:
    """Returns the fewest connections that can stay in a weight, those of one unit, and the most."""
    if pattern == Pattern():
        left = count(candidate.mask)
        return min(1, left), left
    sizes = [(int(size.max()), int(size.sum())) for _, size in units_of(candidate, pattern)]
    return max(largest for largest, _ in sizes), sum(every for _, every in sizes)


def _in_proportion(factors, limits, kept: int) -> list[int]:
    """Splits `kept` connections in proportion to `factors`, within the limits of each weight."""
    least, most = np.array(limits).T
    factor = np.array(factors)
    left = most > 0
    low, high = 0.0, float(np.max(most[left] / factor[left], initial=0.0))
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if np.clip(middle * factor, least, most).sum() <= kept else (low, middle)
    # Largest remainders, so that the total is exact.
    exact = np.clip(low * factor, least, most)
    counts = exact.astype(int)
    counts[np.argsort(counts - exact, kind="stable")[: kept - counts.sum()]] += 1
    return counts.tolist()
