"""What is benchmarked: single layers of the paper's networks, or a model of one's own with its layers."""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
from keras import ops

from keras_prune.benchmark.engine import UnsupportedModelError
from keras_prune.layers.weights import prunable_weights
from keras_prune.models.flops import connections
from keras_prune.models.graph import has_graph, leaf_layers
from keras_prune.networks import TABLES

# The dense layers of the paper's Tables 4 and 5: `(inputs, outputs)`.
LAYERS = {
    "alexnet": {"fc6": (9216, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)},
    "vgg16": {"fc6": (25088, 4096), "fc7": (4096, 4096), "fc8": (4096, 1000)},
}


@dataclasses.dataclass(frozen=True)
class Workload:
    """One thing to run.

    Attributes:
        name: String, such as `"alexnet/fc6"`.
        density: Float, share of the connections that is left.
        build: Function of a pattern, `None` or `"4x1"`, that returns the Keras model to run, or `None` if there is none
            of that pattern. Raises an `UnsupportedModelError` if no engine can run it.
    """

    name: str
    density: float
    build: Callable


def layer_workloads(name: str, densities=()) -> list[Workload]:
    """Returns dense layers of one of the paper's networks, with random weights.

    Args:
        name: String, a key of `LAYERS` for all of its layers, or one of them such as `"alexnet/fc6"`.
        densities: Floats in (0, 1]. Defaults to `()`, for every layer the paper's (Tables 4 and 5).

    Raises:
        ValueError: If an argument is none of the above.
    """
    shapes = {f"{network}/{layer}": shape for network, layers in LAYERS.items() for layer, shape in layers.items()}
    chosen = {place: shape for place, shape in shapes.items() if name in (place, place.split("/")[0])}
    if not chosen:
        raise ValueError(f"The layers are those of {sorted(LAYERS)}, or one of {list(shapes)}. Received: {name!r}")
    if not all(0 < density <= 1 for density in densities):
        raise ValueError(f"A density is a share of connections that is left, in (0, 1]. Received: {list(densities)}")
    paper = {f"{network}/{row.layer}": row.density / 100 for network in LAYERS for row in TABLES[network]}
    return [
        Workload(place, density, _random_layer(shape, density))
        for place, shape in chosen.items()
        for density in densities or [paper[place]]
    ]


def model_workloads(model) -> list[Workload]:
    """Returns a plain Keras model and, each on its own, its dense layers.

    Of a single layer there is a pattern `"4x1"` too: random blocks of the same shape and density, to see what pruning
    in blocks would bring. Whole models run only with one input and one output.
    """
    dense = [layer for layer in leaf_layers(model) if type(layer) is keras.layers.Dense]
    workloads = []
    for layer in dense:
        kernel = ops.convert_to_numpy(layer.kernel.value)
        density = np.count_nonzero(kernel) / kernel.size
        workloads.append(Workload(f"{model.name}/{layer.name}", density, _own_layer(kernel, density)))
    kept, total = connections(prunable_weights(model))
    return [Workload(model.name, kept / max(total, 1), _whole(model)), *workloads]


def _whole(model):
    def build(pattern):
        if not has_graph(model):
            raise UnsupportedModelError("of whole models, only Sequential and Functional ones are run")
        for kind in ("input", "output"):
            found = len(keras.tree.flatten(getattr(model, f"{kind}s")))
            if found != 1:
                raise UnsupportedModelError(f"whole models are run with one {kind}, and it has {found}")
            # Keras documents no way to ask for that structure.
            if isinstance(getattr(model, f"_{kind}s_struct", None), dict):
                raise UnsupportedModelError(f"whole models are run with one {kind} that is no dict")
        return None if pattern else model

    return build


def _own_layer(kernel, density):
    return lambda pattern: _random_layer(kernel.shape, density)(pattern) if pattern else _layer(kernel)


def _random_layer(shape, density):
    def build(pattern):
        random = np.random.default_rng(0)
        kernel = random.standard_normal(shape, dtype="float32")
        block = 4 if pattern == "4x1" else 1
        if shape[0] % block:
            return None
        kept = random.random((shape[0] // block, shape[1]), dtype="float32") < density
        kernel[~kept.repeat(block, axis=0)] = 0
        return _layer(kernel)

    return build


def _layer(kernel):
    model = keras.Sequential([keras.Input(kernel.shape[:1]), keras.layers.Dense(kernel.shape[1], use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    return model
