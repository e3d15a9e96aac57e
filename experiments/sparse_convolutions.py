"""Times convolutions dense and as a sparse product of their patches.

    python experiments/sparse_convolutions.py
    python experiments/sparse_convolutions.py --table      # Markdown, from the measurements

Shapes are from VGG-16, LeNet-5 and MobileNet, at the densities of pruned networks and batch 1. The results are the
reason why `to_sparse` only converts 1x1 convolutions.
"""

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_bool("table", False, "Only print the table of the measurements.")
flags.DEFINE_string("results", "docs/data/sparse_convolutions.json", "File of the measurements.")

# Name, height and width, channels in and out, kernel size, density (from Tables 3 and 5 of the paper if there).
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


def patches_csr(convolution):
    """Returns a convolution with stride 1 as a sparse product, in which every patch is an input of a dense layer."""
    import keras
    import tensorflow as tf

    from keras_prune.sparse.matrices import Connections, TensorFlowCSR

    kernel = keras.ops.convert_to_numpy(convolution.kernel)
    size, padding, filters = kernel.shape[0], convolution.padding, kernel.shape[-1]
    connections = Connections.of(kernel.reshape(-1, filters))
    rows = len(connections.row_starts) - 1
    matrix = TensorFlowCSR(rows, kernel[..., 0].size, len(connections.values), connections.most)
    matrix.assign(connections)

    def product(inputs):
        ones, sizes = [1, 1, 1, 1], [1, size, size, 1]
        patches = tf.image.extract_patches(inputs, sizes, ones, ones, padding.upper()) if size > 1 else inputs
        outputs = matrix.multiply(tf.reshape(patches, (-1, matrix.inputs)))
        return tf.reshape(outputs, (*patches.shape[:-1], filters))

    return product


def measure(name, size, channels, filters, kernel_size, density):
    """Returns the medians of a convolution in microseconds, dense and sparse."""
    import keras
    import numpy as np

    from keras_prune.sparse.conversion import compiled
    from keras_prune.sparse.timing import interleave

    padding = "valid" if name.startswith("LeNet") else "same"
    layer = keras.layers.Conv2D(filters, kernel_size, padding=padding, use_bias=False)
    layer.build((None, size, size, channels))
    random = np.random.default_rng(0)
    kept = random.random(layer.kernel.shape) < density
    layer.kernel.assign(random.standard_normal(kept.shape, dtype="float32") * kept)
    inputs = random.standard_normal((1, size, size, channels), dtype="float32")
    calls = {"dense": compiled(layer, inputs), "sparse": compiled(patches_csr(layer), inputs)}
    np.testing.assert_allclose(calls["sparse"](), calls["dense"](), atol=1e-2)
    return {name: float(np.median(seconds)) * 1e6 for name, seconds in interleave(calls, rounds=9).items()}


def table(results):
    """Returns the measurements as Markdown."""
    lines = ["| convolution, density | dense, us | sparse, us | speed-up |", "|---|---|---|---|"]
    for key, one in results.items():
        dense, sparse = one["dense"], one["sparse"]
        lines.append(f"| {key} | {dense:,.0f} | {sparse:,.0f} | {dense / sparse:.2f}x |")
    return "\n".join(lines)


def main(_):
    results = measurements.read(FLAGS.results)
    for shape in [] if FLAGS.table else SHAPES:
        results[f"{shape[0]}, {shape[-1]:.0%}"] = measure(*shape)
        measurements.write(FLAGS.results, results)
    print(table(results))


if __name__ == "__main__":
    app.run(main)
