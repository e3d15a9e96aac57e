"""Layers with pruned weights: masks, the hook that applies them, and the wrapper."""

from keras_prune.layers.weights import pruned_weights

__all__ = ["pruned_weights"]
