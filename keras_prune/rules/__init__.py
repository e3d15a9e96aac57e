"""Criteria, patterns, schedules and budgets: pure rules of what to prune, when and how much."""
