"""Masks, the state that pruning adds to a layer."""

import contextlib
import math
import warnings
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_prune import _keras
from keras_prune._shards import is_spread
from keras_prune.layers.masked_scope import OnSurvivors, behind_masks
from keras_prune.layers.traversal import PruningState
from keras_prune.layers.variables import assign, where_kept
from keras_prune.rules.budgets import Budget
from keras_prune.rules.chunks import on_host
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.shards import count
from keras_prune.rules.statistics import require_finite


class PrunedWeight:
    """One weight of a layer with its mask, both Keras variables. It is created by `prune` or `Prune`.

    Attributes:
        layer: The layer that owns the weight.
        variable: The weight.
        mask: Boolean variable of the same shape, `True` where a connection survives.
        threshold: Float32 variable of shape `()`, the threshold of the last cut.
        criterion: The `Criterion` that selects connections, or the `Budget` that the weight shares with others.
        size: Number of connections before pruning.
    """

    def __init__(self, layer, variable, mask, threshold, criterion: Criterion | Budget):
        self.layer = layer
        self.variable = variable
        self.mask = mask
        self.threshold = threshold
        self.criterion = criterion
        self.size = math.prod(variable.shape)
        self.is_read_past = False  # Whether a call of the layer did not read the Keras variable.
        self.gradient_hook: Any = None

    def __repr__(self):
        return f"<PrunedWeight path={self.path}, density={self.density:.4g}, criterion={self.criterion}>"

    @property
    def name(self) -> str:
        """Name of the weight, such as `"kernel"`."""
        return self.variable.name

    @property
    def path(self) -> str:
        """Path of the weight, such as `"sequential/dense/kernel"`."""
        return self.variable.path

    @property
    def kept(self) -> int:
        """How many connections survive."""
        return count(self.mask.value)

    @property
    def density(self) -> float:
        """The share of the connections that survive."""
        return self.kept / self.size

    @property
    def frozen(self) -> bool:
        """Whether cuts leave the weight unchanged, because it is not trained."""
        return not self.variable.trainable

    def masked(self):
        """Returns the weight with zeros in place of pruned connections, as a tensor."""
        # In the stored dtype, because the layer that reads the weight casts it.
        with behind_masks():
            return where_kept(self.mask.value, self.variable)

    def unmasked(self):
        """Returns the weight as it is stored, as a tensor or variable of the backend."""
        with behind_masks():
            return self.variable.value

    def cut(self, criterion: Criterion, strength: float = 1.0) -> "LayerCut":
        """Prunes the connections that a criterion selects, and zeroes them in the stored weight."""
        before = self.kept
        selected = criterion(self.variable.value, self.mask.value, strength)
        assign(self.mask, selected.mask)
        assign(self.threshold, np.float32(ops.convert_to_numpy(selected.threshold)))
        self.apply_mask()
        kept = count(selected.mask)
        return LayerCut(self, before - kept, kept, bool(selected.rescued))

    def show_survivors(self) -> None:
        """Makes the regularizer of the weight see only surviving connections."""
        regularizer = self.variable.regularizer
        if regularizer is not None and not isinstance(regularizer, OnSurvivors):
            self.variable.regularizer = OnSurvivors(regularizer, self.mask)

    def keep_at_zero(self) -> None:
        """Zeroes the pruned entries, and gradients, of a PyTorch parameter that is read past its Keras variable."""
        if self.is_read_past and keras.backend.backend() == "torch":
            parameter = _keras.stored_value(self.variable)
            # Through `data`: autograd refuses changes of a parameter between two calls of a layer.
            parameter.data.masked_fill_(~self.mask.value, 0.0)
            if self.gradient_hook is None and parameter.requires_grad:
                self.gradient_hook = parameter.register_hook(lambda grad: grad.masked_fill(~self.mask.value, 0.0))

    def warn_if_moved(self) -> None:
        """Warns if training has moved pruned connections of a weight that is read past its Keras variable."""
        if self.is_read_past and ops.any(ops.logical_and(self.variable.value != 0, ops.logical_not(self.mask.value))):
            warnings.warn(
                f"Training has moved pruned connections of {self.path}, which layer {self.layer.name!r} does not read "
                "as a Keras variable. They are set to zero at a cut and at the end of an epoch only. If the layer "
                "reads `_value`, read the variable itself.",
                stacklevel=2,
            )

    def show_all(self) -> None:
        """Restores the regularizer and the gradient that the weight had before pruning."""
        if self.gradient_hook is not None:
            self.gradient_hook.remove()
            self.gradient_hook = None
        if isinstance(self.variable.regularizer, OnSurvivors):
            self.variable.regularizer = self.variable.regularizer.regularizer

    def take_zeros(self) -> int:
        """Counts the zeros of a weight that was never cut as pruned, and returns their number."""
        mask, _ = zeros_as_mask(self.layer, self.variable) if self.kept == self.size else (None, None)
        if mask is None:
            return 0
        self.mask.assign(mask)
        return self.size - self.kept

    def apply_mask(self) -> None:
        """Sets the stored weight to zero where there is no connection."""
        assign(self.variable, self.masked())


