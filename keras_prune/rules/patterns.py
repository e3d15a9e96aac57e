"""Sparsity patterns, which are groups of connections that are pruned together.

A criterion ranks the units of its pattern: single connections, blocks, or the connections that a group of M may keep.
Patterns see every weight as a matrix of inputs by outputs. The last axis is the outputs, and the flattened axes before
it are the inputs. In a convolution these are the patch, with channels last. Patterns are pure functions of
NumPy arrays.
"""

import dataclasses
import math
import numbers
from typing import Any

import keras
import numpy as np


@dataclasses.dataclass(frozen=True)
class Pattern:
    """Single connections, the default of every criterion, and the base class of patterns.

    Example:

    >>> import keras_prune as kp
    >>> score, left = kp.Pattern().units(np.array([3.0, 1.0]), mask=np.array([True, False]))
    >>> score
    array([ 3., -1.])
    """

    @property
    def rows(self) -> int:
        """How many neighbouring inputs belong together. Weights are processed in multiples of them."""
        return 1

    def at(self, strength: float) -> "Pattern":
        """Returns the pattern of a cut at a strength in (0, 1]."""
        return self

    def units(self, magnitude, mask) -> tuple[Any, Any]:
        """Returns the scores of the units and how many connections each has left, arrays of one shape.

        Args:
            magnitude: Array of non-negative floats.
            mask: Boolean array of the same shape, the connections that are left.

        Returns:
            Scores, -1 where no connection is left, and counts. For single connections, the mask is the count.
        """
        return _score(magnitude, mask), mask

    def expand(self, chosen, mask):
        """Returns which of the connections in `mask` belong to the `chosen` units, a boolean array."""
        return np.logical_and(mask, chosen)

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        """Builds the pattern that `get_config` described."""
        return cls(**config)


def require_pattern(pattern: Pattern | None) -> Pattern:
    """Returns a pattern. `None` is single connections, and anything else raises a `ValueError`."""
    if not isinstance(pattern, (Pattern, type(None))):
        raise ValueError(
            "`pattern` must be a Pattern, such as Blocks(block_size=(4, 1)) or NOfM(kept=2, of=4). "
            f"Received: pattern={pattern!r}"
        )
    return pattern or Pattern()


@keras.saving.register_keras_serializable(package="keras_prune")
@dataclasses.dataclass(frozen=True)
class Blocks(Pattern):
    """Blocks of connections that are pruned or kept as a whole.

    A block of `(4, 1)` is four neighbouring inputs of one output, which the sparse kernel of LiteRT needs. A block of
    `(1, 4)` is four neighbouring outputs of one input. Blocks start at the first input and output. The last ones are
    smaller if the shape of the weight is not a multiple of the block.

    Args:
        block_size: Tuple of two integers of at least 1, inputs and outputs.
        reduction: `"mean"` or `"max"`, the score of a block from its magnitudes. The mean is over all places of the
            block in the weight. Pruned connections count as 0. Defaults to `"mean"`.

    Raises:
        ValueError: If `block_size` is not two integers of at least 1, or `reduction` is invalid.

    Example:

    >>> import keras_prune as kp
    >>> weight = np.array([[1.0, 9.0], [2.0, 0.0], [3.0, 4.0]])
    >>> kp.TargetSparsity(0.5, pattern=kp.Blocks((2, 1)))(weight).mask
    array([[False,  True],
           [False,  True],
           [False,  True]])
    """

    block_size: tuple[int, int]
    reduction: str = "mean"

    def __post_init__(self):
        size = self.block_size
        if not (isinstance(size, (tuple, list)) and len(size) == 2 and all(map(_is_count, size))):
            raise ValueError(
                "`block_size` must be a tuple of two integers of at least 1, inputs and outputs, such as (4, 1). In a "
                f"convolution, the patch is one axis of inputs. Received: block_size={size!r}"
            )
        if self.reduction not in ("mean", "max"):
            raise ValueError(
                f'`reduction` must be "mean" or "max", the score of a block from its magnitudes. '
                f"Received: reduction={self.reduction!r}"
            )
        object.__setattr__(self, "block_size", (int(size[0]), int(size[1])))  # JSON has no tuples.

    @property
    def rows(self):
        return self.block_size[0]

    def units(self, magnitude, mask):
        magnitudes = self._by_block(np.multiply(magnitude, mask))
        if self.reduction == "max":
            score = np.max(magnitudes, axis=(1, 3))
        else:
            inputs, outputs = (
                np.minimum(block, size - np.arange(0, size, block))
                for size, block in zip(_matrix_shape(mask), self.block_size, strict=True)
            )
            score = np.divide(np.sum(magnitudes, axis=(1, 3)), np.outer(inputs, outputs).astype("float32"))
        left = np.sum(self._by_block(mask), axis=(1, 3))
        return _score(score, left > 0), left

    def expand(self, chosen, mask):
        inputs, outputs = _matrix_shape(mask)
        chosen = np.repeat(np.repeat(chosen, self.block_size[0], axis=0), self.block_size[1], axis=1)
        return np.logical_and(mask, np.reshape(chosen[:inputs, :outputs], mask.shape))

    def _by_block(self, array):
        """Returns an array of shape `(blocks, block inputs, blocks, block outputs)`, padded with zeros."""
        shape = _matrix_shape(array)
        blocks = [math.ceil(size / block) for size, block in zip(shape, self.block_size, strict=True)]
        missing = [n * block - size for n, block, size in zip(blocks, self.block_size, shape, strict=True)]
        padded = np.pad(np.reshape(array, shape), [(0, missing[0]), (0, missing[1])])
        return np.reshape(padded, (blocks[0], self.block_size[0], blocks[1], self.block_size[1]))


