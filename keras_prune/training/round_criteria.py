"""Criteria of one round of `iterative_prune`."""

import contextlib
import numbers
from collections.abc import Sequence

from keras_prune.layers.masks import PrunedWeight, require_finite_weights
from keras_prune.rules.budgets import Budget
from keras_prune.rules.criteria import Criterion, StdThreshold
from keras_prune.rules.rankings import CommonQuality


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


def budget_of_round(weights: Sequence[PrunedWeight], compression: float) -> Budget:
    """Returns the budget that prunes weights to a compression.

    Weights with a budget get one of the same class. Weights with `StdThreshold` are pruned by one common quality.

    Raises:
        ValueError: If the weights have other criteria, several kinds of budgets, or several patterns.
    """
    kinds = {type(one.criterion) if isinstance(one.criterion, Budget) else CommonQuality for one in weights}
    for weight in weights:
        if len(kinds) > 1 or not isinstance(weight.criterion, (StdThreshold, Budget)):
            raise ValueError(
                "A round with a compression splits it among all layers, which need StdThreshold criteria or one "
                "budget. Pass criteria as rounds instead. "
                f"Received: layer {weight.layer.name!r} with criterion={weight.criterion}"
            )
    patterns = {weight.criterion.pattern for weight in weights}
    if len(patterns) > 1:
        raise ValueError(
            "A round with a compression needs one pattern for all layers. Pass criteria as rounds instead. "
            f"Received: patterns={sorted(map(repr, patterns))}"
        )
    config = weights[0].criterion.get_config()
    config.pop("quality", None)
    return kinds.pop().from_config(config | {"compression": compression})


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
    budget = budget_of_round(weights, aim)
    require_finite_weights(weights)
    candidates = [
        budget.candidate(one.variable.value, one.mask.value, one.frozen, getattr(one.criterion, "quality", 1.0))
        for one in weights
    ]
    return list(budget.criteria(candidates))
