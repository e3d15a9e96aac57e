"""Times convolutions dense and as a sparse product of their patches: why `to_sparse` converts only those of one place.

    python experiments/sparse_convolutions.py

Prints a Markdown table: shapes of VGG-16, LeNet-5 and MobileNet at the densities that pruning reaches, batch 1.
"""

import keras
import numpy as np
import tensorflow as tf

from keras_prune.sparse.conversion import compiled
from keras_prune.sparse.matrices import Connections, TensorFlowCSR
from keras_prune.sparse.timing import interleave

# Name, height and width, channels in and out, kernel size, density (of the paper's Tables 3 and 5, where it has them).
SHAPES = [
    ("VGG-16 conv3_2", 56, 256, 256, 3, 0.24),
    ("VGG-16 conv4_2", 28, 512, 512, 3, 0.27),
    ("VGG-16 conv5_2", 14, 512, 512, 3, 0.29),
    ("LeNet-5 conv2", 12, 20, 50, 5, 0.12),
    ("1x1, 28x28", 28, 192, 64, 1, 0.1),
    ("1x1, 14x14", 14, 512, 512, 1, 0.1),
    ("1x1, 7x7", 7, 1024, 1024, 1, 0.1),
    ("1x1, 7x7", 7, 1024, 1024, 1, 0.25),
]


class PatchesCSR(keras.Layer):
    """A convolution with stride 1 as a sparse product: every patch becomes an input of a dense layer."""

    def __init__(self, convolution):
        super().__init__()
        kernel = keras.ops.convert_to_numpy(convolution.kernel)
        self.size, self.padding, self.filters = kernel.shape[0], convolution.padding, kernel.shape[-1]
        connections = Connections.of(kernel.reshape(-1, self.filters))
        rows = len(connections.row_starts) - 1
        self.matrix = TensorFlowCSR(rows, kernel[..., 0].size, len(connections.values), connections.most)
        self.matrix.assign(connections)

    def call(self, inputs):
        """Returns the convolution of `inputs`."""
        ones, sizes = [1, 1, 1, 1], [1, self.size, self.size, 1]
        patches = tf.image.extract_patches(inputs, sizes, ones, ones, self.padding.upper()) if self.size > 1 else inputs
        outputs = self.matrix.multiply(tf.reshape(patches, (-1, self.matrix.inputs)))
        return tf.reshape(outputs, (*patches.shape[:-1], self.filters))


def main():
    """Prints the table."""
    print("| convolution | density | dense, us | sparse, us | speed-up |\n|---|---|---|---|---|")
    for name, size, channels, filters, kernel_size, density in SHAPES:
        padding = "valid" if name.startswith("LeNet") else "same"
        layer = keras.layers.Conv2D(filters, kernel_size, padding=padding, use_bias=False)
        layer.build((None, size, size, channels))
        random = np.random.default_rng(0)
        kept = random.random(layer.kernel.shape) < density
        layer.kernel.assign(random.standard_normal(kept.shape, dtype="float32") * kept)
        inputs = random.standard_normal((1, size, size, channels), dtype="float32")
        calls = {"dense": compiled(layer, inputs), "sparse": compiled(PatchesCSR(layer), inputs)}
        np.testing.assert_allclose(calls["sparse"](), calls["dense"](), atol=1e-2)
        dense, sparse = (np.median(seconds) * 1e6 for seconds in interleave(calls, rounds=9).values())
        print(f"| {name} | {density:.0%} | {dense:,.0f} | {sparse:,.0f} | {dense / sparse:.2f}x |", flush=True)


if __name__ == "__main__":
    main()
