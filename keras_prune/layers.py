"""Layers and the pruned weights in them."""

from keras_prune.sparse.layers import SparseDense
from keras_prune.weights import pruned_weights

__all__ = ["SparseDense", "pruned_weights"]
