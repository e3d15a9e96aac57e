"""Interfaces of other pruning libraries, for code that was written for them."""

import keras  # noqa: F401  # First, because modules that `_lazy.import_after` imports after it import this folder.
