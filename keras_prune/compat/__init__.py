"""Interfaces of other pruning libraries, for code that was written for them."""

import keras  # noqa: F401  # First, because what `_lazy.import_after` imports behind it imports this folder.
