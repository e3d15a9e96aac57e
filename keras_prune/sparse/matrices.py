"""Sparse matrices of the Keras backends, one class for each format.

A matrix has the shape `(outputs, inputs)`. It is the transposed kernel of a dense layer, so that the connections into
one neuron are adjacent. Each format is saved as `Connections`. A model that was saved with one format on one backend
can therefore be loaded with another format on another backend.
"""

from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops


class Connections(NamedTuple):
    """The connections of a layer in compressed sparse rows, one row for each neuron (`scipy.sparse.csr_matrix`).

    Attributes:
        values: Float32 array of shape `(connections,)`.
        columns: Int32 array of shape `(connections,)`, the input of each connection.
        row_starts: Int32 array of shape `(outputs + 1,)`, the start of each neuron's connections.
    """

    values: np.ndarray
    columns: np.ndarray
    row_starts: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray) -> "Connections":
        """Returns the connections in a dense kernel of shape `(inputs, outputs)`."""
        # Finding them in the order of memory and sorting them is faster than finding them by neuron.
        places = np.flatnonzero(kernel != 0)
        columns, rows = np.divmod(places, kernel.shape[1])
        order = np.argsort(rows.astype(np.min_scalar_type(kernel.shape[1])), kind="stable")
        values = kernel.ravel()[places[order]]
        row_starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=kernel.shape[1]))])
        return cls(values.astype("float32"), columns[order].astype("int32"), row_starts.astype("int32"))

    @property
    def rows(self) -> np.ndarray:
        """Int64 array of shape `(connections,)`, the neuron of each connection."""
        return np.repeat(np.arange(len(self.row_starts) - 1), np.diff(self.row_starts))

    @property
    def most(self) -> int:
        """Largest number of connections into one neuron."""
        return int(np.diff(self.row_starts).max(initial=0))


class SparseMatrix(keras.Layer):
    """Base class of the sparse matrices.

    Args:
        outputs: Integer, number of rows.
        inputs: Integer, number of columns.
        connections: Integer, number of stored connections.
        most: Integer, largest number of connections into one neuron.
    """

    def __init__(self, outputs: int, inputs: int, connections: int, most: int):
        super().__init__(name="matrix", dtype="float32", trainable=False)
        self.outputs, self.inputs, self.connections, self.most = outputs, inputs, connections, most
        self.built = True

    def assign(self, connections: Connections) -> None:
        """Replaces the connections. Their number must stay the same."""
        raise NotImplementedError

    def read(self) -> Connections:
        """Returns the connections."""
        raise NotImplementedError

    def multiply(self, inputs):
        """Returns `inputs @ kernel` for a float32 tensor of shape `(batch, inputs)`."""
        raise NotImplementedError

    @property
    def weight_bytes(self) -> int:
        """Size of the weight in memory."""
        return sum(int(np.prod(weight.shape)) * 4 for weight in self.weights)

    def save_own_variables(self, store):
        for name, array in self.read()._asdict().items():
            store[name] = array

    def load_own_variables(self, store):
        self.assign(Connections(*(np.asarray(store[name]) for name in Connections._fields)))

    def _add(self, name, shape, dtype):
        return self.add_weight(shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name)


class TensorFlowCSR(SparseMatrix):
    """CSR matrix of `tf.raw_ops`.

    The matrix is a TensorFlow variable of dtype variant, so that its values and indices are stored once, also in a
    SavedModel. Keras does not support variables of that dtype, so they are not among `weights`.
    """

    def __init__(self, *sizes):
        import tensorflow as tf

        super().__init__(*sizes)
        self.supports_jit = False
        self.variable = tf.Variable(self._empty(), trainable=False, name="matrix")

    def assign(self, connections):
        places = np.stack([connections.rows, connections.columns.astype("int64")], axis=1)
        self.variable.assign(self._matrix(places, connections.values))

    def read(self):
        import tensorflow as tf

        row_starts, columns, values = tf.raw_ops.CSRSparseMatrixComponents(
            csr_sparse_matrix=self.variable.read_value(), index=0, type=tf.float32
        )
        return Connections(values.numpy(), columns.numpy(), row_starts.numpy())

    def multiply(self, inputs):
        import tensorflow as tf

        # A batch that is not a multiple of 8 takes longer than the next multiple.
        batch: Any = tf.shape(inputs)[0]
        padded = tf.pad(inputs, [[0, -batch % 8], [0, 0]])
        # In a loaded graph, the matrix in a variable has no shape, and cannot be multiplied. Stacking it with a matrix
        # that has a shape restores it.
        matrix = tf.stack([self._empty(), self.variable.read_value()])[1]
        product = tf.raw_ops.SparseMatrixMatMul(a=matrix, b=padded, transpose_b=True, transpose_output=True)
        return product[:batch]

    @property
    def weight_bytes(self):
        return 8 * self.connections + 4 * (self.outputs + 1)

    def _empty(self):
        return self._matrix(np.zeros((0, 2), "int64"), np.zeros(0, "float32"))

    def _matrix(self, places, values):
        import tensorflow as tf

        shape = np.array((self.outputs, self.inputs), "int64")
        return tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=places, values=values, dense_shape=shape)


