"""Sparse matrices of the Keras backends: one class for each way in which one holds and multiplies a weight.

A matrix stands for the weight of shape `(outputs, inputs)`, a dense layer's kernel transposed, so that the connections
into one neuron lie beside each other. Whatever a matrix looks like in memory, it is saved as `Connections`: a model
that was saved with one kernel on one backend is loaded with another on another.
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import ops


class Connections(NamedTuple):
    """The connections of a layer in compressed sparse rows, one row for each neuron (`scipy.sparse.csr_matrix`).

    Attributes:
        values: Float32 array of shape `(connections,)`.
        columns: Int32 array of shape `(connections,)`, the input that each connection reads.
        row_starts: Int32 array of shape `(outputs + 1,)`, where each neuron's connections start.
    """

    values: np.ndarray
    columns: np.ndarray
    row_starts: np.ndarray

    @classmethod
    def of(cls, kernel: np.ndarray) -> "Connections":
        """Returns the connections in a dense kernel of shape `(inputs, outputs)`."""
        # Found in the order of memory and then sorted by neuron: in the order of neurons they lie too far apart.
        places = np.flatnonzero(kernel != 0)
        columns, rows = np.divmod(places, kernel.shape[1])
        order = np.argsort(rows.astype(np.min_scalar_type(kernel.shape[1])), kind="stable")
        values = kernel.ravel()[places[order]]
        row_starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=kernel.shape[1]))])
        return cls(values.astype("float32"), columns[order].astype("int32"), row_starts.astype("int32"))

    @property
    def rows(self) -> np.ndarray:
        """Int64 array of shape `(connections,)`, the neuron that each connection goes to."""
        return np.repeat(np.arange(len(self.row_starts) - 1), np.diff(self.row_starts))

    @property
    def most(self) -> int:
        """The connections of the neuron that has most of them."""
        return int(np.diff(self.row_starts).max(initial=0))


class SparseMatrix(keras.Layer):
    """What all sparse matrices have in common: their shape, and how they are saved.

    Args:
        outputs, inputs: Integers, the shape.
        connections: Integer, how many connections are stored.
        most: Integer, how many of them the neuron has that has most.
    """

    def __init__(self, outputs: int, inputs: int, connections: int, most: int):
        super().__init__(name="matrix", dtype="float32", trainable=False)
        self.outputs, self.inputs, self.connections, self.most = outputs, inputs, connections, most
        self.built = True

    def assign(self, connections: Connections) -> None:
        """Takes other connections, as many as there are."""
        raise NotImplementedError

    def read(self) -> Connections:
        """Returns the connections."""
        raise NotImplementedError

    def multiply(self, inputs):
        """Returns `inputs @ kernel` for a float32 tensor of shape `(batch, inputs)`."""
        raise NotImplementedError

    @property
    def weight_bytes(self) -> int:
        """What the weight takes in memory."""
        return sum(int(np.prod(weight.shape)) * 4 for weight in self.weights)

    def save_own_variables(self, store):
        for name, array in self.read()._asdict().items():
            store[name] = array

    def load_own_variables(self, store):
        self.assign(Connections(*(np.asarray(store[name]) for name in Connections._fields)))

    def _add(self, name, shape, dtype):
        return self.add_weight(shape=shape, dtype=dtype, initializer="zeros", trainable=False, name=name)


class TensorFlowCSR(SparseMatrix):
    """TensorFlow's CSR sparse-matrix kernels.

    The matrix is a TensorFlow variable of dtype variant, so that its values and indices are in memory once, in a
    SavedModel too. Keras does not know variables of that dtype: they are not in `weights`.
    """

    def __init__(self, *sizes):
        import tensorflow as tf

        super().__init__(*sizes)
        self.supports_jit = False
        self.variable = tf.Variable(self._empty(), trainable=False, name="matrix")

    def assign(self, connections):
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

        places = np.stack([connections.rows, connections.columns.astype("int64")], axis=1)
        self.variable.assign(
            sparse_csr_matrix_ops.sparse_tensor_to_csr_sparse_matrix(
                places, connections.values, (self.outputs, self.inputs)
            )
        )

    def read(self):
        import tensorflow as tf
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

        row_starts, columns, values = sparse_csr_matrix_ops.csr_sparse_matrix_components(
            self.variable.read_value(), index=0, type=tf.float32
        )
        return Connections(values.numpy(), columns.numpy(), row_starts.numpy())

    def multiply(self, inputs):
        import tensorflow as tf
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

        # The product of a batch that is no multiple of 8 takes up to four times as long as of one that is.
        batch = tf.shape(inputs)[0]
        padded = tf.pad(inputs, [[0, -batch % 8], [0, 0]])
        # In a graph that was loaded, TensorFlow refuses to multiply by a matrix whose shape is not known; what a
        # variable holds has none until it is stacked with a matrix that has one.
        matrix = tf.stack([self._empty(), self.variable.read_value()])[1]
        product = sparse_csr_matrix_ops.sparse_matrix_mat_mul(matrix, padded, transpose_b=True, transpose_output=True)
        return product[:batch]

    @property
    def weight_bytes(self):
        return 8 * self.connections + 4 * (self.outputs + 1)

    def _empty(self):
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops

        return sparse_csr_matrix_ops.sparse_tensor_to_csr_sparse_matrix(
            np.zeros((0, 2), "int64"), np.zeros(0, "float32"), np.array((self.outputs, self.inputs), "int64")
        )


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
    """ELLPACK: every neuron has the same number of entries, the first entries of all of them beside each other.

    XLA makes one loop of it, on TensorFlow and on JAX, which for one input is the fastest of these; each further input
    of a batch takes as long again. Neurons with few connections are filled up with zeros.
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
