"""The engines of the benchmark, in the order of its tables."""

from keras_prune.benchmark.engine import Engine
from keras_prune.benchmark.jax_engines import JaxCOO, JaxCSR, JaxDense, JaxELL
from keras_prune.benchmark.litert_engines import LiteRT, LiteRTBlocks, LiteRTInt8, LiteRTSparse
from keras_prune.benchmark.pytorch_engines import PyTorchCSR, PyTorchDense
from keras_prune.benchmark.scipy_engines import MKLCSR, SciPyCSR
from keras_prune.benchmark.tensorflow_engines import (
    TensorFlowCOO,
    TensorFlowCSR,
    TensorFlowDense,
    TensorFlowELL,
    TensorFlowXLA,
)

ENGINES: tuple[type[Engine], ...] = (
    TensorFlowDense,
    TensorFlowXLA,
    LiteRT,
    JaxDense,
    PyTorchDense,
    TensorFlowCSR,
    TensorFlowCOO,
    TensorFlowELL,
    SciPyCSR,
    MKLCSR,
    PyTorchCSR,
    JaxCSR,
    JaxCOO,
    JaxELL,
    LiteRTInt8,
    LiteRTSparse,
    LiteRTBlocks,
)


def available(device: str, engines=ENGINES) -> tuple[list[type[Engine]], dict[str, str]]:
    """Returns the engines that can run on a device of this machine, and the reason for each other engine by name.

    Args:
        device: String, such as `"cpu:0"` or `"gpu:0"`.
        engines: Tuple of `Engine` classes to choose from. Defaults to all.

    Raises:
        ValueError: If no installed engine has such a device.

    Example:

    >>> from keras_prune.benchmark.engines import available
    >>> present, absent = available("cpu:0")
    >>> len(present) + len(absent)
    17
    """
    absent = {engine.name: reason for engine in engines if (reason := engine.missing())}
    devices = {engine: engine.devices() for engine in engines if engine.name not in absent}
    known = sorted(set().union(*devices.values()))
    if device not in known:
        raise ValueError(f"`device` must be a device of an installed engine: {known}. Received: device={device!r}")
    for engine, own in devices.items():
        if device not in own:
            absent[engine.name] = f"the engine runs on {' and '.join(own)}, not on {device}"
    return [engine for engine in engines if engine.name not in absent], absent
