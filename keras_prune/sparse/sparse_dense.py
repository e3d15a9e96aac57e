"""Dense layer for inference that stores only the nonzero weights."""

import warnings

import keras
from keras import ops

from keras_prune._arguments import require_integer
from keras_prune.rules.chunks import on_host
from keras_prune.sparse.matrices import MATRICES, Connections, SparseMatrix


@keras.saving.register_keras_serializable(package="keras_prune")
class SparseDense(keras.Layer):
    """Dense layer or 1x1 convolution for inference that stores only its nonzero weights.

    `keras_prune.to_sparse` replaces the layers of a model with it. It computes in float32, and warns if it is called in
    training. Files do not depend on the format and the backend. For example, you can save on TensorFlow and load on
    JAX.

    Args:
        units: Integer, number of neurons.
        connections: Integer, number of stored connections.
        activation: Keras activation. Defaults to `None`.
        use_bias: Boolean. Defaults to `True`.
        format: Layout of the weight. `"csr"` stores compressed sparse rows, as a matrix of `tf.raw_ops` or
            `jax.experimental.sparse.BCSR`. `"coo"` stores coordinates, for `tf.sparse` or `BCOO`. `"ell"` stores the
            same number of entries for each neuron and is compiled by XLA. It suits single inputs, and neurons with
            similar numbers of connections. Defaults to `"csr"`.
        most: Integer, largest number of connections into one neuron. Defaults to `None`, the number of inputs.
        **kwargs: Arguments of `keras.Layer`, such as `name` and `dtype`.

    Input shape:
        Tensor of shape `(batch, ..., inputs)`.

    Output shape:
        Tensor of shape `(batch, ..., units)`.

    Raises:
        ValueError: If `units`, `connections` or `format` is invalid, or there are no sparse layers for the Keras
            backend.

    Example:

    >>> import numpy as np
    >>> from keras_prune.sparse import SparseDense
    >>> dense = keras.layers.Dense(3, use_bias=False)
    >>> dense.build((None, 3))
    >>> dense.set_weights([np.eye(3)])
    >>> sparse = SparseDense.of(dense)
    >>> sparse.connections, keras.ops.convert_to_numpy(sparse(np.array([[1.0, 2.0, 3.0]]))).tolist()
    (3, [[1.0, 2.0, 3.0]])
    """

    def __init__(self, units, connections, activation=None, use_bias=True, format="csr", most=None, **kwargs):
        super().__init__(**kwargs)
        require_integer("units", units, 1)
        require_integer("connections", connections, 0)
        require_format(format)
        self.units = units
        self.connections = connections
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.format = format
        self.most = most
        self.trainable = False
        self.supports_masking = True  # As a dense layer does.

    @classmethod
    def of(cls, layer, format: str = "csr") -> "SparseDense":
        """Returns the sparse layer for a built `Dense` layer or 1x1 convolution, with the same name."""
        weight = on_host(layer.kernel.value)
        weight = weight.reshape(-1, weight.shape[-1])
        connections = Connections.of(weight)
        sparse = cls(
            weight.shape[-1],
            len(connections.values),
            activation=layer.activation,
            use_bias=layer.use_bias,
            format=format,
            most=connections.most,
            name=layer.name,
            dtype=layer.dtype_policy,
        )
        sparse.build((None, weight.shape[0]))
        sparse.matrix.assign(connections)
        if layer.use_bias:
            # JAX would share the array, and a later training step donates it.
            sparse.bias.assign(ops.copy(layer.bias.value))
        return sparse

    def build(self, input_shape):
        inputs = input_shape[-1]
        most = inputs if self.most is None else self.most
        matrix_class = MATRICES[keras.backend.backend()][self.format]
        self.matrix: SparseMatrix = matrix_class(self.units, inputs, self.connections, most)
        self.supports_jit = self.matrix.supports_jit
        if self.use_bias:
            self.bias = self.add_weight(shape=(self.units,), initializer="zeros", trainable=False, name="bias")
        self.input_spec = keras.InputSpec(min_ndim=2, axes={-1: inputs})

    def call(self, inputs, training=False):
        if training:
            warnings.warn(
                f"The sparse layer {self.name!r} is for inference, and its weights stay as they are. Train the model "
                "that `to_sparse` was called on.",
                stacklevel=2,
            )
        shape = ops.shape(inputs)
        rows = ops.cast(ops.reshape(inputs, (-1, self.matrix.inputs)), "float32")
        outputs = ops.cast(self.matrix.multiply(rows), self.compute_dtype)
        outputs = ops.reshape(outputs, (*shape[:-1], self.units))
        if self.use_bias:
            outputs = ops.add(outputs, self.bias)
        return self.activation(outputs)

    @property
    def weight_bytes(self) -> int:
        """Size of the kernel and bias in memory."""
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
            "format": self.format,
            "most": self.most,
        }


def require_format(format: str) -> None:
    """Raises a `ValueError` if the Keras backend does not have a sparse format."""
    formats = MATRICES.get(keras.backend.backend())
    if formats is None:
        raise ValueError(
            f"Sparse layers need one of the Keras backends {sorted(MATRICES)}. Set KERAS_BACKEND before you import "
            f"keras. Received: backend={keras.backend.backend()!r}"
        )
    if format not in formats:
        raise ValueError(f"`format` must be one of {sorted(formats)}. Received: format={format!r}")
