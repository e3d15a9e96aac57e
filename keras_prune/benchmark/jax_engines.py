"""Engines on JAX: dense, the formats of `jax.experimental.sparse`, and ELLPACK."""

import keras
import numpy as np

from keras_prune.benchmark.engine import Engine, kernel_of, weight_bytes
from keras_prune.benchmark.tensorflow_engines import converted
from keras_prune.sparse.conversion import compiled
from keras_prune.sparse.matrices import ELL, Connections


class JaxDense(Engine):
    """`jax.jit`. Whole models need KERAS_BACKEND=jax; single layers do not."""

    name = runtime = "JAX"
    baseline = True
    packages = ("jax",)

    def __init__(self, model, device):
        import jax

        kind, index = device.split(":")
        self.device = jax.devices(kind)[int(index)]
        self.model = self.weight = None
        with jax.default_device(self.device):
            if keras.backend.backend() == "jax":
                self.model = self._convert(model)
                self.weight_bytes = weight_bytes(self.model)
            else:
                self.weight = self._load(kernel_of(model))
                self.weight_bytes = sum(part.nbytes for part in jax.tree.leaves(self.weight))

    @classmethod
    def devices(cls):
        import jax

        found = []
        for kind in ("cpu", "gpu"):
            try:
                found += [f"{kind}:{index}" for index in range(len(jax.devices(kind)))]
            except RuntimeError:  # JAX was installed without this kind of device, or finds none.
                continue
        return found

    def prepare(self, inputs):
        import jax

        with jax.default_device(self.device):
            if self.model:
                return compiled(self.model, inputs)
            tensor = jax.device_put(inputs, self.device)
        call = jax.jit(self._multiply)
        return lambda: jax.block_until_ready(call(self.weight, tensor))

    def _convert(self, model):
        return model

    def _load(self, kernel):
        import jax.numpy as jnp

        return jnp.asarray(kernel)

    def _multiply(self, weight, inputs):
        return inputs @ weight


class JaxCSR(JaxDense):
    """`jax.experimental.sparse.BCSR`."""

    name = "JAX BCSR"
    baseline = False
    format = "csr"

    def _convert(self, model):
        return converted(model, self.format)

    def _load(self, kernel):
        import jax.numpy as jnp
        from jax.experimental.sparse import BCSR

        return BCSR(tuple(map(jnp.asarray, Connections.of(kernel))), shape=kernel.shape[::-1])

    def _multiply(self, weight, inputs):
        return (weight @ inputs.T).T


class JaxCOO(JaxCSR):
    """`jax.experimental.sparse.BCOO`."""

    name = "JAX BCOO"
    format = "coo"

    def _load(self, kernel):
        import jax.numpy as jnp
        from jax.experimental.sparse import BCOO

        connections = Connections.of(kernel)
        places = np.stack([connections.rows, connections.columns], axis=1).astype("int32")
        parts = (jnp.asarray(connections.values), jnp.asarray(places))
        return BCOO(parts, shape=kernel.shape[::-1], indices_sorted=True, unique_indices=True)


class JaxELL(JaxCSR):
    """ELLPACK, the format of `keras_prune.to_sparse(model, "ell")`."""

    name = "JAX ELL"
    format = "ell"

    def _load(self, kernel):
        import jax.numpy as jnp

        connections = Connections.of(kernel)
        matrix = ELL(*kernel.shape[::-1], len(connections.values), connections.most)
        matrix.assign(connections)
        return tuple(jnp.asarray(np.asarray(weight.value)) for weight in matrix.weights)

    def _multiply(self, weight, inputs):
        import jax

        values, columns = weight
        return jax.lax.map(lambda row: (values * row[columns]).sum(axis=0), inputs)
