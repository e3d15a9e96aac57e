"""Which neurons of a model are constant, and which are needed: one pass forward through its graph, one back.

The pass forward finds the neurons whose value is the same for every input; the pass back finds those that somebody
still needs once such constants are folded into the next bias. A graph has no cycles, so one pass each way says what
removing neurons again and again, until none is left to go, would say.
"""

from functools import cached_property
from graphlib import TopologicalSorter

import keras
import numpy as np

from keras_prune.models.graph import Graph
from keras_prune.neurons.propagation import (
    Neurons,
    bias,
    connections,
    connects,
    contribution,
    emit,
    is_depthwise,
    is_separable,
    numpy,
    pass_on,
)


class Stage:
    """An operation of the graph; this base class stands for those that cannot be followed, for the `reason` given.

    Attributes:
        layer: The operation.
        neurons: The `Neurons` that it hands on, `None` where they cannot be told apart.
        constant: Boolean array, the neurons that no moving input reaches. `None` for this class.
        needed: Boolean array, the neurons that cannot go. `None` for this class.
        obstacles: List of strings, what stands in the way of more neurons to go.
    """

    def __init__(self, layer, reason="", neurons=None, constant=None):
        self.layer = layer
        self.reason = reason
        self.neurons = neurons
        self.constant = constant
        self.needed = None if constant is None else np.zeros(constant.shape, bool)
        self.obstacles: list[str] = []

    def require(self, needed, obstacles=()):
        """Marks neurons as needed, because their values count or because of obstacles."""
        if self.neurons is not None:
            self.needed |= needed
            self.obstacles += [obstacle for obstacle in obstacles if obstacle not in self.obstacles]

    def look_back(self):
        """Tells the stage before which of its neurons are needed."""

    def shrink(self):
        """Returns what changes in the layer's config, and its new weights; `None` for a layer that stays."""
        return None


class Connected(Stage):
    """A layer with connections between the neurons that it reads and its own: the place to remove and to fold."""

    def __init__(self, layer, producer):
        self.producer = producer
        self.exists = connections(layer)
        inputs = len(self.exists)
        # What cannot be followed may move.
        self.incoming = producer.neurons or Neurons(np.zeros(inputs, bool), np.zeros(inputs), axis=-1)
        self.moving = self.incoming.moving_in(layer)
        constant = ~self.exists[self.moving].any(axis=0)
        total = bias(layer) + contribution(layer, np.where(self.moving, 0, self.incoming.value))
        super().__init__(layer, neurons=emit(layer, constant, total), constant=constant)
        if self.neurons is None:
            self.needed[:] = True
            self.obstacles.append("its activation mixes neurons or is not one of Keras' own")

    @cached_property
    def used(self):
        """Boolean array: the inputs with a connection to a neuron that is needed."""
        return self.exists[:, self.needed].any(axis=1)

    @cached_property
    def keep(self):
        """Boolean array: the neurons that stay - the needed ones, or the first where none is."""
        keep = self.needed.copy()
        keep[0] |= not keep.any()
        return keep

    @property
    def keep_inputs(self):
        """Boolean array: the inputs that stay."""
        return np.ones(len(self.exists), bool) if self.producer.neurons is None else self.producer.keep

    @cached_property
    def fold(self):
        """What the constant inputs that go add to every neuron that stays."""
        gone = ~self.moving & ~self.keep_inputs
        return contribution(self.layer, np.where(gone, self.incoming.value, 0))[self.keep]

    @property
    def gains_bias(self) -> bool:
        """Whether constants are folded into a layer that has no bias yet."""
        return not self.layer.use_bias and bool(self.fold.any())

    def look_back(self):
        needed = self.used & self.moving
        lost = (needed & self.incoming.constant).any()
        self.producer.require(needed, [_padding(self.layer)] if lost else [])

    def shrink(self):
        layer, keep, keep_inputs = self.layer, self.keep, self.keep_inputs
        if is_separable(layer):
            spread = np.repeat(keep_inputs, layer.depth_multiplier)
            weights = [
                numpy(layer.depthwise_kernel)[..., keep_inputs, :],
                numpy(layer.pointwise_kernel)[..., spread, :][..., keep],
            ]
        else:
            weights = [numpy(layer.kernel)[..., keep_inputs, :][..., keep]]
        use_bias = layer.use_bias or self.gains_bias
        if use_bias:
            weights.append(np.broadcast_to(bias(layer), keep.shape)[keep] + self.fold)
        size = "units" if isinstance(layer, keras.layers.Dense) else "filters"
        return {size: int(keep.sum()), "use_bias": use_bias}, weights


