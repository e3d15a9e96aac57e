"""Part of a convolutional network that XNNPACK can run sparsely.

The rules are those of XNNPACK: "Sparse inference" in the README of LiteRT's XNNPACK delegate, and the checks in its
`subgraph.c`. A 3x3 convolution of stride 2 with 3 input channels starts the subgraph, and a mean over space ends it.
Between them are pointwise and depthwise convolutions, additions and multiplications of feature maps, and some
activations. Convolutions of stride 2 take their padding from a `ZeroPadding2D` before them.
"""

import keras

from keras_prune.layers import kinds
from keras_prune.layers.prune import wrapped_layer
from keras_prune.models.graph import Graph, has_graph

_ACTIVATIONS = {"linear", "relu", "relu6", "elu", "leakyrelu", "sigmoid", "silu", "hardsilu", "hardsigmoid"}
# Layers that are gone in an exported file, or part of the convolution before them.
_GONE = (keras.layers.BatchNormalization, *kinds.ONLY_IN_TRAINING)
_NESTED = "each nested model is followed separately, not from one into another"
_ENDS = (
    "the model ends here, without a GlobalAveragePooling2D before its end; layers behind a nested model are not "
    "followed"
)
# On an emulated ARM processor, a convolution or Dense layer behind such a mean failed to load, and a mean at the end of
# the model had wrong values. TFLite 2.14 ran both.
_MISREAD_MEAN = (
    "LiteRT 2.3 misreads a sparse subgraph that ends in a mean with keepdims=True, so leave it False, or put a Flatten "
    "right behind the mean"
)


def sparse_subgraph(model) -> tuple[list, list[tuple]]:
    """Follows a model from the convolutions that can start a sparse subgraph to the means that end it.

    Args:
        model: Built Keras model. Nested models count as layers that block the subgraph.

    Returns:
        The 1x1 convolutions whose zeros XNNPACK would skip, and `[(operation, reason)]` for all that block the
        subgraph. If there is one, no zeros are skipped.
    """
    if not has_graph(model):
        return [], [(model, "only Sequential and Functional models can be followed")]
    graph, convolutions = Graph(model), convolutions_of(model)
    if not convolutions:
        return [], [(model, "it has no Conv2D layer")]
    starts = [layer for layer in convolutions if not _why_no_start(layer, graph)]
    reached = _reached(starts or convolutions[:1], graph)
    blockers = [(one, reason) for one, reason in reached.values() if reason]
    pointwise = [layer for layer in convolutions if id(layer) in reached and _is_pointwise(wrapped_layer(layer))]
    return ([] if blockers else pointwise), blockers


def is_misread(model) -> bool:
    """Whether a sparse subgraph is only stopped by LiteRT, which enters it and then misreads it."""
    _, blockers = sparse_subgraph(model)
    return bool(blockers) and all(reason == _MISREAD_MEAN for _, reason in blockers)


def _reached(starts, graph) -> dict[int, tuple]:
    """Returns, by `id`, each operation of a subgraph and next to it, with the reason if it blocks the subgraph."""
    reached = {id(layer): (layer, _why_no_start(layer, graph)) for layer in starts}

    def enter(operations) -> list:
        """Returns the operations that are new and do not block."""
        new = {id(one): one for one in operations if id(one) not in reached}
        reached.update({key: (one, _why_it_stops(one, graph)) for key, one in new.items()})
        return [one for key, one in new.items() if not reached[key][1]]

    forward = list(starts)
    for layer in forward:
        if not _is_mean(layer, graph):
            consumers = graph.consumers.get(id(layer), [])
            if not consumers:
                reached[id(layer)] = layer, reached[id(layer)][1] or _ENDS
            forward += enter(consumers)
    # Where branches meet, all of them must come from inside, including the squeezed branch that scales a feature map.
    backward = [layer for layer in forward if layer not in starts]
    for layer in backward:
        backward += enter(graph.producers.get(id(layer), []))
    for layer in forward:
        if _is_mean(layer, graph) and _is_misread(layer, graph, reached):
            reached[id(layer)] = layer, _MISREAD_MEAN
    return reached


def convolutions_of(model) -> list:
    """Returns the Conv2D layers of a model, not those of nested models."""
    return [layer for layer in model.layers if type(wrapped_layer(layer)) is keras.layers.Conv2D]


