"""Pruning."""

from keras_prune.compat.tfmot.sparsity import keras as keras