class Passing(Stage):
    """A layer that hands each neuron on to places of its own; `origin` says from which neuron each of them comes."""

    def __init__(self, layer, producer, neurons, origin):
        self.producer = producer
        super().__init__(layer, neurons=neurons, constant=neurons.constant)
        self.origin = origin

    @property
    def keep(self):
        """Boolean array: the neurons that stay."""
        return self.producer.keep[self.origin]

    def look_back(self):
        producer = self.producer
        needed = np.zeros(producer.needed.shape, bool)
        needed[self.origin[self.needed]] = True
        lost = (self.needed & producer.neurons.constant[self.origin] & ~self.constant).any()
        producer.require(needed, self.obstacles + ([_padding(self.layer)] if lost else []))

    def shrink(self):
        weights = [numpy(variable) for variable in self.layer.variables]
        if is_depthwise(self.layer):
            kernel, *rest = weights
            weights = [kernel[..., self.producer.keep, :], *(weight[self.keep] for weight in rest)]
        elif isinstance(self.layer, keras.layers.BatchNormalization):
            weights = [weight[self.keep] for weight in weights]
        return {}, weights


def trace(model, shared=frozenset()) -> dict[int, Stage]:
    """Returns the stages of a model by the `id` of their operation, nested models unopened.

    Args:
        model: Plain Sequential or Functional model, without masks.
        shared: Set of the `id`s of layers that other models call too. They stay as they are.
    """
    graph = Graph(model)
    ends = [tensor._keras_history.operation for tensor in keras.tree.flatten(model.outputs)]
    operations = {id(operation): operation for operation in ends}
    for neighbours in (*graph.producers.values(), *graph.consumers.values()):
        operations.update({id(operation): operation for operation in neighbours})
    producers = {key: [id(producer) for producer in graph.producers.get(key, [])] for key in operations}
    # A layer that is called more than once may read what it wrote; neurons are not followed there anyway.
    order = TopologicalSorter({key: keys if len(keys) == 1 else [] for key, keys in producers.items()}).static_order()
    stages: dict[int, Stage] = {}
    for key in order:
        stages[key] = (
            Stage(operations[key], f"{operations[key].name!r} is shared by several models")
            if key in shared
            else _stage(operations[key], [stages.get(producer) for producer in producers[key]])
        )
    for operation in ends:
        stages[id(operation)].require(True)
        stages[id(operation)].obstacles = ["they are the model's outputs"]
    for key, stage in stages.items():
        if stage.reason:
            for producer in producers[key]:
                stages[producer].require(True, [stage.reason])
    for stage in reversed(stages.values()):
        stage.look_back()
    return stages


def _stage(layer, producers) -> Stage:
    described = f"{type(layer).__name__} {layer.name!r}"
    if not producers:
        return Stage(layer)
    if isinstance(layer, keras.Model):
        return Stage(layer, f"{layer.name!r} is a model of its own")
    if len(producers) > 1:
        return Stage(layer, f"{described} merges several inputs or is called more than once")
    if layer._inbound_nodes[0].arguments.kwargs.get("training"):
        return Stage(layer, f"{described} is called with training=True")
    (producer,) = producers
    if connects(layer, producer.neurons):
        return Connected(layer, producer)
    passed = producer.neurons and pass_on(layer, producer.neurons)
    return Passing(layer, producer, *passed) if passed else Stage(layer, f"{described} cannot be followed")


def _padding(layer) -> str:
    return f"{layer.name!r} pads with zeros, where only a constant 0 stays constant"
