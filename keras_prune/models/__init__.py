"""Prune models in place, and follow, rebuild and describe them."""

import keras  # noqa: F401  # First, because what `_lazy.import_after` imports behind it imports this folder.
