"""Rules for how layers pass neurons on, one for each kind of layer.

A neuron is one place along the channel axis of a layer's output: a unit of a `Dense`, a channel of a convolution. The
`follow` of a rule returns a `Connected` or a `Passed`. Its `resize` returns the config and weights of the layer for the
neurons that stay. To follow another kind of layer, write a rule and add it to `RULES`.
"""

from typing import Any

import keras
import numpy as np
from keras import layers, ops

from keras_prune.layers import kinds
from keras_prune.neurons.outputs import Connected, Kept, Outputs, Passed
from keras_prune.rules.chunks import on_host

_MIXING_ACTIVATIONS = ("glu", "log_softmax", "softmax", "sparsemax")


class DenseRule:
    """Rule for layers with a kernel whose last two axes are inputs and neurons.

    Args:
        size: String, the argument of the layer with its number of neurons.
    """

    kernels = 1

    def __init__(self, size: str):
        self.size = size

    def follow(self, layer, incoming: Outputs | None) -> Connected | None:
        # A layer has more variables if it is quantized or has LoRA weights.
        if len(layer.variables) != self.kernels + layer.use_bias or getattr(layer, "groups", 1) != 1:
            return None
        exists, axis = self.connectivity(layer), _channel_axis(layer, layer.input)
        incoming = incoming or Outputs(np.zeros(len(exists), bool), np.zeros(len(exists)), axis)
        if incoming.axis != axis:
            return None
        moving = incoming.moving_in(layer)
        constant = ~np.any(exists[moving], axis=0)
        total = _bias(layer) + self.contribution(layer, np.where(moving, 0, incoming.value))
        return Connected(_activated(layer, constant, total), constant, incoming, moving, exists)

    def connectivity(self, layer) -> np.ndarray:
        """Returns where a connection is left: boolean, `(inputs, neurons)`."""
        return self._by_input(layer, _any)

    def contribution(self, layer, value) -> np.ndarray:
        """Returns the sum that inputs with the constants `value` add to every neuron of a layer."""
        rows = np.flatnonzero(value)
        return value[rows] @ self._by_input(layer, _sum, rows)

    def resize(self, layer, kept: Kept) -> tuple[dict, list]:
        weights = self._kernels(layer, kept)
        use_bias = layer.use_bias or kept.gains_bias
        if use_bias:
            weights.append(np.add(_bias(layer), kept.constants)[kept.neurons])
        return {self.size: int(kept.neurons.sum()), "use_bias": use_bias}, weights

    def _kernels(self, layer, kept) -> list:
        return [to_numpy(layer.kernel)[..., kept.inputs, :][..., kept.neurons]]

    def _by_input(self, layer, reduce, rows: slice | np.ndarray = slice(None)) -> np.ndarray:
        """Reduces the spatial axes of the kernel, for `rows` of the inputs, to `(inputs, neurons)`."""
        return reduce(to_numpy(layer.kernel)[..., rows, :])


class SeparableRule(DenseRule):
    """Rule for layers with a depthwise and a pointwise kernel."""

    kernels = 2

    def _kernels(self, layer, kept):
        spread = np.repeat(kept.inputs, layer.depth_multiplier)
        pointwise = to_numpy(layer.pointwise_kernel)[..., spread, :][..., kept.neurons]
        return [to_numpy(layer.depthwise_kernel)[..., kept.inputs, :], pointwise]

    def _by_input(self, layer, reduce, rows=slice(None)):
        depthwise, pointwise = to_numpy(layer.depthwise_kernel), reduce(to_numpy(layer.pointwise_kernel))
        pointwise = pointwise.reshape(*depthwise.shape[-2:], -1)
        return np.einsum("im,imo->io", reduce(depthwise[..., rows, :]), pointwise[rows])


class ElementwiseRule:
    """Rule for layers that act on each value alone. Base class of the rules that return a `Passed`."""

    def follow(self, layer, incoming: Outputs | None) -> Passed | None:
        if incoming is None:
            return None
        outputs = self.outputs(layer, incoming)
        return outputs and Passed(outputs, incoming, self.origin(layer, incoming))

    def origin(self, layer, incoming) -> np.ndarray:
        """Returns the incoming neuron that each neuron comes from."""
        return np.arange(len(incoming.constant))

    def outputs(self, layer, incoming) -> Outputs | None:
        """Returns the neurons behind the layer, or `None` if it cannot be followed."""
        value = _evaluate(layer, layer, incoming.value, incoming.axis, len(layer.input.shape))
        return _finite(incoming.constant, value, incoming.axis)

    def resize(self, layer, kept: Kept) -> tuple[dict, list]:
        return {}, [to_numpy(variable) for variable in layer.variables]


class ActivationRule(ElementwiseRule):
    """Rule for layers with an activation function, which may mix neurons."""

    def outputs(self, layer, incoming):
        return super().outputs(layer, incoming) if _is_elementwise(layer.activation) else None


class BatchNormalizationRule(ElementwiseRule):
    """Rule for normalizations with weights for each neuron."""

    def outputs(self, layer, incoming):
        return super().outputs(layer, incoming) if layer.axis % len(layer.input.shape) == incoming.axis else None

    def resize(self, layer, kept):
        return {}, [to_numpy(variable)[kept.neurons] for variable in layer.variables]


class OnlyInTrainingRule(ElementwiseRule):
    """Rule for dropout and noise. A noise shape may contain the number of neurons."""

    def outputs(self, layer, incoming):
        return None if getattr(layer, "noise_shape", None) else incoming


