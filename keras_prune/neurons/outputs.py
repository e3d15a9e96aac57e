"""Neurons at the output of one layer: what reaches them, which are needed, and which stay."""

from typing import NamedTuple

import numpy as np


class Outputs(NamedTuple):
    """The neurons of an output: which are `constant`, with which `value` (else 0), and the `axis` they lie along."""

    constant: np.ndarray
    value: np.ndarray
    axis: int

    def moving_in(self, layer) -> np.ndarray:
        """Returns which of them are not constant for a layer that may add zeros at the borders."""
        pads = getattr(layer, "padding", "valid") != "valid" and any(size > 1 for size in layer.kernel_size)
        return ~self.constant | (pads & (self.value != 0))


class Connected(NamedTuple):
    """A layer with connections between the neurons that it reads and its own.

    Attributes:
        outputs: Its `Outputs`; `None` if its activation may mix neurons.
        constant: Boolean array, its neurons that no moving input reaches.
        incoming: The `Outputs` that it reads. Where these cannot be followed, all count as moving.
        moving: Boolean array, the inputs that are not constant for this layer.
        exists: Boolean array `(inputs, neurons)`, where a connection is left.
    """

    outputs: Outputs | None
    constant: np.ndarray
    incoming: Outputs
    moving: np.ndarray
    exists: np.ndarray

    def used(self, needed) -> np.ndarray:
        """Returns the inputs with a connection to a neuron that is needed."""
        return np.any(self.exists[:, needed], axis=1)

    def reads(self, needed) -> np.ndarray:
        """Returns the inputs that cannot be replaced by a bias if the `needed` neurons stay."""
        return self.used(needed) & self.moving

    def keeps_constants(self, needed) -> bool:
        """Whether inputs that are constant are read all the same, because zeros are padded to them."""
        return bool((self.reads(needed) & self.incoming.constant).any())


class Passed(NamedTuple):
    """A layer that passes each neuron on to its own places; `origin` is the neuron that each of them comes from."""

    outputs: Outputs
    incoming: Outputs
    origin: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        return self.outputs.constant

    def reads(self, needed) -> np.ndarray:
        """Returns the incoming neurons that cannot go if the `needed` ones stay."""
        return np.isin(np.arange(len(self.incoming.constant)), self.origin[needed])

    def keeps_constants(self, needed) -> bool:
        """Whether incoming constants are needed, because zeros are padded to them."""
        return bool((needed & self.incoming.constant[self.origin] & ~self.constant).any())


class Unknown(NamedTuple):
    """An operation whose neurons cannot be followed, for the `reason` given."""

    reason: str
    outputs: None = None


Flow = Connected | Passed | Unknown


class Need(NamedTuple):
    """Which neurons of a layer cannot go, a boolean array, and the `obstacles` that keep neurons which are dead."""

    neurons: np.ndarray
    obstacles: list[str]


class Kept(NamedTuple):
    """What stays of a layer.

    Attributes:
        inputs: Boolean array, the neurons that it still reads.
        neurons: Boolean array, its neurons that stay.
        constants: Array, what the constant inputs that go add to every neuron. Zero where neurons are passed on.
        gains_bias: Whether these constants need a bias that the layer does not have.
    """

    inputs: np.ndarray
    neurons: np.ndarray
    constants: np.ndarray | float = 0.0
    gains_bias: bool = False
