"""Find the neurons of a model that are constant, needed and kept, in three passes over its operations.

`constants` goes forward and finds the neurons whose value is the same for every input. `needed` goes back and finds the
neurons that are still read once such constants are folded into the next bias. `removals` goes forward again and finds
what stays of each layer. A graph has no cycles, so the result is the same as removing dead neurons until there are
none.
"""

import collections
from collections.abc import Sequence
from graphlib import TopologicalSorter
from typing import NamedTuple

import keras
import numpy as np

from keras_prune import _keras
from keras_prune.layers.traversal import models_in
from keras_prune.models.graph import Graph, leaf_layers
from keras_prune.neurons.outputs import Connected, Flow, Kept, Need, Passed, Unknown
from keras_prune.neurons.rules import rule_of

_IS_OUTPUT = "they are the model's outputs"
_MIXES = "its activation mixes neurons or is not a Keras activation"


class Operation(NamedTuple):
    """One operation of a model.

    Attributes:
        layer: The layer, or another operation such as `x + 1`.
        producers: Positions of the operations that it reads, in the list of all operations.
        consumers: Positions of the operations that read it.
        is_output: Whether its output is an output of the model.
        reason: Why its neurons cannot be followed from its single producer; `None` if a rule may know.
    """

    layer: keras.Operation
    producers: list[int]
    consumers: list[int]
    is_output: bool
    reason: str | None


class Followed(NamedTuple):
    """Results for one operation. `need` and `kept` are `None` if its flow is `Unknown`."""

    layer: keras.Operation
    flow: Flow
    need: Need | None
    kept: Kept | None


def follow(plain) -> list[Followed]:
    """Follows the neurons of a plain model, and of each nested model separately, in the order of its layers."""
    models = models_in(plain)
    calls = collections.Counter(id(layer) for model in models for layer in model.layers)
    shared = frozenset(key for key, count in calls.items() if count > 1)
    followed = {}
    for model in models:
        graph = operations(model, shared)
        flows = constants(graph)
        needs = needed(graph, flows)
        kept = removals(graph, flows, needs)
        for (layer, *_), flow, need, stays in zip(graph, flows, needs, kept, strict=True):
            followed[id(layer)] = Followed(layer, flow, need, stays)
    return [followed[id(layer)] for layer in leaf_layers(plain) if id(layer) in followed]


def operations(model, shared=frozenset()) -> list[Operation]:
    """Returns the operations of a model, each after its single producer. Nested models are not opened.

    Args:
        model: Plain Sequential or Functional model, without masks.
        shared: Set of the `id`s of layers that other models call too. They stay as they are.
    """
    graph = Graph(model)
    ends = [_keras.origin_of(tensor)[0] for tensor in keras.tree.flatten(model.outputs)]
    found = {id(one): one for group in (ends, *graph.producers.values(), *graph.consumers.values()) for one in group}
    producers = {key: [id(producer) for producer in graph.producers.get(key, [])] for key in found}
    # A layer that is called more than once may read its own output. Neurons are not followed there anyway.
    order = TopologicalSorter({key: keys if len(keys) == 1 else [] for key, keys in producers.items()}).static_order()
    places = {key: place for place, key in enumerate(order)}
    return [
        Operation(
            found[key],
            [places[producer] for producer in producers[key]],
            [places[id(consumer)] for consumer in graph.consumers.get(key, [])],
            any(found[key] is end for end in ends),
            _why_unknown(found[key], len(producers[key]), key in shared),
        )
        for key in places
    ]


def _why_unknown(layer, producers: int, is_shared: bool) -> str | None:
    if is_shared:
        return f"{layer.name!r} is shared by several models"
    if producers == 0:
        return ""  # The model's inputs.
    if isinstance(layer, keras.Model):
        return f"{layer.name!r} is a nested model"
    if producers > 1:
        return f"{type(layer).__name__} {layer.name!r} merges several inputs or is called more than once"
    if any(node.arguments.kwargs.get("training") for node in _keras.inbound_nodes(layer)):
        return f"{type(layer).__name__} {layer.name!r} is called with training=True"
    return None


def constants(graph: Sequence[Operation]) -> list[Flow]:
    """Returns how neurons flow through each operation, and which of them are constant."""
    flows: list[Flow] = []
    for layer, producers, _, _, reason in graph:
        if reason is None:
            rule = rule_of(layer)
            flow = rule and rule.follow(layer, flows[producers[0]].outputs)
            flows.append(flow or Unknown(f"{type(layer).__name__} {layer.name!r} cannot be followed"))
        else:
            flows.append(Unknown(reason))
    return flows


def needed(graph: Sequence[Operation], flows: Sequence[Flow]) -> list[Need | None]:
    """Returns which neurons of each operation must stay, or `None` where they cannot be followed."""
    needs: list[Need | None] = [None] * len(graph)
    for place, operation in reversed(list(enumerate(graph))):
        flow = flows[place]
        if not isinstance(flow, Unknown):
            demands = [_demand(graph[one], flows[one], needs[one]) for one in operation.consumers]
            needs[place] = _need(flow, operation.is_output, demands)
    return needs


def _need(flow: Connected | Passed, is_output: bool, demands: list[Need]) -> Need:
    if flow.outputs is None:
        return Need(np.ones(len(flow.constant), bool), [_IS_OUTPUT if is_output else _MIXES])
    obstacles = [_IS_OUTPUT] if is_output else []
    neurons = np.full(len(flow.constant), is_output)
    for demand in demands:
        neurons = neurons | demand.neurons
        obstacles += demand.obstacles
    return Need(neurons, list(dict.fromkeys(obstacles)))


def _demand(consumer: Operation, flow: Flow, need: Need | None) -> Need:
    """Returns which neurons of its producer a consumer needs, all of them if it cannot be followed."""
    if isinstance(flow, Unknown):
        return Need(np.array(True), [flow.reason])
    assert need is not None, "only an `Unknown` has no `Need`"
    obstacles = list(need.obstacles) if isinstance(flow, Passed) else []
    if flow.keeps_constants(need.neurons):
        obstacles.append(f"{consumer.layer.name!r} pads with zeros, where only a constant 0 stays constant")
    return Need(flow.reads(need.neurons), obstacles)


def removals(graph: Sequence[Operation], flows: Sequence[Flow], needs: Sequence[Need | None]) -> list[Kept | None]:
    """Returns what stays of each operation, or `None` where it stays whole because it cannot be followed."""
    kept: list[Kept | None] = []
    for operation, flow, need in zip(graph, flows, needs, strict=True):
        if isinstance(flow, Unknown) or need is None:
            kept.append(None)
            continue
        producer = operation.producers[0]
        above = None if flows[producer].outputs is None else kept[producer]
        before = np.ones(len(flow.incoming.constant), bool) if above is None else above.neurons
        if isinstance(flow, Passed):
            kept.append(Kept(before, before[flow.origin]))
        else:
            kept.append(_kept(operation.layer, flow, need, before))
    return kept


def _kept(layer, flow: Connected, need: Need, before) -> Kept:
    neurons = need.neurons.copy()
    neurons[0] |= not neurons.any()  # A layer needs at least one.
    gone = ~flow.moving & ~before
    constants = rule_of(layer).contribution(layer, np.where(gone, flow.incoming.value, 0))
    return Kept(before, neurons, constants, not layer.use_bias and bool(constants[neurons].any()))
