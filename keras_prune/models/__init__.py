"""Prune models in place, and follow, rebuild and describe them."""

import keras  # noqa: F401  # First, because modules that `_lazy.import_after` imports after it import this folder.
