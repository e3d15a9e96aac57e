"""Describe the neurons at the output of one layer."""

from typing import NamedTuple

import numpy as np


class Outputs(NamedTuple):
    """The neurons of an output: which are `constant`, with which `value` (else 0), and the `axis` they lie along."""

    constant: np.ndarray
    value: np.ndarray
    axis: int

    def moving_in(self, layer) -> np.ndarray:
        """Returns which neurons are not constant for a layer that may add zeros at the borders."""
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
        """Whether some constant inputs are still read, because they are padded with zeros."""
        return bool((self.reads(needed) & self.incoming.constant).any())


class Passed(NamedTuple):
    """A layer whose neurons each come from one incoming neuron, `origin`."""

    outputs: Outputs
    incoming: Outputs
    origin: np.ndarray

    @property
    def constant(self) -> np.ndarray:
        return self.outputs.constant

    def reads(self, needed) -> np.ndarray:
        """Returns the incoming neurons that must stay if the `needed` neurons stay."""
        return np.isin(np.arange(len(self.incoming.constant)), self.origin[needed])

    def keeps_constants(self, needed) -> bool:
        """Whether incoming constants are needed, because they are padded with zeros."""
        return bool((needed & self.incoming.constant[self.origin] & ~self.constant).any())


class Unknown(NamedTuple):
    """An operation whose neurons cannot be followed, for the `reason` given."""

    reason: str
    outputs: None = None


Flow = Connected | Passed | Unknown


class Need(NamedTuple):
    """The neurons of a layer that must stay, a boolean array, and the `obstacles` that keep dead neurons."""

    neurons: np.ndarray
    obstacles: list[str]


class Kept(NamedTuple):
    """The parts of a layer that stay.

    Attributes:
        inputs: Boolean array, the neurons that it still reads.
        neurons: Boolean array, its neurons that stay.
        constants: Array, the contribution of removed constant inputs to every neuron. Zero for a `Passed` layer.
        gains_bias: Whether the layer needs a new bias for these constants.
    """

    inputs: np.ndarray
    neurons: np.ndarray
    constants: np.ndarray | float = 0.0
    gains_bias: bool = False
