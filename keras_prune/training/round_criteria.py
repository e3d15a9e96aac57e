"""Criteria of one round of `iterative_prune`."""

import contextlib
import numbers
from collections.abc import Sequence

from keras_prune.layers.masks import PrunedWeight
from keras_prune.rules.budgets import Candidate, CommonQuality
from keras_prune.rules.chunks import on_host
from keras_prune.rules.criteria import Criterion, StdThreshold
from keras_prune.rules.patterns import Pattern


def require_rounds(rounds) -> None:
    """Raises a `ValueError` if the rounds are not compressions, in increasing order, or criteria."""
    aims = rounds if isinstance(rounds, Sequence) else []
    compressions = [aim for aim in aims if isinstance(aim, numbers.Real)]
    known = all(isinstance(aim, (numbers.Real, Criterion)) for aim in aims)
    if not aims or not known or compressions != sorted(compressions) or not all(float(aim) > 1 for aim in compressions):
        raise ValueError(
            "Each round must be a compression above 1, in increasing order, or a criterion such as StdThreshold(1.2). "
            f"Received: rounds={rounds!r}"
        )


def require_qualities(weights: Sequence[PrunedWeight]) -> Pattern:
    """Returns the pattern of weights that one common quality can prune, and raises a `ValueError` for others."""
    for weight in weights:
        if not isinstance(weight.criterion, (StdThreshold, CommonQuality)):
            raise ValueError(
                "A round with a compression prunes all layers by one common quality, which needs StdThreshold "
                f"criteria. Received: layer {weight.layer.name!r} with criterion={weight.criterion}"
            )
    patterns = {repr(weight.criterion.pattern): weight.criterion.pattern for weight in weights}
    if len(patterns) > 1:
        raise ValueError(
            "A round with a compression needs one pattern for all layers. Pass criteria as rounds instead. "
            f"Received: patterns={list(patterns.values())}"
        )
    return weights[0].criterion.pattern


@contextlib.contextmanager
def criteria_of_round(weights: Sequence[PrunedWeight], aim: float | Criterion):
    """Context in which the weights have the criteria of a round. A compression is split among all of them at once.

    Args:
        weights: Pruned weights. With a compression, the qualities of their `StdThreshold` are kept in proportion.
        aim: Compression, or the `Criterion` of all weights.
    """
    before = [weight.criterion for weight in weights]
    for weight, criterion in zip(weights, _criteria(weights, aim), strict=True):
        weight.criterion = criterion
    try:
        yield
    finally:
        for weight, criterion in zip(weights, before, strict=True):
            weight.criterion = criterion


def _criteria(weights, aim) -> list[Criterion]:
    if isinstance(aim, Criterion):
        return [aim] * len(weights)
    pattern = require_qualities(weights)
    for weight in weights:
        weight.require_finite()
    candidates = [
        Candidate(
            on_host(one.variable.value), on_host(one.mask.value), one.frozen, getattr(one.criterion, "quality", 1.0)
        )
        for one in weights
    ]
    return list(CommonQuality(aim, pattern).criteria(candidates))
