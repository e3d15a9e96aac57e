"""Interface of the engines that the benchmark compares."""

import importlib.util
import math
import os

import keras
import numpy as np
from keras import ops

from keras_prune.models.graph import leaf_layers
from keras_prune.rules.patterns import Pattern
from keras_prune.sparse.sparse_dense import SparseDense


class UnsupportedModelError(ValueError):
    """Raised if an engine cannot run a model. The message gives the reason."""


class Engine:
    """One way to run a model on inputs.

    An engine imports its runtime when it is created, so that engines of JAX and PyTorch run without TensorFlow. An
    engine whose runtime cannot run Keras models takes models of one dense layer.

    Args:
        model: Built plain Keras model.
        device: String, one of `devices()`.

    Attributes:
        name: String, the name in tables.
        runtime: String, the runtime. Engines with the same runtime differ in the format of the weights.
        baseline: Boolean, whether the engine computes densely in float32. Other engines are compared with it.
        packages: Tuple of strings, the modules that the engine needs.
        pattern: `Pattern` of the zeros that the engine is meant for.
        quantized: Boolean, whether the engine rounds the weights to 8 bits.
        tolerance: Float, the largest allowed difference from the dense outputs, as a share of the largest output.
        weight_bytes: Integer, memory of the weights.

    Raises:
        UnsupportedModelError: If the engine cannot run this model.
    """

    name = ""
    runtime = ""
    baseline = False
    packages: tuple[str, ...] = ()
    pattern = Pattern()
    quantized = False
    tolerance = 1e-4
    weight_bytes: int

    def __init__(self, model, device: str):
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        """Returns why the engine cannot run on this machine, or `None`."""
        absent = [package for package in cls.packages if importlib.util.find_spec(package) is None]
        return f"{' and '.join(absent)} not installed (pip install {' '.join(absent)})" if absent else None

    @classmethod
    def devices(cls) -> list[str]:
        """Returns the devices that the engine can run on. Its packages must be installed."""
        return ["cpu:0"]

    def prepare(self, inputs: np.ndarray):
        """Returns a function without arguments that runs the model and waits for its outputs.

        Args:
            inputs: Array of shape `(batch, ...)` and of the dtype that the model takes. It is copied to the device
                before anything is timed.
        """
        raise NotImplementedError

    def to_numpy(self, outputs) -> np.ndarray:
        """Returns the outputs of the function from `prepare` as an array."""
        return np.asarray(outputs)


def threads() -> int:
    """Returns the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kernel_of(model) -> np.ndarray:
    """Returns the weight of a model that is one dense layer without bias, shape `(inputs, outputs)`."""
    layers = [layer for layer in leaf_layers(model) if not isinstance(layer, keras.layers.InputLayer)]
    if len(layers) != 1 or type(layers[0]) is not keras.layers.Dense or layers[0].use_bias:
        raise UnsupportedModelError("the engine runs single dense layers, not whole models")
    return ops.convert_to_numpy(layers[0].kernel.value)


def weight_bytes(model) -> int:
    """Returns the memory of the weights of a Keras model, sparse layers included."""
    sparse = [layer for layer in leaf_layers(model) if isinstance(layer, SparseDense)]
    counted = {id(weight) for layer in sparse for weight in layer.weights}
    dense = [weight for weight in model.weights if id(weight) not in counted]
    return sum(layer.weight_bytes for layer in sparse) + sum(
        math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in dense
    )