class PoolingRule(ElementwiseRule):
    """Rule for layers that reduce each neuron over positions."""

    def outputs(self, layer, incoming):
        follows = incoming.axis == _channel_axis(layer, layer.input)
        return incoming._replace(axis=_channel_axis(layer, layer.output)) if follows else None


class ZeroPaddingRule(ElementwiseRule):
    """Rule for layers that add zeros, behind which only a constant 0 is constant."""

    def outputs(self, layer, incoming):
        return incoming._replace(constant=incoming.constant & (incoming.value == 0))


class FlattenRule(ElementwiseRule):
    """Rule for layers that spread each neuron over several."""

    def origin(self, layer, incoming):
        # The layer is called on neuron numbers, which works for any data format.
        shape = np.ones(len(layer.input.shape), int)
        shape[incoming.axis] = -1
        numbers = np.broadcast_to(np.arange(len(incoming.constant)).reshape(shape), (1, *layer.input.shape[1:]))
        return to_numpy(layer(ops.convert_to_tensor(numbers, dtype="int32")))[0]

    def outputs(self, layer, incoming):
        if None in layer.input.shape[1:]:
            return None
        origin = self.origin(layer, incoming)
        return Outputs(incoming.constant[origin], incoming.value[origin], 1)


class DepthwiseRule(ElementwiseRule):
    """Rule for convolutions with one kernel, or several, for each neuron that they read."""

    def origin(self, layer, incoming):
        return np.repeat(np.arange(len(incoming.constant)), layer.depth_multiplier)

    def outputs(self, layer, incoming):
        if incoming.axis != _channel_axis(layer, layer.input):
            return None
        kernel, origin = to_numpy(layer.kernel), self.origin(layer, incoming)
        total = incoming.value[origin] * _sum(kernel).reshape(-1) + _bias(layer)
        return _activated(layer, ~_any(kernel).reshape(-1) | ~incoming.moving_in(layer)[origin], total)

    def resize(self, layer, kept):
        kernel, *rest = [to_numpy(variable) for variable in layer.variables]
        return {}, [kernel[..., kept.inputs, :], *(weight[kept.neurons] for weight in rest)]


# A layer has the rule of the first class that it is an instance of and whose `call` it has.
RULES = {
    layers.Dense: DenseRule("units"),
    **dict.fromkeys(kinds.CONVOLUTIONS, DenseRule("filters")),
    **dict.fromkeys(kinds.SEPARABLE_CONVOLUTIONS, SeparableRule("filters")),
    **dict.fromkeys(kinds.DEPTHWISE_CONVOLUTIONS, DepthwiseRule()),
    **dict.fromkeys(kinds.ELEMENTWISE, ElementwiseRule()),
    **dict.fromkeys(kinds.ONLY_IN_TRAINING, OnlyInTrainingRule()),
    **dict.fromkeys(kinds.POOLING, PoolingRule()),
    **dict.fromkeys(kinds.ZERO_PADDING, ZeroPaddingRule()),
    layers.Activation: ActivationRule(),
    layers.BatchNormalization: BatchNormalizationRule(),
    layers.Flatten: FlattenRule(),
}


def rule_of(layer) -> Any:
    """Returns the rule of a layer, or `None`."""
    return next((rule for kind, rule in RULES.items() if kinds.computes_like(layer, (kind,))), None)


def to_numpy(tensor) -> np.ndarray:
    """Returns a copy of a tensor or variable as a NumPy array. All processes must call it if it is spread over them."""
    return np.array(on_host(tensor.value if isinstance(tensor, keras.Variable) else tensor))


def _bias(layer) -> np.ndarray | float:
    return to_numpy(layer.bias) if layer.use_bias else 0.0


def _is_elementwise(activation) -> bool:
    if isinstance(activation, keras.Layer):
        return kinds.computes_like(activation, kinds.ELEMENTWISE)
    name = getattr(activation, "__name__", "")
    return name not in _MIXING_ACTIVATIONS and activation is getattr(keras.activations, name, None)


def _channel_axis(layer, tensor) -> int:
    return 1 if getattr(layer, "data_format", None) == "channels_first" else len(tensor.shape) - 1


def _any(kernel) -> np.ndarray:
    """Returns which entries are left at any position of a kernel."""
    return (kernel != 0).any(tuple(range(kernel.ndim - 2)))


def _sum(kernel) -> np.ndarray:
    """Returns the sum of a kernel over its positions."""
    return kernel.sum(tuple(range(kernel.ndim - 2)), dtype="float64")


def _activated(layer, constant, total) -> Outputs | None:
    """Returns a layer's outputs from the sums at its neurons, or `None` if its activation may mix them."""
    if not _is_elementwise(layer.activation):
        return None
    return _finite(constant, _evaluate(layer, layer.activation, total), _channel_axis(layer, layer.output))


def _evaluate(layer, function, value, axis=0, dimensions=1) -> np.ndarray:
    """Calls a function on one value for each neuron, in the precision that the layer computes in."""
    shape = np.ones(dimensions, int)
    shape[axis] = -1
    tensor = ops.convert_to_tensor(value.reshape(shape), dtype=layer.compute_dtype)
    return to_numpy(function(tensor)).reshape(-1).astype("float64")


def _finite(constant, value, axis) -> Outputs:
    """Returns outputs in which neurons with an infinite value do not count as constant."""
    constant = constant & np.isfinite(value)
    return Outputs(constant, np.where(constant, value, 0), axis)
