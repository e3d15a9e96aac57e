"""What every engine of the benchmark is: one way to run a pruned model, behind one interface."""

import importlib.util
import math
import os

import keras
import numpy as np
from keras import ops

from keras_prune.models.graph import leaf_layers
from keras_prune.sparse.sparse_dense import SparseDense


class UnsupportedModelError(ValueError):
    """An engine cannot run a model; the message says why."""


class Engine:
    """One way to run a model: loads it, and hands back a function that runs it on inputs.

    Nothing but Keras and NumPy is imported before an engine is asked for, so that those of JAX and PyTorch run where
    there is no TensorFlow. Engines whose runtime knows no Keras model take models of one dense layer.

    Args:
        model: Built plain Keras model.
        device: String, one of `devices()`.

    Attributes:
        name: String, what tables call it.
        baseline: Boolean, whether it computes densely in float32: what the others are compared with.
        packages: Tuple of strings, the modules it needs.
        pattern: `"4x1"` if it is meant for zeros in blocks of 4 inputs of a neuron, `None` for any.
        quantized: Boolean, whether it rounds the weights to 8 bits.
        tolerance: Float, by how much of the largest output it may differ from the dense result.
        weight_bytes: Integer, what the weights take in memory.

    Raises:
        UnsupportedModelError: If it cannot run this model.
    """

    name = ""
    baseline = False
    packages: tuple[str, ...] = ()
    pattern: str | None = None
    quantized = False
    tolerance = 1e-4
    weight_bytes: int

    def __init__(self, model, device: str):
        raise NotImplementedError

    @classmethod
    def missing(cls) -> str | None:
        """Returns why the engine cannot run on this machine, or `None`."""
        absent = [package for package in cls.packages if importlib.util.find_spec(package) is None]
        return f"{' and '.join(absent)} not installed" if absent else None

    @classmethod
    def runtime(cls) -> str:
        """Returns the runtime that the engine runs on: advice names one engine for each."""
        return cls.name.split()[0]

    @classmethod
    def devices(cls) -> list[str]:
        """Returns the devices that an engine which is not `missing` can run on."""
        return ["cpu:0"]

    def prepare(self, inputs: np.ndarray):
        """Returns a function without arguments that runs the model and waits for its outputs.

        Args:
            inputs: Array of shape `(batch, ...)` and of the dtype that the model takes. It is on the device before
                anything is timed.
        """
        raise NotImplementedError

    def to_numpy(self, outputs) -> np.ndarray:
        """Returns what the function of `prepare` returned as an array."""
        return np.asarray(outputs)


def threads() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def kernel_of(model) -> np.ndarray:
    """Returns the weight of a model that is one dense layer without bias, shape `(inputs, outputs)`."""
    layers = [layer for layer in leaf_layers(model) if not isinstance(layer, keras.layers.InputLayer)]
    if len(layers) != 1 or type(layers[0]) is not keras.layers.Dense or layers[0].use_bias:
        raise UnsupportedModelError("it runs single dense layers, not whole models")
    return ops.convert_to_numpy(layers[0].kernel.value)


def weight_bytes(model) -> int:
    """Returns what the weights of a Keras model take in memory, those of its sparse layers included."""
    sparse = [layer for layer in leaf_layers(model) if isinstance(layer, SparseDense)]
    counted = {id(weight) for layer in sparse for weight in layer.weights}
    dense = [weight for weight in model.weights if id(weight) not in counted]
    return sum(layer.weight_bytes for layer in sparse) + sum(
        math.prod(weight.shape) * np.dtype(weight.dtype).itemsize for weight in dense
    )
