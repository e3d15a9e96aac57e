"""Pruning."""

from keras_prune.compat.tfmot.sparsity import keras

__all__ = ["keras"]
