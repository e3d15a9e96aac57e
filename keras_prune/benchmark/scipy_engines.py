"""Engines on NumPy arrays: SciPy's and MKL's sparse kernels, for single layers on the CPU."""

import functools
import glob
import os
import sys

import numpy as np

from keras_prune.benchmark.engine import Engine, kernel_of
from keras_prune.sparse.matrices import Connections


class SciPyCSR(Engine):
    """A `scipy.sparse.csr_matrix`, which uses one thread."""

    name = "SciPy CSR"
    runtime = "SciPy"
    packages = ("scipy",)

    def __init__(self, model, device):
        from scipy.sparse import csr_matrix

        kernel = kernel_of(model)
        values, columns, row_starts = Connections.of(kernel)
        self.matrix = csr_matrix((values, columns, row_starts), shape=kernel.shape[::-1])
        self.weight_bytes = values.nbytes + columns.nbytes + row_starts.nbytes

    def prepare(self, inputs):
        columns = np.ascontiguousarray(inputs.T)
        return lambda: (self.matrix @ columns).T


class MKLCSR(SciPyCSR):
    """Intel MKL's sparse kernels, called through `sparse_dot_mkl`."""

    name = "MKL CSR"
    runtime = "MKL"
    packages = ("scipy", "sparse_dot_mkl")

    @classmethod
    def missing(cls):
        reason = super().missing()
        if reason is None:
            try:
                _mkl()
            except Exception as error:  # ImportError or another error, depending on the missing library.
                reason = f"sparse_dot_mkl does not load: {str(error).strip().splitlines()[0]}"
        return reason

    def prepare(self, inputs):
        columns = np.ascontiguousarray(inputs.T)
        return lambda: _mkl().dot_product_mkl(self.matrix, columns).T


@functools.cache
def _mkl():
    # sparse_dot_mkl finds the library of PyPI's mkl through this variable only.
    found = sorted(glob.glob(os.path.join(sys.prefix, "lib", "libmkl_rt.so*")))
    if found:
        os.environ.setdefault("MKL_RT", found[0])
    # By default the threads of MKL wait actively for 200 ms, which slows the engine that is timed next.
    os.environ.setdefault("KMP_BLOCKTIME", "1")
    import sparse_dot_mkl

    return sparse_dot_mkl
