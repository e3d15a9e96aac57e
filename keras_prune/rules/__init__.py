"""Criteria, patterns, schedules and budgets: pure rules of what to prune, when and how much."""

import keras  # noqa: F401  # First, because what `_lazy.import_after` imports behind it imports this folder.
