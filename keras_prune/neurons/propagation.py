"""How neurons pass through single layers: where each goes, and what becomes of a constant.

A neuron is one place along the channel axis of a layer's output: a unit of a `Dense`, a channel of a convolution.
Classes are matched with their subclasses, as long as these compute the same (`call` is not overridden).
"""

from typing import NamedTuple

import keras
import numpy as np
from keras import layers, ops

_SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
_CONNECTED = (layers.Dense, layers.Conv1D, layers.Conv2D, layers.Conv3D, *_SEPARABLE)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_ELEMENTWISE = (layers.ReLU, layers.LeakyReLU, layers.ELU)
_ZERO_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
# Keras leaves the padding out of a pool's average and maximum, so a constant stays what it is at the borders too.
_POOLING = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
)
_DROPOUTS = (
    layers.AlphaDropout,
    layers.Dropout,
    layers.GaussianDropout,
    layers.GaussianNoise,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
)
_MIXING_ACTIVATIONS = ("glu", "log_softmax", "softmax", "sparsemax")


class Neurons(NamedTuple):
    """The neurons of an output: which are `constant`, with which `value` (else 0), and the `axis` they lie along."""

    constant: np.ndarray
    value: np.ndarray
    axis: int

    def moving_in(self, layer) -> np.ndarray:
        """Which of them are not constant for a layer that may add zeros at the borders."""
        return ~self.constant | (_pads(layer) & (self.value != 0))


def connects(layer, incoming: Neurons | None) -> bool:
    """Whether a layer connects all incoming neurons to neurons of its own, with the weights that its class has."""
    return (
        _is(layer, _CONNECTED)
        # More where the layer is quantized or has LoRA weights.
        and len(layer.variables) == (2 if is_separable(layer) else 1) + layer.use_bias
        and getattr(layer, "groups", 1) == 1
        and (incoming is None or incoming.axis == _channel_axis(layer, layer.input))
    )


def is_separable(layer) -> bool:
    """Whether a layer has two kernels, a depthwise and a pointwise one."""
    return isinstance(layer, _SEPARABLE)


def is_depthwise(layer) -> bool:
    """Whether a layer has a kernel of its own for each neuron that it reads."""
    return isinstance(layer, _DEPTHWISE)


def connections(layer) -> np.ndarray:
    """Which inputs of a layer are connected to which of its neurons: boolean, `(inputs, neurons)`."""
    return _between(layer, lambda kernel, axes: (kernel != 0).any(axes))


def contribution(layer, value) -> np.ndarray:
    """What inputs of the constant `value`, one each, add to every neuron of a layer."""
    rows = np.flatnonzero(value)
    return value[rows] @ _between(layer, lambda kernel, axes: kernel.sum(axes, dtype="float64"), rows)


def emit(layer, constant, total) -> Neurons | None:
    """Returns a layer's neurons from what reaches them; `None` if its activation may mix them."""
    if not _is_elementwise(layer.activation):
        return None
    value = _evaluate(layer, layer.activation, total)
    return _neurons(constant, value, _channel_axis(layer, layer.output))


def pass_on(layer, incoming: Neurons) -> tuple[Neurons, np.ndarray] | None:
    """Follows neurons through a layer without connections between them.

    Returns:
        The neurons behind the layer, and from which incoming one each comes; `None` if it cannot be followed.
    """
    if _is(layer, (layers.Flatten,)):
        return _flatten(layer, incoming)
    if _is(layer, _DEPTHWISE):
        return _depthwise(layer, incoming)
    if _is(layer, _POOLING) and incoming.axis == _channel_axis(layer, layer.input):
        neurons = incoming._replace(axis=_channel_axis(layer, layer.output))
    # A noise shape may have the number of neurons in it.
    elif _is(layer, _DROPOUTS) and not getattr(layer, "noise_shape", None):
        neurons = incoming
    elif _is(layer, _ZERO_PADDING):
        neurons = incoming._replace(constant=incoming.constant & (incoming.value == 0))
    elif _acts_elementwise(layer, incoming):
        value = _evaluate(layer, layer, incoming.value, incoming.axis, len(layer.input.shape))
        neurons = _neurons(incoming.constant, value, incoming.axis)
    else:
        return None
    return neurons, np.arange(len(incoming.constant))


