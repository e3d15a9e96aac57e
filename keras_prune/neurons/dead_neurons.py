"""Dead neurons: what they are, and their removal."""

import collections
from typing import NamedTuple

from rich.table import Table

from keras_prune.analysis.tables import table_with_lines
from keras_prune.layers.traversal import models_in
from keras_prune.models.graph import is_weight_layer, leaf_layers
from keras_prune.models.rebuild import plain_model, rebuild
from keras_prune.neurons.flow import Connected, trace


class LayerNeurons(NamedTuple):
    """The dead neurons of one layer; a convolution's neurons are its channels.

    Attributes:
        layer: Layer name.
        neurons: How many it has; `None` for a layer that is left as it is, for the reason in `note`.
        without_inputs: How many can go because no connection leads into them.
        without_outputs: How many others can go because no connection leads on from them.
        left: How many are known to be dead and stay all the same, for the reason in `note`.
        inputs: How many inputs the layer has when the dead ones are gone.
        ignored_inputs: How many of those it has no connection to: pixels, or neurons that stay for something else.
        note: What stands in the way of more, and what else changes.
    """

    layer: str
    neurons: int | None
    without_inputs: int = 0
    without_outputs: int = 0
    left: int = 0
    inputs: int = 0
    ignored_inputs: int = 0
    note: str = ""

    @property
    def kept(self) -> int:
        """How many neurons the layer has when the dead ones are gone."""
        return self.neurons - self.without_inputs - self.without_outputs


class DeadNeurons:
    """The dead neurons of a model; `print` it for a table.

    Attributes:
        rows: List of `LayerNeurons`, one for each layer with connections.
        neurons, kept, left: Their sums over the layers that are not left as they are.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros", name="fc")])
    >>> [(row.layer, row.ignored_inputs) for row in kp.dead_neurons(model).rows]
    [('fc', 4)]
    """

    def __init__(self, rows: list[LayerNeurons]):
        self.rows = rows
        followed = [row for row in rows if row.neurons is not None]
        self.neurons = sum(row.neurons for row in followed)
        self.kept = sum(row.kept for row in followed)
        self.left = sum(row.left for row in followed)

    def __str__(self):
        table = Table(title=f"{self.neurons - self.kept:,} of {self.neurons:,} neurons can go")
        table.add_column("layer")
        for heading in ("neurons", "without inputs", "without outputs", "left", "kept", "ignored inputs"):
            table.add_column(heading, justify="right")
        for row in self.rows:
            cells = ["-"] * 6
            if row.neurons is not None:
                counts = (row.neurons, row.without_inputs, row.without_outputs, row.left, row.kept)
                cells = [f"{count:,}" for count in counts] + [f"{row.ignored_inputs:,} of {row.inputs:,}"]
            table.add_row(row.layer, *cells)
        lines = [f"{row.layer}: {row.note}" for row in self.rows if row.note]
        return table_with_lines(table, lines, soft_wrap=True)


def dead_neurons(model) -> DeadNeurons:
    """Finds the neurons that `remove_dead_neurons` would remove, and says which stay and why.

    Args:
        model: Built Sequential or Functional Keras 3 model, pruned or not. It is not changed.

    Returns:
        A `DeadNeurons`.

    Raises:
        ValueError: If the model is not built or not of Keras 3.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> import numpy as np
    >>> hidden = keras.layers.Dense(3, "relu", name="hidden")
    >>> head = keras.layers.Dense(2, name="head")
    >>> model = keras.Sequential([keras.Input((3,)), hidden, head])
    >>> hidden.set_weights([np.array([[1, 1, 0], [1, 1, 0], [0, 0, 0]]), np.zeros(3)])
    >>> head.set_weights([np.array([[1, 1], [0, 0], [1, 1]]), np.zeros(2)])
    >>> print(kp.dead_neurons(model))
                                    2 of 5 neurons can go
    ┏━━━━━━━━┳━━━━━━━━━┳━━━━━━━━━━━━━━━━┳━━━━━━━━━━━━━━━━━┳━━━━━━┳━━━━━━┳━━━━━━━━━━━━━━━━┓
    ┃ layer  ┃ neurons ┃ without inputs ┃ without outputs ┃ left ┃ kept ┃ ignored inputs ┃
    ┡━━━━━━━━╇━━━━━━━━━╇━━━━━━━━━━━━━━━━╇━━━━━━━━━━━━━━━━━╇━━━━━━╇━━━━━━╇━━━━━━━━━━━━━━━━┩
    │ hidden │       3 │              1 │               1 │    0 │    1 │         1 of 3 │
    │ head   │       2 │              0 │               0 │    0 │    2 │         0 of 1 │
    └────────┴─────────┴────────────────┴─────────────────┴──────┴──────┴────────────────┘
    head: they are the model's outputs
    """
    with plain_model(model) as plain:
        return _count(_stages(plain))