class TensorFlowCOO(SparseMatrix):
    """A `tf.sparse.SparseTensor`: coordinates and values."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.supports_jit = False
        self.places = self._add("places", (self.connections, 2), "int64")
        self.values = self._add("values", (self.connections,), "float32")

    def assign(self, connections):
        self.places.assign(np.stack([connections.rows, connections.columns], axis=1))
        self.values.assign(connections.values)

    def read(self):
        places = ops.convert_to_numpy(self.places.value)
        row_starts = np.searchsorted(places[:, 0], np.arange(self.outputs + 1))
        return Connections(
            ops.convert_to_numpy(self.values.value), places[:, 1].astype("int32"), row_starts.astype("int32")
        )

    def multiply(self, inputs):
        import tensorflow as tf

        matrix = tf.SparseTensor(self.places.value, self.values.value, (self.outputs, self.inputs))
        return tf.transpose(tf.sparse.sparse_dense_matmul(matrix, inputs, adjoint_b=True))

    @property
    def weight_bytes(self):
        return 20 * self.connections


class ELL(SparseMatrix):
    """ELLPACK matrix, in which each neuron has the same number of entries.

    The first entries of all neurons are adjacent, then the second ones, and so on. Neurons with fewer connections are
    padded with zeros. XLA compiles the product to one loop on TensorFlow and JAX. It is the fastest format for one
    input, but a batch takes proportionally longer.
    """

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.values = self._add("values", (self.most, self.outputs), "float32")
        self.columns = self._add("columns", (self.most, self.outputs), "int32")

    def assign(self, connections):
        rows = connections.rows
        places = np.arange(len(rows)) - connections.row_starts[rows], rows
        for variable, array in ((self.values, connections.values), (self.columns, connections.columns)):
            filled = np.zeros(variable.shape, variable.dtype)
            filled[places] = array
            variable.assign(filled)

    def read(self):
        values, columns = (ops.convert_to_numpy(variable.value).T for variable in (self.values, self.columns))
        kept = values != 0
        row_starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))]).astype("int32")
        return Connections(values[kept], columns[kept], row_starts)

    def multiply(self, inputs):
        values, columns = self.values.value, self.columns.value

        def one(row):
            return ops.sum(values * ops.take(row, columns), axis=0)

        if keras.backend.backend() == "jax":
            return ops.map(one, inputs)
        import tensorflow as tf

        return tf.function(lambda batch: tf.map_fn(one, batch), jit_compile=True)(inputs)


class JaxCSR(SparseMatrix):
    """A `jax.experimental.sparse.BCSR` matrix."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.values = self._add("values", (self.connections,), "float32")
        self.columns = self._add("columns", (self.connections,), "int32")
        self.row_starts = self._add("row_starts", (self.outputs + 1,), "int32")

    def assign(self, connections):
        for name, array in connections._asdict().items():
            getattr(self, name).assign(array)

    def read(self):
        return Connections(*(ops.convert_to_numpy(getattr(self, name).value) for name in Connections._fields))

    def multiply(self, inputs):
        from jax.experimental.sparse import BCSR

        parts = (self.values.value, self.columns.value, self.row_starts.value)
        return (BCSR(parts, shape=(self.outputs, self.inputs)) @ inputs.T).T


class JaxCOO(SparseMatrix):
    """A `jax.experimental.sparse.BCOO` matrix."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.places = self._add("places", (self.connections, 2), "int32")
        self.values = self._add("values", (self.connections,), "float32")

    assign = TensorFlowCOO.assign
    read = TensorFlowCOO.read

    def multiply(self, inputs):
        from jax.experimental.sparse import BCOO

        parts = (self.values.value, self.places.value)
        matrix = BCOO(parts, shape=(self.outputs, self.inputs), indices_sorted=True, unique_indices=True)
        return (matrix @ inputs.T).T


MATRICES = {
    "tensorflow": {"csr": TensorFlowCSR, "coo": TensorFlowCOO, "ell": ELL},
    "jax": {"csr": JaxCSR, "coo": JaxCOO, "ell": ELL},
}
