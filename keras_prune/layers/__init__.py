"""Layers with pruned weights: masks, the hook that applies them, and the wrapper."""

import keras  # noqa: F401  # First, because what `_lazy.import_after` imports behind it imports this folder.

from keras_prune.layers.weights import pruned_weights

__all__ = ["pruned_weights"]