class LayerCut(NamedTuple):
    """The result of a cut for one weight.

    Attributes:
        weight: The `PrunedWeight`.
        cut: How many connections were pruned.
        kept: How many are left.
        rescued: Whether the criterion would have left none, so that the largest was kept, or a budget left only one.
    """

    weight: PrunedWeight
    cut: int
    kept: int
    rescued: bool


def require_finite_weights(weights) -> None:
    """Raises a `ValueError` if a pruned or prunable weight holds NaN or infinity."""
    for weight in weights:
        require_finite(weight.variable.value, f"layer={weight.layer.name}, weight={weight.variable.name}")


def connections_of(weights) -> tuple[int, int]:
    """Returns how many connections of pruned weights survive, and how many there were: `(kept, total)`."""
    return sum(weight.kept for weight in weights), sum(weight.size for weight in weights)


class Masks(PruningState):
    """The masks of the weights that a layer owns, as its attribute `pruning`."""

    def __init__(self, layer):
        super().__init__(layer)
        self.__dict__["entries"] = []  # Past the tracker of Keras, which would save the weights a second time.

    @property
    def pruned_weights(self) -> list[PrunedWeight]:
        """The pruned weights of the layer, in the order of its variables."""
        return list(vars(self)["entries"])

    def add(self, variable, criterion: Criterion | Budget, mask=None) -> PrunedWeight:
        """Makes the mask of a weight that the layer owns, all ones unless `mask` is given."""
        index = len(self.pruned_weights)  # Not the weight's name, which a pattern of a layout may look for.
        with _scope_of(variable, self.owner()):
            mask_variable = keras.Variable(
                "ones" if mask is None else mask,
                shape=tuple(variable.shape),
                dtype="bool",
                trainable=False,
                autocast=False,
                layout=_keras.layout_of(variable),
                name=f"mask_{index}",
            )
            threshold = keras.Variable(
                "zeros", shape=(), dtype="float32", trainable=False, autocast=False, name=f"threshold_{index}"
            )
        _keras.keep_strides(mask_variable, variable)
        # As attributes: `tf.train.Checkpoint` saves no others.
        setattr(self, f"mask_{index}", mask_variable)
        setattr(self, f"threshold_{index}", threshold)
        weight = PrunedWeight(self.owner(), variable, mask_variable, threshold, criterion)
        vars(self)["entries"].append(weight)
        return weight

    def save_own_variables(self, store):
        for index, weight in enumerate(self.pruned_weights):
            store[f"mask_{index}"] = weight.mask
            store[f"threshold_{index}"] = weight.threshold

    def load_own_variables(self, store):
        names = set(store.keys())
        if names:
            expected = {f"{kind}_{i}" for kind in ("mask", "threshold") for i in range(len(self.pruned_weights))}
            if names != expected:
                raise ValueError(
                    f"The file has the masks of other weights in layer {self.owner().name!r}. Prune the same "
                    f"weights before you load it. Expected: {sorted(expected)}. Received: {sorted(names)}"
                )
            for name in sorted(names):  # JAX has to assign in the same order in every process.
                getattr(self, name).assign(store[name])
        # The weights of the layer are loaded already. The file of a plain model has no masks, so the present ones stay.
        for weight in self.pruned_weights:
            if not names and weight.take_zeros():
                warnings.warn("The file has no masks. Zeros in its weights count as pruned.", stacklevel=2)
            weight.apply_mask()


def _scope_of(variable, layer):
    """The name scope of a variable's mask, which gives each mask its own path."""
    stack = contextlib.ExitStack()
    path = variable.path.rpartition("/")[0] or layer.path or layer.name  # A PyTorch parameter has no path.
    for name in [*path.split("/"), "pruning"]:
        stack.enter_context(keras.name_scope(name))
    return stack


# Random numbers in float32 are zero about once in 10 million.
_CHANCE = 1e-5


def zeros_as_mask(layer, variable) -> tuple[Any, str | None]:
    """Returns the mask in which the zeros of a weight count as pruned, or `None` with the reason why they do not.

    Both are `None` for a weight without zeros, or with so few that they may be chance.
    """
    value, size = variable.value, math.prod(variable.shape)
    nonzero = count(value)
    if size - nonzero <= size * _CHANCE:
        return None, None
    if nonzero == 0:
        return None, "all its entries are zero"
    if isinstance(variable.constraint, keras.constraints.NonNeg):
        return None, "its constraint NonNeg makes zeros"
    for name, initializer in vars(layer).items():
        stem = name.removesuffix("_initializer")
        if stem != name and variable.name.startswith(stem) and isinstance(initializer, keras.initializers.Identity):
            return None, "its initializer Identity makes zeros"
    # The mask gets the layout of the weight if it is spread over processes.
    return (ops.not_equal(value, 0) if is_spread(value) else on_host(value) != 0), None
