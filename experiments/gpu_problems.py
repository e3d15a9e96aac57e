"""Weights and inputs of the layers that `gpu.py` times, in every sparsity pattern."""

import functools
import itertools

import numpy as np

# The dense layers of Han et al. (2015), Tables 4 and 5, with inputs, outputs and share of the weights kept.
LAYERS = {
    "alexnet/fc6": (9216, 4096, 0.09),
    "alexnet/fc7": (4096, 4096, 0.09),
    "alexnet/fc8": (4096, 1000, 0.25),
    "vgg16/fc6": (25088, 4096, 0.04),
    "vgg16/fc7": (4096, 4096, 0.04),
    "vgg16/fc8": (4096, 1000, 0.23),
}
SMALL_LAYERS = {"alexnet/fc6": (256, 128, 0.09), "alexnet/fc8": (128, 100, 0.25)}
GROUP = 64  # Outputs that read the same inputs, in the pattern "groups".
BLOCK = 32  # Side of the square blocks, in the pattern "blocks".
# The two weights of four that are kept, in the pattern "2:4".
_TWO_OF_FOUR = np.array([[1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1], [0, 1, 1, 0], [0, 1, 0, 1], [0, 0, 1, 1]], bool)


class Problem:
    """One layer with random weights.

    For patterns other than single weights, outputs are rounded up to a multiple of 64, such as 1024 for 1000.

    Args:
        name: String, such as `"alexnet/fc6"`.
        inputs, outputs: Integers, the shape of the kernel.
        density: Float, share of the weights that is kept. The pattern "2:4" always keeps half.
    """

    def __init__(self, name, inputs, outputs, density):
        self.name, self.inputs, self.outputs, self.density = name, inputs, outputs, density
        self.padded = -(-outputs // GROUP) * GROUP

    def x(self, batch):
        """Returns float32 inputs of shape `(batch, inputs)`."""
        return self._random(0).standard_normal((batch, self.inputs), dtype="float32")

    @staticmethod
    def as_int8(x):
        """Returns inputs rounded to 8 bits."""
        return np.clip(np.round(32 * x), -127, 127).astype("int8")

    @functools.cached_property
    def kernel(self):
        """Float32 array of shape `(inputs, outputs)` with zeros at single places."""
        random = self._random(1)
        kernel = random.standard_normal((self.inputs, self.outputs), dtype="float32")
        kernel[random.random(kernel.shape, dtype="float32") >= self.density] = 0
        return kernel

    @functools.cached_property
    def csr(self):
        """Values, columns and row starts of the transposed kernel, one row for each output."""
        transposed = np.ascontiguousarray(self.kernel.T)
        rows, columns = np.nonzero(transposed)
        starts = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=self.outputs))])
        return transposed[rows, columns], columns.astype("int32"), starts.astype("int32")

    @functools.cached_property
    def groups(self):
        """Inputs that each group of outputs reads, `(groups, kept)`, and their weights, `(groups, kept, GROUP)`."""
        random = self._random(2)
        kept, groups = max(1, round(self.density * self.inputs)), self.padded // GROUP
        places = [np.sort(random.permutation(self.inputs)[:kept]) for _ in range(groups)]
        return np.stack(places).astype("int32"), random.standard_normal((groups, kept, GROUP), dtype="float32")

    @functools.cached_property
    def blocks(self):
        """Values `(kept, BLOCK, BLOCK)`, columns and row starts of square blocks of the transposed kernel."""
        random = self._random(3)
        rows, columns = self.padded // BLOCK, self.inputs // BLOCK
        chosen = np.sort(random.permutation(rows * columns)[: max(1, round(self.density * rows * columns))])
        starts = np.concatenate([[0], np.cumsum(np.bincount(chosen // columns, minlength=rows))])
        values = random.standard_normal((len(chosen), BLOCK, BLOCK), dtype="float32")
        return values, (chosen % columns).astype("int32"), starts.astype("int32")

    @functools.cached_property
    def two_of_four(self):
        """Float32 array of shape `(outputs, inputs)` with two zeros in every four inputs of an output."""
        random = self._random(4)
        weight = random.standard_normal((self.padded, self.inputs), dtype="float32")
        chosen = random.integers(6, size=(self.padded, self.inputs // 4), dtype="int8")
        weight *= _TWO_OF_FOUR[chosen].reshape(weight.shape)
        return weight

    @functools.cached_property
    def two_of_four_int8(self):
        """The same as `two_of_four` with weights of 8 bits."""
        return np.clip(np.round(32 * self.two_of_four), -127, 127).astype("int8")

    def reference(self, pattern, batch):
        """Returns the outputs in float64.

        Args:
            pattern: `"single"`, `"groups"`, `"blocks"`, `"2:4"` or `"2:4 int8"`.
            batch: Integer, number of inputs.
        """
        x = self.x(batch)
        if pattern == "2:4 int8":
            return self.as_int8(x).astype("float64") @ self.two_of_four_int8.T.astype("float64")
        x = x.astype("float64")
        if pattern == "groups":
            return np.concatenate([x[:, read] @ weight for read, weight in zip(*self.groups, strict=True)], axis=1)
        if pattern == "blocks":
            values, columns, starts = self.blocks
            outputs = np.zeros((batch, self.padded))
            for row, (start, end) in enumerate(itertools.pairwise(starts)):
                for value, column in zip(values[start:end], columns[start:end], strict=True):
                    part = x[:, column * BLOCK : (column + 1) * BLOCK] @ value.T
                    outputs[:, row * BLOCK : (row + 1) * BLOCK] += part
            return outputs
        return x @ (self.two_of_four.T if pattern == "2:4" else self.kernel).astype("float64")

    def _random(self, stream):
        return np.random.default_rng([stream, self.inputs, self.outputs])
