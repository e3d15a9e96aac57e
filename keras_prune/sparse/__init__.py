"""Sparse inference: layers that store and multiply only the connections that are left."""

from keras_prune.sparse.sparse_dense import SparseDense

__all__ = ["SparseDense"]
