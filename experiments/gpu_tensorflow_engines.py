"""Engines of `gpu.py` on TensorFlow."""

import gpu_engine
import numpy as np


class TensorFlowDense(gpu_engine.Engine):
    """`tf.matmul` in a `tf.function`, without TF32."""

    name = "TensorFlow float32"
    library = "tensorflow"
    kind = "float32"

    @classmethod
    def missing(cls, device):
        reason = super().missing(device)
        if reason is None and device == "gpu":
            import tensorflow as tf

            if not tf.config.list_physical_devices("GPU"):
                return "TensorFlow finds no GPU: its GPU build is not installed"
        return reason

    def load(self):
        import tensorflow as tf

        tf.config.experimental.enable_tensor_float_32_execution(False)
        self.place = "/GPU:0" if self.device == "gpu" else "/CPU:0"
        with tf.device(self.place):
            self.x = self.inputs()

    def inputs(self):
        import tensorflow as tf

        return tf.identity(self.problem.x(self.batch))

    def weights(self):
        import tensorflow as tf

        weight = tf.Variable(self.problem.kernel).read_value()
        self.weight_bytes = self.problem.kernel.nbytes
        return weight

    def product(self, weights, x):
        import tensorflow as tf

        return tf.matmul(x, weights)

    def to_rows(self, outputs):
        """Returns the outputs as `(batch, outputs)`."""
        return outputs

    def prepare(self, copies, products):
        import tensorflow as tf

        with tf.device(self.place):
            weights = [self.weights() for _ in range(copies)]
            inputs = [tf.Variable(self.x).read_value() for _ in range(products)]
            self.pairs = [(weights[place % copies], x) for place, x in enumerate(inputs)]
            call = tf.function(lambda: [self.product(*pair) for pair in self.pairs])
            self.call = call.get_concrete_function()

    def run(self):
        return self.call()

    def wait(self, outputs):
        import tensorflow as tf

        if self.device == "gpu":
            tf.test.experimental.sync_devices()

    def to_numpy(self, outputs):
        return self.to_rows(outputs[0].numpy().astype("float64"))


class TensorFlowCOO(TensorFlowDense):
    """`tf.sparse.sparse_dense_matmul`."""

    name = "tf.sparse (COO)"
    kind = "sparse"

    def inputs(self):
        import tensorflow as tf

        return tf.identity(np.ascontiguousarray(self.problem.x(self.batch).T))

    def weights(self):
        import tensorflow as tf

        values, columns, starts = self.problem.csr
        rows = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
        places = np.stack([rows, columns], axis=1).astype("int64")
        self.weight_bytes = values.nbytes + places.nbytes
        return tf.SparseTensor(places, values, (self.problem.outputs, self.problem.inputs))

    def product(self, weights, x):
        import tensorflow as tf

        return tf.sparse.sparse_dense_matmul(weights, x)

    def to_rows(self, outputs):
        return outputs.T


class TensorFlowCSR(TensorFlowCOO):
    """TensorFlow's CSR matrix, cuSPARSE on a GPU."""

    name = "TensorFlow CSR"

    def weights(self):
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops as csr

        matrix = csr.CSRSparseMatrix(super().weights())
        self.weight_bytes = sum(part.nbytes for part in self.problem.csr)
        return matrix

    def product(self, weights, x):
        from tensorflow.python.ops.linalg.sparse import sparse_csr_matrix_ops as csr

        return csr.matmul(weights, x)


ENGINES = (TensorFlowDense, TensorFlowCOO, TensorFlowCSR)
