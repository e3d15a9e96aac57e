"""Sparse inference: layers that hold and multiply only the connections that are left."""
