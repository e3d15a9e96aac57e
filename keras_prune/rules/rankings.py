"""Budgets that rank the connections of all weights together."""

import keras
import numpy as np

from keras_prune._processes import process_index
from keras_prune.rules.budgets import Budget, Candidate, units_of
from keras_prune.rules.patterns import Pattern
from keras_prune.rules.shards import adder, counted_here, of_processes, total
from keras_prune.rules.statistics import largest_magnitude, surviving_std
from keras_prune.rules.top_k import bound_of


class _Ranking(Budget):
    """Keeps the connections with the highest scores in all weights together."""

    def _scale(self, candidate: Candidate) -> float:
        """Returns the number by which the magnitudes of a weight are divided."""
        raise NotImplementedError

    def _shares(self, candidates, pattern, limits, kept, strength):
        values = [one.value for one in candidates]
        scales = [self._scale(one) for one in candidates]
        counted = counted_here(values)
        best = _best_units(candidates, pattern, counted)

        def scored(index):
            for number, (score, size) in enumerate(units_of(candidates[index], pattern)):
                scaled = score / np.float32(scales[index])
                if (number, index) in best:
                    scaled.flat[best[number, index]] = np.inf  # Every weight keeps at least one unit.
                yield scaled, size

        def chunks():
            return (units for index in counted for units in scored(index))

        each = sum(one.mask.size for one in candidates) // len(candidates)
        bound = bound_of(chunks, kept(strength), each, adder(*values))
        counts = np.zeros((2, len(candidates)), "int64")
        for index in counted:
            for score, size in scored(index):
                counts[:, index] += _size(size, score > bound.score), _size(size, score == bound.score)
        above, tied = total(counts, *values)
        # Ties go to the first weights.
        left = above + np.clip(kept(strength) - above.sum() - (np.cumsum(tied) - tied), 0, tied)
        return [1 - int(number) / one.mask.size for number, one in zip(left, candidates, strict=True)]


@keras.saving.register_keras_serializable(package="keras_prune")
class CommonQuality(_Ranking):
    """Ranks |w| over the standard deviation of the surviving weights, which is the paper's rule at one common quality.

    Han et al. (2015, section 3) prune weights below a quality times the standard deviation of the layer. At each cut,
    this budget finds the quality that gives the compression.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `compression` is not a finite number above 1.

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
        return candidate.quality * (spread or largest_magnitude(candidate.value, candidate.mask) or 1.0)


@keras.saving.register_keras_serializable(package="keras_prune")
class GlobalMagnitude(_Ranking):
    """Ranks |w| over all weights together.

    Args:
        compression: Float above 1, all connections over those kept. `12` keeps a twelfth.
        pattern: A `Pattern`, such as `Blocks((4, 1))`. Defaults to `None`, single connections.

    Raises:
        ValueError: If `compression` is not a finite number above 1.

    Example:

    >>> import numpy as np
    >>> weights = np.array([[0.1, 3.0], [2.0, 4.0]]), np.array([[0.3, 0.4], [0.5, 5.0]])
    >>> GlobalMagnitude(2).shares([Candidate(one, np.ones((2, 2), "bool")) for one in weights])
    [0.25, 0.75]
    """

    def _scale(self, candidate):
        return 1.0


def _size(size: np.ndarray, chosen: np.ndarray) -> int:
    """Returns how many connections the chosen units of a chunk have left."""
    return int(np.count_nonzero(chosen) if size.dtype == bool else size[chosen].sum())


def _best_units(candidates, pattern: Pattern, counted) -> dict[tuple[int, int], int]:
    """Returns the place of the unit with the highest score of each weight, by its chunk and the index of the weight.

    A unit is only in the result of the process that counts it.
    """
    highest, places = np.full(len(candidates), -1.0), {}
    for index in counted:
        for number, (score, _) in enumerate(units_of(candidates[index], pattern)):
            place = int(score.argmax())
            if score.flat[place] > highest[index]:
                highest[index], places[index] = score.flat[place], (number, place)
    all_processes = of_processes(highest, *(one.value for one in candidates))
    owner, own = all_processes.argmax(axis=0), process_index() if len(all_processes) > 1 else 0
    return {(number, index): place for index, (number, place) in places.items() if owner[index] == own}
