"""Criteria, patterns, schedules and budgets, which are pure rules of what to prune, when and how much."""

import keras  # noqa: F401  # First, because modules that `_lazy.import_after` imports after it import this folder.
