"""Sparse layers for inference, which store only the nonzero weights."""

import keras  # noqa: F401  # First, because modules that `_lazy.import_after` imports after it import this folder.

from keras_prune.sparse.sparse_dense import SparseDense

__all__ = ["SparseDense"]
