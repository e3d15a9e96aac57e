"""The four networks of the paper, and its tables as data (Han et al. 2015, section 4)."""

from typing import NamedTuple

import keras
from keras import layers


class PaperRow(NamedTuple):
    """One row of Tables 2 to 5 of Han et al. (2015).

    Attributes:
        layer: Name of the layer, or `"total"`.
        weights: Number of weights, rounded as in the paper.
        flop: Number of floating-point operations for one input, rounded as in the paper.
        activation: Share of nonzero activations in percent.
        density: Share of surviving weights in percent.
        flop_density: Share of the operations left in percent.
    """

    layer: str
    weights: float
    flop: float
    activation: float
    density: float
    flop_density: float


class PaperResult(NamedTuple):
    """One row of Table 1 of Han et al. (2015).

    Attributes:
        reference_error: Top-1 error of the dense network in percent.
        pruned_error: Top-1 error of the pruned network in percent.
        parameters: Number of parameters of the dense network.
        pruned_parameters: Number of parameters of the pruned network.
        compression: The former over the latter, as in the paper.
    """

    reference_error: float
    pruned_error: float
    parameters: float
    pruned_parameters: float
    compression: int


TABLE_1 = {
    "lenet_300_100": PaperResult(1.64, 1.59, 267e3, 22e3, 12),
    "lenet_5": PaperResult(0.80, 0.77, 431e3, 36e3, 12),
    "alexnet": PaperResult(42.78, 42.77, 61e6, 6.7e6, 9),
    "vgg16": PaperResult(31.50, 31.34, 138e6, 10.3e6, 13),
}

# Tables 2 to 5: layer, weights, FLOP, Act%, Weights%, FLOP%. The last row of each is the total.
TABLES = {
    "lenet_300_100": [
        PaperRow("fc1", 235e3, 470e3, 38, 8, 8),
        PaperRow("fc2", 30e3, 60e3, 65, 9, 4),
        PaperRow("fc3", 1e3, 2e3, 100, 26, 17),
        PaperRow("total", 266e3, 532e3, 46, 8, 8),
    ],
    "lenet_5": [
        PaperRow("conv1", 0.5e3, 576e3, 82, 66, 66),
        PaperRow("conv2", 25e3, 3200e3, 72, 12, 10),
        PaperRow("fc1", 400e3, 800e3, 55, 8, 6),
        PaperRow("fc2", 5e3, 10e3, 100, 19, 10),
        PaperRow("total", 431e3, 4586e3, 77, 8, 16),
    ],
    "alexnet": [
        PaperRow("conv1", 35e3, 211e6, 88, 84, 84),
        PaperRow("conv2", 307e3, 448e6, 52, 38, 33),
        PaperRow("conv3", 885e3, 299e6, 37, 35, 18),
        PaperRow("conv4", 663e3, 224e6, 40, 37, 14),
        PaperRow("conv5", 442e3, 150e6, 34, 37, 14),
        PaperRow("fc6", 38e6, 75e6, 36, 9, 3),
        PaperRow("fc7", 17e6, 34e6, 40, 9, 3),
        PaperRow("fc8", 4e6, 8e6, 100, 25, 10),
        PaperRow("total", 61e6, 1.5e9, 54, 11, 30),
    ],
    "vgg16": [
        PaperRow("conv1_1", 2e3, 0.2e9, 53, 58, 58),
        PaperRow("conv1_2", 37e3, 3.7e9, 89, 22, 12),
        PaperRow("conv2_1", 74e3, 1.8e9, 80, 34, 30),
        PaperRow("conv2_2", 148e3, 3.7e9, 81, 36, 29),
        PaperRow("conv3_1", 295e3, 1.8e9, 68, 53, 43),
        PaperRow("conv3_2", 590e3, 3.7e9, 70, 24, 16),
        PaperRow("conv3_3", 590e3, 3.7e9, 64, 42, 29),
        PaperRow("conv4_1", 1e6, 1.8e9, 51, 32, 21),
        PaperRow("conv4_2", 2e6, 3.7e9, 45, 27, 14),
        PaperRow("conv4_3", 2e6, 3.7e9, 34, 34, 15),
        PaperRow("conv5_1", 2e6, 925e6, 32, 35, 12),
        PaperRow("conv5_2", 2e6, 925e6, 29, 29, 9),
        PaperRow("conv5_3", 2e6, 925e6, 19, 36, 11),
        PaperRow("fc6", 103e6, 206e6, 38, 4, 1),
        PaperRow("fc7", 17e6, 34e6, 42, 4, 2),
        PaperRow("fc8", 4e6, 8e6, 100, 23, 9),
        PaperRow("total", 138e6, 30.9e9, 64, 7.5, 21),
    ],
}