@keras.saving.register_keras_serializable(package="keras_prune")
@dataclasses.dataclass(frozen=True)
class NOfM(Pattern):
    """Keeps at most the `kept` largest connections of every `of` neighbouring inputs of an output.

    The criterion may prune more of them. A cut at strength `s` prunes `(of - kept) x s` connections of each group,
    rounded up. Among equal magnitudes, the lower input survives. The last group is smaller if the number of inputs is
    not a multiple of `of`, and also keeps up to `kept`.

    Args:
        kept: Integer of at least 1, how many connections of a group may survive.
        of: Integer above `kept`, the size of a group.

    Raises:
        ValueError: If `kept` and `of` are not integers with `1 <= kept < of`.

    Example:

    >>> import keras_prune as kp
    >>> weight = np.array([[1.0, 1.0], [2.0, 9.0], [3.0, 8.0], [4.0, 7.0]])
    >>> kp.TargetSparsity(0.5, pattern=kp.NOfM(kept=2, of=4))(weight).mask  # Known as 2:4.
    array([[False, False],
           [False,  True],
           [ True,  True],
           [ True, False]])
    """

    kept: int
    of: int

    def __post_init__(self):
        if not (_is_count(self.kept) and _is_count(self.of) and self.kept < self.of):
            raise ValueError(
                "`kept` and `of` must be integers with 1 <= kept < of, such as kept=2, of=4. "
                f"Received: kept={self.kept!r}, of={self.of!r}"
            )

    @property
    def rows(self):
        return self.of

    def at(self, strength):
        cut = math.ceil((self.of - self.kept) * strength)
        return NOfM(self.of - cut, self.of)

    def units(self, magnitude, mask):
        score = _score(magnitude, mask)
        inputs, outputs = _matrix_shape(mask)
        groups = math.ceil(inputs / self.of)
        padded = np.pad(np.reshape(score, (inputs, outputs)), [(0, groups * self.of - inputs), (0, 0)])
        grouped = np.reshape(padded, (groups, self.of, outputs))
        # The rank within a group counts larger connections, and equal ones of a lower input.
        position = np.arange(self.of).reshape(1, self.of, 1)
        rank = 0
        for other in range(self.of):
            value = grouped[:, other : other + 1]
            before = np.logical_or(value > grouped, np.logical_and(value == grouped, other < position))
            rank = rank + np.where(before, 1, 0)
        first = np.reshape(rank < self.kept, (groups * self.of, outputs))[:inputs]
        left = np.logical_and(mask, np.reshape(first, mask.shape))
        return _score(score, left), left


def _score(magnitude, mask) -> np.ndarray:
    """Returns the magnitudes, and -1 where there is no connection.

    `np.where` takes 5 times as long for a random mask, whose entries a processor cannot predict.
    """
    kept = -mask.astype(f"i{magnitude.itemsize}")  # All bits are ones where a connection is left.
    bits, none = magnitude.view(kept.dtype), magnitude.dtype.type(-1).view(kept.dtype)
    return ((bits ^ none) & kept ^ none).view(magnitude.dtype)


def _matrix_shape(array) -> tuple[int, int]:
    return math.prod(array.shape[:-1]), array.shape[-1]


def _is_count(value) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and int(value) >= 1