def _acts_elementwise(layer, incoming) -> bool:
    if _is(layer, (layers.BatchNormalization,)):
        return layer.axis % len(layer.input.shape) == incoming.axis
    if _is(layer, (layers.Activation,)):
        return _is_elementwise(layer.activation)
    return _is(layer, _ELEMENTWISE)


def _flatten(layer, incoming):
    constant, value, axis = incoming
    shape = list(layer.input.shape[1:])
    if None in shape:
        return None
    # The layer itself says which neuron each of its outputs comes from, whatever the data format.
    numbers = np.moveaxis(np.broadcast_to(np.arange(shape.pop(axis - 1)), (*shape, len(constant))), -1, axis - 1)
    origin = numpy(layer(ops.convert_to_tensor(numbers[np.newaxis], dtype="int32")))[0]
    return Neurons(constant[origin], value[origin], 1), origin


def _depthwise(layer, incoming):
    if incoming.axis != _channel_axis(layer, layer.input):
        return None
    kernel = numpy(layer.kernel)
    spatial = tuple(range(kernel.ndim - 2))
    origin = np.repeat(np.arange(len(incoming.constant)), layer.depth_multiplier)
    exists = (kernel != 0).any(spatial).reshape(-1)
    total = incoming.value[origin] * kernel.sum(spatial, dtype="float64").reshape(-1) + bias(layer)
    neurons = emit(layer, ~exists | ~incoming.moving_in(layer)[origin], total)
    return neurons and (neurons, origin)


def bias(layer) -> np.ndarray | float:
    """Returns a layer's bias, 0 where it has none."""
    return numpy(layer.bias) if layer.use_bias else 0.0


def numpy(tensor) -> np.ndarray:
    """Returns a tensor or variable as a NumPy array."""
    return ops.convert_to_numpy(tensor)


def _is(layer, kinds) -> bool:
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in kinds)


def _is_elementwise(activation) -> bool:
    if isinstance(activation, keras.Layer):
        return _is(activation, _ELEMENTWISE)
    name = getattr(activation, "__name__", "")
    return name not in _MIXING_ACTIVATIONS and activation is getattr(keras.activations, name, None)


def _channel_axis(layer, tensor) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else len(tensor.shape) - 1


def _pads(layer) -> bool:
    return getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in layer.kernel_size)


def _between(layer, reduce, rows=slice(None)):
    """Reduces the spatial axes of a layer's kernels, or of `rows` of its inputs, to `(inputs, neurons)`."""

    def reduced(kernel):
        return reduce(kernel, tuple(range(kernel.ndim - 2)))

    if is_separable(layer):
        depthwise, pointwise = numpy(layer.depthwise_kernel), reduced(numpy(layer.pointwise_kernel))
        pointwise = pointwise.reshape(*depthwise.shape[-2:], -1)
        return np.einsum("im,imo->io", reduced(depthwise[..., rows, :]), pointwise[rows])
    return reduced(numpy(layer.kernel)[..., rows, :])


def _evaluate(layer, function, value, axis=0, dimensions=1):
    """Calls a function on one value for each neuron, in the precision that the layer computes in."""
    shape = np.ones(dimensions, int)
    shape[axis] = -1
    tensor = ops.convert_to_tensor(value.reshape(shape), dtype=layer.compute_dtype)
    return numpy(function(tensor)).reshape(-1).astype("float64")


def _neurons(constant, value, axis) -> Neurons:
    constant = constant & np.isfinite(value)
    return Neurons(constant, np.where(constant, value, 0), axis)
