"""`SparseDense`: a dense layer that holds and multiplies only the connections that are left."""

import keras
from keras import ops

from keras_prune.rules.chunks import on_host
from keras_prune.sparse.matrices import MATRICES, Connections, SparseMatrix


@keras.saving.register_keras_serializable(package="keras_prune")
class SparseDense(keras.Layer):
    """A dense layer, or a 1x1 convolution, whose weight is a sparse matrix; for inference alone.

    `keras_prune.to_sparse` puts it in the place of the layers of a model. It computes in float32. It is saved the same
    for every kernel and backend, so what was saved on TensorFlow is loaded on JAX.

    Args:
        units: Integer, number of neurons.
        connections: Integer, how many of them are stored.
        activation: Keras activation. Defaults to `None`.
        use_bias: Boolean. Defaults to `True`.
        kernel: `"csr"`, compressed sparse rows: TensorFlow's sparse-matrix kernels, or `jax.experimental.sparse.BCSR`;
            `"coo"`, coordinates: `tf.sparse`, or BCOO; or `"ell"`, equally many entries for every neuron, compiled by
            XLA, for single inputs and for weights whose neurons have about as many connections each. Defaults to
            `"csr"`.
        most: Integer, how many connections the neuron has that has most. Defaults to `None`, as many as it has inputs.
        **kwargs: Keyword arguments of every Keras layer.

    Input shape: `(batch, ..., inputs)`. Output shape: `(batch, ..., units)`.

    Raises:
        ValueError: If an argument is none of the above, or the Keras backend has no sparse kernels here.

    Example:

    >>> import numpy as np
    >>> from keras_prune.sparse.sparse_dense import SparseDense
    >>> dense = keras.layers.Dense(3, use_bias=False)
    >>> dense.build((None, 3))
    >>> dense.set_weights([np.eye(3)])
    >>> sparse = SparseDense.of(dense)
    >>> sparse.connections, keras.ops.convert_to_numpy(sparse(np.array([[1.0, 2.0, 3.0]]))).tolist()
    (3, [[1.0, 2.0, 3.0]])
    """

    def __init__(self, units, connections, activation=None, use_bias=True, kernel="csr", most=None, **kwargs):
        super().__init__(**kwargs)
        for name, number, least in (("units", units, 1), ("connections", connections, 0)):
            if type(number) is not int or number < least:
                raise ValueError(f"{name} must be an integer of at least {least}. Received: {name}={number!r}")
        require_kernel(kernel)
        self.units = units
        self.connections = connections
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel = kernel
        self.most = most
        self.trainable = False
        self.supports_masking = True  # As a dense layer does.

    @classmethod
    def of(cls, layer, kernel: str = "csr") -> "SparseDense":
        """Returns the sparse counterpart of a built `Dense` layer or 1x1 convolution, under the same name."""
        weight = on_host(layer.kernel.value)
        weight = weight.reshape(-1, weight.shape[-1])
        connections = Connections.of(weight)
        sparse = cls(
            weight.shape[-1],
            len(connections.values),
            activation=layer.activation,
            use_bias=layer.use_bias,
            kernel=kernel,
            most=connections.most,
            name=layer.name,
            dtype=layer.dtype_policy,
        )
        sparse.build((None, weight.shape[0]))
        sparse.matrix.assign(connections)
        if layer.use_bias:
            # A copy, because JAX hands the very array on, and a later step donates it.
            sparse.bias.assign(ops.copy(layer.bias.value))
        return sparse

    def build(self, input_shape):
        inputs = input_shape[-1]
        most = inputs if self.most is None else self.most
        matrix_class = MATRICES[keras.backend.backend()][self.kernel]
        self.matrix: SparseMatrix = matrix_class(self.units, inputs, self.connections, most)
        self.supports_jit = self.matrix.supports_jit
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", trainable=False, name="bias")
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: inputs})

    def call(self, inputs):
        shape = ops.shape(inputs)
        rows = ops.cast(ops.reshape(inputs, (-1, self.matrix.inputs)), "float32")
        outputs = ops.cast(self.matrix.multiply(rows), self.compute_dtype)
        outputs = ops.reshape(outputs, (*shape[:-1], self.units))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    @property
    def weight_bytes(self) -> int:
        """What kernel and bias take in memory, in bytes."""
        return self.matrix.weight_bytes + 4 * self.units * self.use_bias

    def compute_output_shape(self, input_shape):
        return (*input_shape[:-1], self.units)

    def get_config(self):
        return {
            **super().get_config(),
            "units": self.units,
            "connections": self.connections,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel": self.kernel,
            "most": self.most,
        }


def require_kernel(kernel: str) -> None:
    """Refuses a sparse kernel that the Keras backend does not have."""
    kernels = MATRICES.get(keras.backend.backend())
    if kernels is None:
        raise ValueError(
            f"Sparse layers run on the Keras backends {sorted(MATRICES)}; set KERAS_BACKEND before importing keras. "
            f"Received: backend {keras.backend.backend()!r}"
        )
    if kernel not in kernels:
        raise ValueError(f"kernel must be one of {sorted(kernels)}. Received: kernel={kernel!r}")
