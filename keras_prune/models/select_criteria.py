"""Select the criterion of each weight for `prune`."""

import numbers
import re
from collections.abc import Callable, Mapping

from keras_prune.rules.budgets import Budget
from keras_prune.rules.criteria import Criterion, StdThreshold
from keras_prune.rules.rule import Rule, budget_of, rule_of


class Selection:
    """Finds the criterion of a weight.

    Args:
        criterion: A `Criterion` for every weight; a `Budget`, or a float for the sparsity of the model; a mapping from
            a regular expression, matched against whole names, paths and ends of paths, to a `Criterion`, a `Budget`, a
            float (the sparsity of a layer) or `None`; a callable from a layer to one of these; or `None`, the default.
        paths: Dict from the `id` of a layer to its path, from the name of the model on. A layer that is created later
            has `layer.path`.

    Raises:
        ValueError: If `criterion` is none of these.
    """

    def __init__(self, criterion, paths: dict[int, str]):
        self.received = criterion
        self.paths = paths
        self.mapping: dict[str, Rule | None] = {}
        self.matched: set[str] = set()
        self.is_budget = False
        self.named: dict[str, list[str]] = {}  # The names that patterns could have matched, for the error.
        self.choose: Callable = lambda layer: None
        equal: dict[Budget, Budget] = {}  # Layers for which a callable returns equal budgets share one.
        if criterion is None:
            criterion = StdThreshold()
        if isinstance(criterion, numbers.Real):
            criterion = budget_of(float(criterion))
        if isinstance(criterion, (Criterion, Budget)):
            self.choose = lambda layer: criterion
            self.is_budget = isinstance(criterion, Budget)
        elif isinstance(criterion, Mapping):
            self.mapping = {self._pattern(key): rule_of(value, key) for key, value in criterion.items()}
        elif callable(criterion):

            def choose(layer):
                rule = rule_of(criterion(layer), layer.name)
                return equal.setdefault(rule, rule) if isinstance(rule, Budget) else rule

            self.choose = choose
        else:
            raise ValueError(
                "`criterion` must be the sparsity of the model such as 0.9, a Criterion such as StdThreshold(1.0), a "
                "budget, a mapping from layer-name pattern to any of these, or a callable from layer to one of them. "
                f"Received: criterion={criterion!r}"
            )
        self.patterns = _Patterns(self.mapping)

    def __call__(self, layer, variable, around) -> tuple[bool, Rule | None]:
        """Returns whether the criterion names the weight, and the criterion of the weight.

        Args:
            layer: The layer that owns the weight.
            variable: The weight.
            around: The layers around `layer`.
        """
        if not isinstance(self.received, Mapping):
            return True, self.choose(layer)
        own = self._names(layer)
        of_weight = {f"{name}/{variable.name}" for name in own} | {*_ends(variable.path)[1:]}
        of_layers = own.union(*map(self._names, around))
        path = (self.paths.get(id(layer)) or layer.name).split("/", 1)[-1]
        self.named[variable.path] = sorted({layer.name, path})
        matching_weight, matching_layers = map(self.patterns.matching, (of_weight, of_layers))
        # The whole path comes before other patterns, since "fc" is also an end of the path "block/fc".
        matching_path = {re.escape(path)} & self.mapping.keys()
        matching = matching_weight | matching_layers
        self.matched |= matching
        if not matching:
            return False, None
        chosen = matching_weight - matching_layers or matching_path or matching
        return True, self.mapping[min(chosen, key=self.patterns.order.__getitem__)]

    def _names(self, layer) -> set[str]:
        return {layer.name, *_ends(layer.path or layer.name), *_ends(self.paths.get(id(layer), layer.name))}

    def require_matches(self) -> None:
        """Raises a `ValueError` for a pattern of the mapping that matched no weight."""
        names = list(dict.fromkeys(name for found in self.named.values() for name in found))
        for pattern in self.mapping:
            if pattern not in self.matched:
                raise ValueError(
                    f"Pattern {pattern!r} does not match any prunable layer. A pattern must match the full name or "
                    f"path. Prunable layers: {names}. Received: criterion={self.received}"
                )

    def _pattern(self, pattern) -> str:
        try:
            re.compile(pattern)
        except (re.error, TypeError) as error:
            raise ValueError(
                f"{pattern!r} is not a regular expression for layer names, such as 'conv.*': {error}. "
                f"To match a name literally, use re.escape(name). Received: criterion={self.received}"
            ) from error
        return pattern


# A pattern that matches a single name: without operators, or with each of them escaped.
_NAME = re.compile(r"(?:[^.^$*+?{}\[\]|()\\]|\\\W)*", re.DOTALL)


class _Patterns:
    """Finds the patterns that match a name. The time for a name does not grow with the patterns of single names.

    Otherwise, the time for a mapping with a pattern for each layer would be quadratic in the layers.

    Args:
        patterns: Regular expressions, in the order in which they count.
    """

    def __init__(self, patterns):
        self.order = {pattern: position for position, pattern in enumerate(patterns)}
        self.by_name: dict[str, set[str]] = {}
        self.others: dict[str, re.Pattern] = {}
        for pattern in patterns:
            if _NAME.fullmatch(str(pattern)):
                self.by_name.setdefault(re.sub(r"\\(\W)", r"\1", str(pattern)), set()).add(pattern)
            else:
                self.others[pattern] = re.compile(pattern)

    def matching(self, names) -> set[str]:
        """Returns the patterns that match one of the names."""
        exact = set().union(*(self.by_name.get(name, ()) for name in names))
        return exact | {key for key, compiled in self.others.items() if any(map(compiled.fullmatch, names))}


def _ends(path) -> list[str]:
    """Returns the ends of a path, the shortest first: `["c", "b/c", "a/b/c"]`."""
    parts = path.split("/")
    return ["/".join(parts[-number:]) for number in range(1, len(parts) + 1)]