def remove_dead_neurons(model, verbose: int = 1):
    """Returns a smaller model without the neurons that have no inputs or no outputs left; its outputs are the same.

    This ends a pruning (Han et al. 2015, section 3.5): a neuron goes with all its other connections, which may be the
    last ones of others, until none is left to go. A neuron without inputs still emits a constant, its activation of
    the bias; that is folded into the bias of the next layer (one is added to a layer without), so that the outputs
    are equal up to the rounding of floating-point sums.

    Neurons, in a convolution its channels, are followed through `Dense`, convolutions, activations that act on each
    neuron by itself, `BatchNormalization`, pooling, zero padding, `Flatten` and dropout. Where that ends - at a merge,
    a recurrent or a shared layer, a normalization over neurons, or where zero padding breaks a constant - they stay,
    and `dead_neurons(model)` says so. The model's inputs and outputs stay, and every layer keeps at least one neuron.

    Args:
        model: Built Sequential or Functional Keras 3 model, pruned or not. It is not changed.
        verbose: 1 prints one line that says what was removed, 0 none. Defaults to `1`.

    Returns:
        A plain model of the same class with the same layer names, smaller `units` and `filters`. A compiled model
        comes back compiled with the same settings and a fresh optimizer.

    Raises:
        ValueError: If the model is not built or not of Keras 3.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> import numpy as np
    >>> hidden = keras.layers.Dense(3, "relu", name="hidden")
    >>> head = keras.layers.Dense(1, name="head")
    >>> model = keras.Sequential([keras.Input((2,)), hidden, head])
    >>> hidden.set_weights([np.array([[1, 0, 1], [1, 0, 0]]), np.array([0, 3, 0])])  # The second emits relu(3).
    >>> head.set_weights([np.array([[1], [2], [1]]), np.array([0.5])])
    >>> small = kp.remove_dead_neurons(model)
    Removed 1 of 4 neurons: hidden 3 -> 2.
    >>> float(small.get_layer("head").bias[0])
    6.5
    """
    with plain_model(model) as plain:
        stages = _stages(plain)
        small = _shrunk(plain, {id(stage.layer): change for stage in stages if (change := stage.shrink())})
        dead = _count(stages)
    if verbose:
        _tell(dead)
    return small


def _shrunk(plain, changes):
    smaller = []

    def shrink(layer, copy_of):
        if id(layer) not in changes:
            return copy_of(layer)
        config, weights = changes[id(layer)]
        copy = type(layer).from_config(layer.get_config() | config)
        smaller.append((copy, weights))
        return copy

    small = rebuild(plain, shrink)
    for layer, weights in smaller:
        for variable, weight in zip(layer.variables, weights, strict=True):
            variable.assign(weight)
    return small


def _stages(plain) -> list:
    models = models_in(plain)
    counts = collections.Counter(id(layer) for model in models for layer in model.layers)
    shared = {key for key, count in counts.items() if count > 1}
    stages = {key: stage for model in models for key, stage in trace(model, shared).items()}
    return [stages[id(layer)] for layer in leaf_layers(plain) if id(layer) in stages]


def _count(stages) -> DeadNeurons:
    return DeadNeurons([_row(stage) for stage in stages if is_weight_layer(stage.layer)])


def _row(stage) -> LayerNeurons:
    if stage.needed is None:
        return LayerNeurons(stage.layer.name, None, note=stage.reason)
    gone, constant = ~stage.keep, stage.constant
    notes, inputs, used = list(stage.obstacles), stage.keep, True
    if not stage.needed.any():
        notes.append("one neuron stays, for a layer needs one")
    if isinstance(stage, Connected):
        inputs, used = stage.keep_inputs, stage.used
        if stage.gains_bias:
            notes.append("a bias is added for the constants folded into it")
    return LayerNeurons(
        layer=stage.layer.name,
        neurons=len(gone),
        without_inputs=int((gone & constant).sum()),
        without_outputs=int((gone & ~constant).sum()),
        left=int((~gone & (constant | ~stage.needed)).sum()),
        inputs=int(inputs.sum()),
        ignored_inputs=int((inputs & ~used).sum()),
        note="; ".join(notes),
    )


def _tell(dead: DeadNeurons) -> None:
    line = f"Removed {dead.neurons - dead.kept:,} of {dead.neurons:,} neurons"
    shrunk = [
        f"{row.layer} {row.neurons:,} -> {row.kept:,}" for row in dead.rows if row.neurons and row.kept < row.neurons
    ]
    if shrunk:
        line += f": {', '.join(shrunk)}"
    if dead.left:
        line += f"; dead ones that stay: {dead.left:,}, and keras_prune.dead_neurons(model) says why"
    print(f"{line}.")
