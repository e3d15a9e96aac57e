"""Engines on TensorFlow: dense, XLA, and the sparse formats of `keras_prune.to_sparse`."""

import keras

from keras_prune.benchmark.engine import Engine, UnsupportedModelError, weight_bytes
from keras_prune.sparse.conversion import to_sparse


class TensorFlowDense(Engine):
    """`tf.function`, as `model.predict` runs a model without XLA."""

    name = runtime = "TensorFlow"
    baseline = True
    packages = ("tensorflow",)
    jit_compile = False

    def __init__(self, model, device):
        self.model, self.device = model, device
        self.weight_bytes = weight_bytes(model)

    @classmethod
    def missing(cls):
        reason = super().missing()
        if reason is None and keras.backend.backend() != "tensorflow":
            reason = f"the engine needs KERAS_BACKEND=tensorflow, and Keras runs on {keras.backend.backend()}"
        return reason

    @classmethod
    def devices(cls):
        import tensorflow as tf

        return [device.name.removeprefix("/device:").lower() for device in tf.config.list_logical_devices()]

    def prepare(self, inputs):
        import tensorflow as tf

        with tf.device(f"/{self.device.upper()}"):
            tensor = tf.identity(inputs)
            call = tf.function(self.model, jit_compile=self.jit_compile).get_concrete_function(tensor)
        if self.device.startswith("cpu"):
            return lambda: call(tensor)

        def run():
            outputs = call(tensor)
            tf.test.experimental.sync_devices()
            return outputs

        return run


class TensorFlowXLA(TensorFlowDense):
    """`tf.function(jit_compile=True)`."""

    name = "TensorFlow XLA"
    jit_compile = True


class TensorFlowCSR(TensorFlowDense):
    """`keras_prune.to_sparse(model, "csr")`."""

    name = "TensorFlow CSR"
    baseline = False
    format = "csr"

    def __init__(self, model, device):
        super().__init__(converted(model, self.format), device)


class TensorFlowCOO(TensorFlowCSR):
    """`keras_prune.to_sparse(model, "coo")`, which calls `tf.sparse.sparse_dense_matmul`."""

    name = "tf.sparse (COO)"
    format = "coo"


class TensorFlowELL(TensorFlowCSR):
    """`keras_prune.to_sparse(model, "ell")`."""

    name = "TensorFlow ELL"
    format = "ell"


def converted(model, format):
    """Returns `to_sparse(model, format)`, and raises `UnsupportedModelError` if the model has nothing to convert."""
    try:
        return to_sparse(model, format, verbose=0)
    except ValueError as error:
        raise UnsupportedModelError(f"to_sparse rejects the model: {error}") from error
