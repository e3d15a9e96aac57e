"""Workloads of the benchmark: single layers of the paper's networks, or a model with its layers."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_prune import _keras
from keras_prune.benchmark.engine import UnsupportedModelError
from keras_prune.layers.weights import prunable_weights
from keras_prune.models.flops import connections
from keras_prune.models.graph import has_graph, leaf_layers
from keras_prune.networks import TABLES
from keras_prune.rules.patterns import Pattern

# The dense layers of the paper's Tables 4 and 5: `(inputs, outputs)`.
LAYERS = {
    "alexnet": {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)},
    "vgg16": {"fc6": (25088, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)},
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """A model for the engines to run.

    Attributes:
        name: String, such as `"alexnet/fc6"`.
        density: Float, share of the connections that survive.
        build: Function that takes a `Pattern` and returns the Keras model, pruned in this pattern, or `None` if the
            model cannot be pruned in it. Raises an `UnsupportedModelError` if no engine can run the model.
    """

    name: str
    density: float
    build: Callable[[Pattern], keras.Model | None]


def layer_workloads(name: str, densities=()) -> list[Workload]:
    """Returns dense layers of one of the paper's networks, with random weights.

    Args:
        name: String, a key of `LAYERS` for all layers of the network, or a single layer such as `"alexnet/fc6"`.
        densities: Floats in (0, 1]. Defaults to `()`, the density of each layer in the paper (Tables 4 and 5).

    Raises:
        ValueError: If `name` is not a network or layer of `LAYERS`, or a density is not in (0, 1].

    Example:

    >>> from keras_prune.benchmark.workloads import layer_workloads
    >>> [(workload.name, workload.density) for workload in layer_workloads("alexnet")]
    [('alexnet/fc6', 0.09), ('alexnet/fc7', 0.09), ('alexnet/fc8', 0.25)]
    """
    shapes = {f"{network}/{layer}": shape for network, layers in LAYERS.items() for layer, shape in layers.items()}
    chosen = {place: shape for place, shape in shapes.items() if name in (place, place.split("/")[0])}
    if not chosen:
        raise ValueError(f"`name` must be one of {sorted(LAYERS)} or {list(shapes)}. Received: name={name!r}")
    if not all(0 < density <= 1 for density in densities):
        raise ValueError(f"`densities` must be in (0, 1]. Received: densities={list(densities)}")
    paper = {f"{network}/{row.layer}": row.density / 100 for network in LAYERS for row in TABLES[network]}
    return [
        Workload(place, density, _random_layer(shape, density))
        for place, shape in chosen.items()
        for density in densities or [paper[place]]
    ]


def model_workloads(model) -> list[Workload]:
    """Returns a plain Keras model as one workload, and each of its dense layers as another.

    In a pattern of blocks, a single layer has random weights of the same shape and density. They show what pruning in
    blocks would gain. Whole models must have one input and one output.
    """
    dense = [layer for layer in leaf_layers(model) if type(layer) is keras.layers.Dense]
    workloads = []
    for layer in dense:
        kernel = ops.convert_to_numpy(layer.kernel.value)
        density = int(np.count_nonzero(kernel)) / kernel.size
        workloads.append(Workload(f"{model.name}/{layer.name}", density, _own_layer(kernel, density)))
    kept, total = connections(prunable_weights(model))
    return [Workload(model.name, kept / max(total, 1), _whole(model)), *workloads]


def _whole(model):
    def build(pattern):
        if not has_graph(model):
            raise UnsupportedModelError("only Sequential and Functional models are run as a whole")
        for kind, structure in zip(("input", "output"), _keras.graph_structures(model), strict=True):
            count = len(keras.tree.flatten(structure))
            if count != 1 or isinstance(structure, dict):
                form = f"a dict of {count}" if isinstance(structure, dict) else count
                raise UnsupportedModelError(f"a whole model must have a single {kind}, not {form}")
        return model if pattern == Pattern() else None

    return build


def _own_layer(kernel, density):
    return lambda pattern: _layer(kernel) if pattern == Pattern() else _random_layer(kernel.shape, density)(pattern)


def _random_layer(shape, density):
    def build(pattern):
        if shape[0] % pattern.rows:
            return None
        random = np.random.default_rng(0)
        kernel, dense = random.standard_normal(shape, dtype="float32"), np.ones(shape, "bool")
        units, _ = pattern.units(np.abs(kernel), dense)
        kernel[~pattern.expand(random.random(units.shape, dtype="float32") < density, dense)] = 0
        return _layer(kernel)

    return build


def _layer(kernel):
    model = keras.Sequential([keras.Input(kernel.shape[:1]), keras.layers.Dense(kernel.shape[1], use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    return model