def lenet_300_100(dropout: tuple[float, float] = (0.0, 0.0), l2: float = 0.0):
    """Returns LeNet-300-100 for 28 x 28 digits (Han et al. 2015, section 4.1).

    It has 266,200 connections. The last layer returns logits.

    Args:
        dropout: Tuple of floats, the rates after the two hidden layers. Defaults to `(0.0, 0.0)`.
        l2: Float, L2 regularization factor of each kernel. Defaults to `0.0`.

    Returns:
        A `keras.Sequential` from `(batch, 28, 28, 1)` to `(batch, 10)`.

    Example:

    >>> from keras_prune import networks
    >>> networks.lenet_300_100().count_params()
    266610
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Flatten(),
            layers.Dense(300, "relu", kernel_regularizer=_l2(l2), name="fc1"),
            layers.Dropout(dropout[0], name="dropout1"),
            layers.Dense(100, "relu", kernel_regularizer=_l2(l2), name="fc2"),
            layers.Dropout(dropout[1], name="dropout2"),
            layers.Dense(10, kernel_regularizer=_l2(l2), name="fc3"),
        ],
        name="lenet_300_100",
    )


def lenet_5(dropout: float = 0.0, l2: float = 0.0):
    """Returns the LeNet-5 of Caffe for 28 x 28 digits (Han et al. 2015, section 4.1).

    It has layers of 20, 50, 500 and 10 neurons with 430,500 connections, max pooling, and a ReLU only after fc1. The
    last layer returns logits.

    Args:
        dropout: Float, the rate after fc1. Defaults to `0.0`.
        l2: Float, L2 regularization factor of each kernel. Defaults to `0.0`.

    Returns:
        A `keras.Sequential` from `(batch, 28, 28, 1)` to `(batch, 10)`.

    Example:

    >>> from keras_prune import networks
    >>> networks.lenet_5().count_params()
    431080
    """
    return keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(20, 5, kernel_regularizer=_l2(l2), name="conv1"),
            layers.MaxPooling2D(name="pool1"),
            layers.Conv2D(50, 5, kernel_regularizer=_l2(l2), name="conv2"),
            layers.MaxPooling2D(name="pool2"),
            layers.Flatten(),
            layers.Dense(500, "relu", kernel_regularizer=_l2(l2), name="fc1"),
            layers.Dropout(dropout, name="dropout1"),
            layers.Dense(10, kernel_regularizer=_l2(l2), name="fc2"),
        ],
        name="lenet_5",
    )


def alexnet(classes: int = 1000, input_shape: tuple[int, int, int] = (227, 227, 3), dropout: float = 0.5):
    """Returns AlexNet with the grouped convolutions of the original (Han et al. 2015, section 4.2).

    It has 61 million parameters. The last layer returns logits.

    Args:
        classes: Integer, units of the last layer. Defaults to `1000`.
        input_shape: Tuple of integers, height, width and channels. Defaults to `(227, 227, 3)`.
        dropout: Float, the rate after fc6 and fc7. Defaults to `0.5`.

    Returns:
        A `keras.Sequential` from `(batch, *input_shape)` to `(batch, classes)`.

    Example:

    >>> from keras_prune import networks
    >>> networks.alexnet(classes=10, input_shape=(67, 67, 3)).output_shape
    (None, 10)
    """
    return keras.Sequential(
        [
            keras.Input(input_shape),
            layers.Conv2D(96, 11, strides=4, activation="relu", name="conv1"),
            layers.MaxPooling2D(3, 2, name="pool1"),
            layers.Conv2D(256, 5, padding="same", groups=2, activation="relu", name="conv2"),
            layers.MaxPooling2D(3, 2, name="pool2"),
            layers.Conv2D(384, 3, padding="same", activation="relu", name="conv3"),
            layers.Conv2D(384, 3, padding="same", groups=2, activation="relu", name="conv4"),
            layers.Conv2D(256, 3, padding="same", groups=2, activation="relu", name="conv5"),
            layers.MaxPooling2D(3, 2, name="pool5"),
            layers.Flatten(),
            layers.Dense(4096, "relu", name="fc6"),
            layers.Dropout(dropout, name="dropout6"),
            layers.Dense(4096, "relu", name="fc7"),
            layers.Dropout(dropout, name="dropout7"),
            layers.Dense(classes, name="fc8"),
        ],
        name="alexnet",
    )


def vgg16(classes: int = 1000, input_shape: tuple[int, int, int] = (224, 224, 3), dropout: float = 0.5):
    """Returns VGG-16 (Han et al. 2015, section 4.3).

    It has 138 million parameters. The last layer returns logits.

    Args:
        classes: Integer, units of the last layer. Defaults to `1000`.
        input_shape: Tuple of integers, height, width and channels. Defaults to `(224, 224, 3)`.
        dropout: Float, the rate after fc6 and fc7. Defaults to `0.5`.

    Returns:
        A `keras.Sequential` from `(batch, *input_shape)` to `(batch, classes)`.

    Example:

    >>> from keras_prune import networks
    >>> networks.vgg16(classes=10, input_shape=(32, 32, 3)).output_shape
    (None, 10)
    """
    blocks = []
    for block, (count, filters) in enumerate([(2, 64), (2, 128), (3, 256), (3, 512), (3, 512)], start=1):
        blocks += [
            layers.Conv2D(filters, 3, padding="same", activation="relu", name=f"conv{block}_{i}")
            for i in range(1, count + 1)
        ]
        blocks.append(layers.MaxPooling2D(name=f"pool{block}"))
    return keras.Sequential(
        [
            keras.Input(input_shape),
            *blocks,
            layers.Flatten(),
            layers.Dense(4096, "relu", name="fc6"),
            layers.Dropout(dropout, name="dropout6"),
            layers.Dense(4096, "relu", name="fc7"),
            layers.Dropout(dropout, name="dropout7"),
            layers.Dense(classes, name="fc8"),
        ],
        name="vgg16",
    )


def _l2(factor):
    return keras.regularizers.L2(factor) if factor else None
