"""Engines of `gpu.py` on JAX."""

import gpu_engine
import numpy as np


class JaxDense(gpu_engine.Engine):
    """`jax.jit` of a product in float32, without TF32."""

    name = "JAX float32"
    library = "jax"
    kind = "float32"
    dtype = "float32"
    precision = "highest"
    joins = True

    def load(self):
        import jax

        self.weight = self.weights()
        self.weight_bytes = sum(part.nbytes for part in jax.tree.leaves(self.weight))
        self.x = self.inputs()

    @classmethod
    def missing(cls, device):
        reason = super().missing(device)
        if reason is None and device == "gpu":
            import jax

            if jax.default_backend() != "gpu":
                return "JAX finds no GPU"
        return reason

    def array(self, array, dtype=None):
        import jax.numpy as jnp

        return jnp.asarray(array, dtype)

    def weights(self):
        return self.array(self.problem.kernel, self.dtype)

    def inputs(self):
        return self.array(self.problem.x(self.batch), self.dtype)

    def product(self, weights, x):
        import jax.numpy as jnp

        return jnp.matmul(x, weights, precision=self.precision)

    def to_rows(self, outputs):
        """Returns the outputs as `(batch, outputs)`."""
        return outputs

    def prepare(self, copies, products):
        import jax

        # Separate inputs keep XLA from sharing results. `joins` keeps it from joining products.
        weights = [jax.tree.map(copied, self.weight) for _ in range(copies)]
        self.arguments = weights, [copied(self.x) for _ in range(products)]
        call = jax.jit(lambda weights, inputs: [self.product(weights[i % copies], x) for i, x in enumerate(inputs)])
        self.call = call.lower(*self.arguments).compile()

    def run(self):
        return self.call(*self.arguments)

    def wait(self, outputs):
        import jax

        jax.block_until_ready(outputs)

    def to_numpy(self, outputs):
        return self.to_rows(np.asarray(outputs[0]).astype("float64"))


class JaxTF32(JaxDense):
    """The same with JAX's default precision, which is TF32 on a GPU that has it."""

    name = "JAX TF32"
    kind = "dense"
    precision = "default"
    tolerance = 2e-3


class JaxBfloat16(JaxDense):
    """The same in bfloat16."""

    name = "JAX bfloat16"
    kind = "dense"
    dtype = "bfloat16"
    precision = "default"
    tolerance = 2e-2


class JaxBCSR(JaxDense):
    """`jax.experimental.sparse.BCSR`, cuSPARSE on a GPU with `jax_bcoo_cusparse_lowering`."""

    name = "JAX BCSR"
    kind = "sparse"

    def weights(self):
        from jax.experimental.sparse import BCSR

        shape = self.problem.outputs, self.problem.inputs
        return BCSR(tuple(map(self.array, self.problem.csr)), shape=shape, indices_sorted=True, unique_indices=True)

    def inputs(self):
        x = self.problem.x(self.batch)
        return self.array(x[0] if self.batch == 1 else x.T, self.dtype)

    def product(self, weights, x):
        return weights @ x

    def to_rows(self, outputs):
        return outputs.reshape(1, -1) if self.batch == 1 else outputs.T


class JaxBCOO(JaxBCSR):
    """`jax.experimental.sparse.BCOO`."""

    name = "JAX BCOO"

    def weights(self):
        from jax.experimental.sparse import BCOO

        values, columns, starts = self.problem.csr
        rows = np.repeat(np.arange(len(starts) - 1, dtype="int32"), np.diff(starts))
        places = np.stack([rows, columns], axis=1)
        shape = self.problem.outputs, self.problem.inputs
        parts = self.array(values), self.array(places)
        return BCOO(parts, shape=shape, indices_sorted=True, unique_indices=True)


class JaxGroups(JaxDense):
    """Groups of 64 outputs that read the same inputs: a gather and a batched product."""

    name = "JAX blocks 1x64"
    pattern = "groups"
    kind = "sparse"

    def weights(self):
        read, weights = self.problem.groups
        return self.array(read), self.array(weights, self.dtype)

    def inputs(self):
        return self.array(self.problem.x(self.batch).T, self.dtype)

    def product(self, weights, x):
        import jax.numpy as jnp

        read, weight = weights
        gathered = x.at[read].get(mode="promise_in_bounds")
        return jnp.einsum("gki,gko->goi", gathered, weight, precision=self.precision)

    def to_rows(self, outputs):
        return outputs.reshape(-1, self.batch).T


class JaxGroupsBfloat16(JaxGroups):
    """The same in bfloat16."""

    name = "JAX blocks 1x64 bfloat16"
    dtype = "bfloat16"
    precision = "default"
    tolerance = 2e-2


ENGINES = (JaxDense, JaxTF32, JaxBfloat16, JaxBCSR, JaxBCOO, JaxGroups, JaxGroupsBfloat16)


def copied(array):
    """Returns a copy of an array in a new buffer."""
    import jax.numpy as jnp

    return jnp.array(array, copy=True)
