"""Follow the graph of a Keras model from layer to layer."""

import math
import re
from collections.abc import Mapping
from typing import NamedTuple

import keras

from keras_prune import _keras
from keras_prune.layers import skip_reasons
from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.kinds import ACTIVATIONS, DROPOUTS, NORMALIZATIONS, TRANSPARENT
from keras_prune.layers.masks import PrunedWeight
from keras_prune.layers.prunable import owned_connections
from keras_prune.layers.traversal import is_pruning_state, layers_in, models_in
from keras_prune.layers.weights import pruned_weights, pruning_of


class Source(NamedTuple):
    """Source of a layer's input: one weight layer, or `None` and the `reason`."""

    layer: keras.Layer | None
    reason: str


def is_graph(model) -> bool:
    """Whether a model is Sequential or Functional, and its class does not call layers in its own way."""
    return isinstance(model, (keras.Sequential, keras.Function))


def has_graph(model) -> bool:
    """Whether a model is a built Functional or Sequential model, whose layers can be followed."""
    return is_graph(model) and model.built and bool(getattr(model, "outputs", None))


def leaf_layers(model) -> list:
    """Returns the layers of a model and of the models nested in it, in order, each once."""
    leaves = {}
    for layer in model.layers:
        for leaf in leaf_layers(layer) if isinstance(layer, keras.Model) else [layer]:
            if not is_pruning_state(leaf):
                leaves[id(leaf)] = leaf
    return list(leaves.values())


def is_weight_layer(layer) -> bool:
    """Whether a layer has connections, pruned or not."""
    if not isinstance(layer, keras.layers.Layer) or isinstance(layer, keras.Model):
        return False  # An operation such as x + 1, or a nested model.
    return bool(owned_connections(layer))


class Graph:
    """Producers and consumers of each operation in a built Functional or Sequential model. Nested models stay closed.

    `producers` and `consumers` list operations, `shapes` holds output shapes, all by the `id` of an operation.

    Args:
        model: Keras model for which `has_graph` holds.
    """

    def __init__(self, model):
        self.producers: dict[int, list] = {}
        self.consumers: dict[int, list] = {}
        self.shapes: dict[int, tuple] = {}
        self._sources: dict[int, Source] = {}
        visited = set()
        pending = list(keras.tree.flatten(model.outputs))
        ends = {id(tensor) for tensor in keras.tree.flatten(model.inputs)}
        while pending:
            tensor = pending.pop()
            operation, node_index = _keras.origin_of(tensor)
            self.shapes[id(operation)] = tuple(tensor.shape)
            if id(tensor) in ends or (id(operation), node_index) in visited:
                continue
            visited.add((id(operation), node_index))
            for source in _keras.inbound_nodes(operation)[node_index].input_tensors:
                producer, _ = _keras.origin_of(source)
                self.producers.setdefault(id(operation), []).append(producer)
                self.consumers.setdefault(id(producer), []).append(operation)
                pending.append(source)

    def source(self, layer) -> Source:
        """Returns the weight layer whose outputs reach `layer` only through layers such as activations and pooling."""
        passed, found = [], None
        while found is None:
            passed.append(id(layer))
            producers = self.producers.get(id(layer), [])
            layer = producers[0] if len(producers) == 1 else None
            if layer is None:
                found = Source(None, skip_reasons.MERGED_INPUTS if producers else skip_reasons.DROPS_INPUTS)
            elif is_weight_layer(layer):
                found = Source(layer, "")
            elif isinstance(layer, keras.layers.InputLayer):
                found = Source(None, skip_reasons.DROPS_INPUTS)
            elif not isinstance(layer, TRANSPARENT):
                found = Source(None, skip_reasons.NO_SOURCE)
            else:
                found = self._sources.get(id(layer))  # So that a long chain is followed once.
        self._sources.update(dict.fromkeys(passed, found))
        return found

    def activation(self, layer):
        """Returns the last of the activations and normalizations that directly follow `layer`, or the layer itself."""
        return self._follow(layer, (*ACTIVATIONS, *NORMALIZATIONS))

    def activations_behind(self, layer) -> int:
        """Returns how many activations of `layer` the next layer reads for one input, after any pooling."""
        shape = self.shapes[id(self._follow(layer, TRANSPARENT))]
        return math.prod(size or 1 for size in shape[1:])

    def _follow(self, layer, kinds):
        while True:
            consumers = self.consumers.get(id(layer), [])
            if len(consumers) != 1 or not isinstance(consumers[0], kinds):
                return layer
            layer = consumers[0]


def dropout_sources(model) -> dict[int, Source]:
    """Returns, by `id`, the weight layer behind every dropout layer with a rate above 0, nested models included."""
    sources = {}
    for submodel in models_in(model):
        if has_graph(submodel):
            graph = Graph(submodel)
            for layer in submodel.layers:
                if isinstance(layer, DROPOUTS) and layer.rate > 0:
                    sources[id(layer)] = graph.source(layer)
    return sources


def pruned_dropouts(model, followed: Mapping[str, str] | None = None) -> list[tuple[DropoutRate, list[PrunedWeight]]]:
    """Returns the rate of every dropout that follows a pruned layer, with the weights of that layer.

    Args:
        model: Model, nested models are opened.
        followed: Mapping from a regular expression for names or paths of dropouts to the name or path of the layer that
            they follow, for models without a graph. Defaults to `None`, the layers that the graph shows.

    Raises:
        ValueError: If a pattern matches no dropout, or a layer has no pruned weights.
    """
    layers = layers_in(model)
    dropouts = [layer for layer in layers if isinstance(pruning_of(layer), DropoutRate)]
    sources = {key: source.layer for key, source in dropout_sources(model).items() if source.layer is not None}
    for pattern, name in (followed or {}).items():
        matched = [one for one in dropouts if any(re.fullmatch(pattern, n) for n in (one.name, one.path) if n)]
        named = [layer for layer in layers if name in (layer.name, layer.path) and pruned_weights(layer)]
        if not matched or not named:
            raise ValueError(
                "`adjust_dropout` maps patterns of dropout layers to the name or path of a pruned layer. Dropouts: "
                f"{[one.name for one in dropouts]}. Received: adjust_dropout={dict(followed or {})}, where "
                f"{name if matched else pattern!r} matches none"
            )
        sources.update({id(one): named[0] for one in matched})
    ties = [(one.pruning, pruned_weights(sources[id(one)])) for one in dropouts if id(one) in sources]
    return [(rate, weights) for rate, weights in ties if weights]