def _why_no_start(layer, graph) -> str:
    inner = wrapped_layer(layer)
    channels = _shape_before(layer, graph)[-1]
    if inner.kernel_size != (3, 3) or inner.strides != (2, 2) or channels != 3:
        return (
            "the subgraph starts with a 3x3 convolution of stride 2 with 3 input channels, and this is "
            f"{_size(inner)} of stride {inner.strides[0]} with {channels}"
        )
    return _why_no_convolution(layer, graph, padding=1)


def _why_it_stops(operation, graph) -> str:
    """Returns why XNNPACK cannot run an operation in a sparse subgraph; nothing if it can."""
    inner = wrapped_layer(operation)
    kind = type(inner).__name__
    if isinstance(inner, keras.layers.DepthwiseConv2D):
        known = inner.kernel_size in ((3, 3), (5, 5)) and inner.strides in ((1, 1), (2, 2))
        if known and inner.depth_multiplier == 1:
            return _why_no_convolution(operation, graph, padding=inner.kernel_size[0] // 2)
        return f"depthwise it takes 3x3 and 5x5 of stride 1 or 2, and this is {_size(inner)} of {inner.strides[0]}"
    if type(inner) is keras.layers.Conv2D:
        size = f"inside it takes 1x1 convolutions of stride 1, and this is {_size(inner)} of {inner.strides[0]}"
        return _why_no_convolution(operation, graph, padding=0) if _is_pointwise(inner) else size
    if kind in ("Add", "Multiply"):  # Layers and operators such as x + y.
        ranks = {len(graph.shapes[id(producer)]) for producer in graph.producers[id(operation)]}
        return "" if ranks == {4} else f"it takes {kind} of feature maps only"
    if isinstance(operation, keras.Model):
        return _NESTED
    name = inner.activation.__name__ if isinstance(inner, keras.layers.Activation) else kind
    bilinear = isinstance(inner, keras.layers.UpSampling2D) and inner.interpolation == "bilinear"
    # The padding of a ZeroPadding2D is checked at the convolution behind it.
    fits = bilinear or isinstance(inner, (*_GONE, keras.layers.ZeroPadding2D)) or _is_mean(operation, graph)
    return "" if fits or _is_activation(name) else f"inside it takes no {name}"


def _why_no_convolution(layer, graph, padding) -> str:
    inner = wrapped_layer(layer)
    if inner.data_format != "channels_last" or set(inner.dilation_rate) != {1} or getattr(inner, "groups", 1) != 1:
        return "it takes convolutions without dilation and groups, channels last"
    if not _is_activation(getattr(inner.activation, "__name__", "")):
        return f"it takes no activation {inner.activation}"
    sides, asked = {0}, f"padding='valid' behind ZeroPadding2D({padding})"
    producers = graph.producers.get(id(layer), [])
    if isinstance(producers[0], keras.layers.ZeroPadding2D):
        sides = {side for pair in producers[0].padding for side in pair}
    if inner.padding == "same" and inner.strides != (1, 1):
        return f"the padding of a stride of 2 must be {padding} on each side, so make it {asked}"
    if inner.padding == "same":
        sides = {side + inner.kernel_size[0] // 2 for side in sides}
    return "" if sides == {padding} else f"its padding must be {padding} on each side, as of {asked}"


def _is_pointwise(layer) -> bool:
    return type(layer) is keras.layers.Conv2D and layer.kernel_size == (1, 1) and layer.strides == (1, 1)


def _is_mean(operation, graph) -> bool:
    mean = type(operation).__name__ == "Mean" and len(graph.shapes[id(operation)]) == 2
    return mean or isinstance(operation, keras.layers.GlobalAveragePooling2D)


def _is_misread(mean, graph, reached) -> bool:
    consumers = graph.consumers.get(id(mean), [])
    inside = any(id(one) in reached for one in consumers)  # As in squeeze-and-excitation.
    flat = consumers and all(isinstance(one, (keras.layers.Flatten, keras.layers.Reshape)) for one in consumers)
    return len(graph.shapes[id(mean)]) == 4 and not inside and not flat


def _is_activation(name) -> bool:
    return name.lower().replace("_", "") in _ACTIVATIONS


def _shape_before(layer, graph) -> tuple:
    return graph.shapes[id(graph.producers[id(layer)][0])]


def _size(layer) -> str:
    return "x".join(map(str, layer.kernel_size))
