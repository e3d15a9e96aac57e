"""Turn the `criterion` of `prune` or `Prune` into a criterion or a budget."""

import numbers

from keras_prune._arguments import is_number
from keras_prune.rules.budgets import Budget
from keras_prune.rules.criteria import Criterion, TargetSparsity
from keras_prune.rules.rankings import GlobalMagnitude

Rule = Criterion | Budget


def rule_of(value, name: str) -> Rule | None:
    """Returns the rule of one layer, which is `TargetSparsity` for a float. Other rules and `None` stay the same.

    Raises:
        ValueError: If `value` is none of these.
    """
    if isinstance(value, numbers.Real):
        return TargetSparsity(float(value))
    if isinstance(value, (Criterion, Budget, type(None))):
        return value
    raise ValueError(
        "The criterion of a layer must be a Criterion such as StdThreshold(1.0), a budget such as "
        "budgets.CommonQuality(12), a sparsity such as 0.9, or None. "
        f"Received: criterion={value!r} for layer {name!r}"
    )


def budget_of(sparsity: float) -> GlobalMagnitude:
    """Returns the budget for the sparsity of a whole model, which had the lowest error in docs/guides/how_much.md.

    Raises:
        ValueError: If `sparsity` is not in (0, 1).

    Example:

    >>> budget_of(0.9)
    GlobalMagnitude(compression=10.0)
    """
    if not (is_number(sparsity) and 0 < sparsity < 1):
        raise ValueError(
            "The sparsity of a model is the share of its connections to prune and must be above 0 and below 1; 0.9 "
            "keeps one connection in ten. For a compression such as 12, pass keras_prune.budgets.GlobalMagnitude(12). "
            f"Received: {sparsity!r}"
        )
    return GlobalMagnitude(float(f"{1 / (1 - sparsity):.12g}"))  # 10, not 10.000000000000002.
