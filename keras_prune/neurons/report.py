"""Report of the dead neurons of a model."""

from typing import NamedTuple

import numpy as np

from keras_prune.layers.weights import labels
from keras_prune.models.graph import is_weight_layer
from keras_prune.models.rebuild import plain_model
from keras_prune.neurons.data_flow import Followed, follow
from keras_prune.neurons.outputs import Connected, Unknown
from keras_prune.terminal.tables import Table, table_with_lines


class LayerNeurons(NamedTuple):
    """The dead neurons of one layer. The neurons of a convolution are its channels.

    Attributes:
        name: Path of the layer inside the model.
        neurons: Number of neurons. `None` for a layer that does not change, for the reason in `note`.
        without_inputs: Number of neurons that can go because they have no incoming connection.
        without_outputs: Number of other neurons that can go because they have no outgoing connection.
        left: Number of dead neurons that stay, for the reason in `note`.
        inputs: Number of inputs of the layer once the dead ones are gone.
        ignored_inputs: Number of inputs without a connection, such as pixels, or neurons that another layer reads.
        note: String, why dead neurons stay, and what else changes.
    """

    name: str
    neurons: int | None
    without_inputs: int = 0
    without_outputs: int = 0
    left: int = 0
    inputs: int = 0
    ignored_inputs: int = 0
    note: str = ""

    @property
    def kept(self) -> int | None:
        """Number of neurons once the dead ones are gone."""
        return None if self.neurons is None else self.neurons - self.without_inputs - self.without_outputs


class DeadNeurons:
    """The dead neurons of a model. `print` it for a table.

    Attributes:
        rows: List of `LayerNeurons`, one for each layer with connections.
        neurons, kept, left: Sums of these numbers over the layers that can be followed.

    Example:

    >>> import keras, keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, kernel_initializer="zeros", name="fc")])
    >>> dead = kp.dead_neurons(model)
    >>> dead
    <DeadNeurons: 0 of 3 neurons can go>
    >>> dead.rows[0].ignored_inputs
    4
    """

    def __init__(self, rows: list[LayerNeurons]):
        self.rows = rows
        followed = [row for row in rows if row.neurons is not None]
        self.neurons, self.kept, self.left = (
            sum(getattr(row, name) for row in followed) for name in ("neurons", "kept", "left")
        )

    def to_dict(self) -> dict:
        """Returns the report as JSON types."""
        sums = {name: getattr(self, name) for name in ("neurons", "kept", "left")}
        return sums | {"rows": [row._asdict() | {"kept": row.kept} for row in self.rows]}

    def __repr__(self):
        return f"<{type(self).__name__}: {self._title()}>"

    def __str__(self):
        numbers = ("neurons", "without inputs", "without outputs", "left", "kept", "ignored inputs")
        table = Table(self._title(), ["layer"], numbers)
        for row in self.rows:
            cells = ["-"] * 6
            if row.neurons is not None:
                counts = (row.neurons, row.without_inputs, row.without_outputs, row.left, row.kept)
                cells = [f"{count:,}" for count in counts] + [f"{row.ignored_inputs:,} of {row.inputs:,}"]
            table.add_row(row.name, *cells)
        lines = [f"{row.name}: {row.note}" for row in self.rows if row.note]
        return table_with_lines(table, lines)

    def _title(self) -> str:
        return f"{self.neurons - self.kept:,} of {self.neurons:,} neurons can go"


def dead_neurons(model) -> DeadNeurons:
    """Returns the neurons that `remove_dead_neurons` would remove, and why other dead neurons stay.

    Args:
        model: Built Sequential or Functional Keras 3 model, pruned or not. It is not changed.

    Returns:
        A `DeadNeurons`.

    Raises:
        ValueError: If the model is not built or is not a Keras 3 model.

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
        return summarize(plain, follow(plain))


def summarize(plain, followed: list[Followed]) -> DeadNeurons:
    """Returns the report of a plain model whose operations were followed."""
    followed = [one for one in followed if is_weight_layer(one.layer)]
    names = labels(plain, [one.layer for one in followed])
    return DeadNeurons([_row(names[id(one.layer)], one) for one in followed])


def _row(name, followed) -> LayerNeurons:
    _, flow, need, kept = followed
    if isinstance(flow, Unknown):
        return LayerNeurons(name, None, note=flow.reason)
    stays, notes = kept.neurons, list(need.obstacles)
    if not need.neurons.any():
        notes.append("one neuron stays, because a layer needs one")
    if kept.gains_bias:
        notes.append("a bias is added for the constants folded into it")
    ignored = kept.inputs & ~flow.used(stays) if isinstance(flow, Connected) else False
    return LayerNeurons(
        name=name,
        neurons=len(stays),
        without_inputs=int((~stays & flow.constant).sum()),
        without_outputs=int((~stays & ~flow.constant).sum()),
        left=int((stays & (flow.constant | ~need.neurons)).sum()),
        inputs=int(kept.inputs.sum()),
        ignored_inputs=int(np.sum(ignored)),
        note="; ".join(notes),
    )
