"""Sparse model files, and the bytes that a model takes in them."""

from keras_prune.storage.sparse_file import load_sparse, save_sparse, storage_sizes

__all__ = ["load_sparse", "save_sparse", "storage_sizes"]
