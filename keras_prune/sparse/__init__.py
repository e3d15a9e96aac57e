"""Sparse layers for inference, which store only the nonzero weights."""

from keras_prune.sparse.sparse_dense import SparseDense

__all__ = ["SparseDense"]
