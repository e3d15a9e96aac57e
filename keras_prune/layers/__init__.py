"""Layers with pruned weights: masks, the hook that applies them, and the wrapper."""

import keras  # noqa: F401  # First, because modules that `_lazy.import_after` imports after it import this folder.

from keras_prune.layers.weights import pruned_weights

__all__ = ["pruned_weights"]
