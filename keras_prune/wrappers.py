"""The wrapper: a layer that holds what pruning adds to another - masks and thresholds."""

import functools
import itertools
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from keras_prune.criteria import Criterion, StdThreshold
from keras_prune.masking import MaskedScope, OnSurvivors
from keras_prune.pieces import count

# Weights of two or more dimensions that are still no connections between neurons: the bias of a GRU or of multi-head
# attention, the scale of a normalisation over several axes, the slopes of a PReLU.
_NOT_CONNECTIONS = ("bias", "gamma", "beta", "alpha", "scale")


class PrunedWeight(NamedTuple):
    """One prunable weight of a wrapped layer with what belongs to it, all of them Keras variables."""

    name: str
    variable: Any
    mask: Any
    threshold: Any

    def masked(self):
        """The weight with zeros where there is no connection, as a tensor."""
        return ops.where(self.mask.value, self.variable.value, 0.0)


class LayerCut(NamedTuple):
    """What a cut did to one weight: `cut` went, `kept` are left; `rescued` if the rule would have left none."""

    weight: PrunedWeight
    cut: int
    kept: int
    rescued: bool


def prunable_variables(layer) -> list:
    """Returns the variables of a layer whose entries are connections: trainable, two or more dimensions, no bias."""
    # A frozen layer keeps its masks when it is saved and loaded, so its flag must not change what is prunable. Keras
    # files a variable by what it was made to be.
    made_trainable = {id(variable) for inner in layer._flatten_layers() for variable in inner._trainable_variables}
    return [
        variable
        for variable in layer.weights
        if (variable.trainable or (not layer.trainable and id(variable) in made_trainable))
        and len(variable.shape) >= 2
        and "float" in str(variable.dtype)
        and not variable.name.endswith(_NOT_CONNECTIONS)
    ]


@keras.saving.register_keras_serializable(package="keras_prune")
class Prune(keras.layers.Wrapper):
    """Wraps a layer so that it computes with the connections that its masks leave.

    Until the first cut the outputs are bit for bit those of the wrapped layer. Masks (one boolean per connection) and
    the criterion are saved with the model. Any layer will do: every trainable weight of two or more dimensions is
    masked, biases and normalisation scales are not.

    Args:
        layer: Keras layer, built or not.
        criterion: A `Criterion`. Defaults to `None`, `StdThreshold(quality=1.0)`.

    Input shape: that of `layer`, such as `(batch, features)` for a `Dense`.

    Output shape: that of `layer`, such as `(batch, units)` for a `Dense`.

    Raises:
        ValueError: If `layer` is no Keras layer, is pruned already, or has no connections.

    Example:

    >>> import keras_prune as kp
    >>> layer = kp.Prune(keras.layers.Dense(2, use_bias=False), kp.TargetSparsity(0.75))
    >>> layer(np.ones((1, 4))).shape == (1, 2)
    True
    >>> [(cut.weight.name, cut.cut, cut.kept) for cut in layer.cut()]
    [('kernel', 6, 2)]
    >>> layer.density
    0.25
    """

    def __init__(self, layer, criterion: Criterion | None = None, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "Prune wraps a layer, such as keras.layers.Dense(10), and is then called on a tensor. "
                f"Received: layer={layer!r} of type {type(layer).__name__}"
            )
        if isinstance(layer, (Prune, keras.Model)):
            raise ValueError(
                "Prune wraps one layer that is not pruned yet; keras_prune.prune(model) wraps the layers of a whole "
                f"model. Received: layer={layer!r}"
            )
        if not isinstance(criterion, (Criterion, type(None))):
            raise ValueError(
                "criterion must be a Criterion such as StdThreshold(quality=1.0) or TargetSparsity(0.9). "
                f"Received: criterion={criterion!r}"
            )
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        # Keras reads off the signature of `call` which arguments are tensors or masks, so it must be the layer's own.
        self.call = functools.update_wrapper(functools.partial(self.call), layer.call)
        super().__init__(layer, **kwargs)
        self.autocast = False  # The layer casts for itself, and a layer inside it by a dtype of its own.
        self.criterion = StdThreshold() if criterion is None else criterion
        self.supports_masking = layer.supports_masking
        self._masks: list = []
        self._thresholds: list = []
        self._positions: list[int] = []
        if layer.built and layer.weights:
            self._add_masks()
            self.built = True

    def build(self, input_shape=None):
        if type(self.layer).build is keras.Layer.build:
            # A layer without a `build` of its own makes its weights when it is first called.
            inputs = lambda shape: keras.Input(batch_shape=shape, dtype=self.layer.input_dtype)  # noqa: E731
            self.layer(keras.tree.map_shape_structure(inputs, input_shape))
        super().build(input_shape)
        if not self._masks:
            self._add_masks()

    def _add_masks(self):
        variables = prunable_variables(self.layer)
        if not variables:
            raise ValueError(
                "Prune needs a layer with connections, a trainable weight of two or more dimensions that is no bias. "
                "Leave this one unwrapped. "
                f"Received: layer={self.layer!r} with weights {[variable.name for variable in self.layer.weights]}"
            )
        # Positions, not references: a list of variables set on a layer would be tracked and saved a second time.
        self._positions = [i for i, w in enumerate(self.layer.weights) if any(w is v for v in variables)]
        for variable in variables:
            self._masks.append(
                self.add_weight(
                    shape=variable.shape,
                    initializer="ones",
                    dtype="bool",
                    trainable=False,
                    name=f"{variable.name}_mask",
                )
            )
            if variable.regularizer is not None:
                variable.regularizer = OnSurvivors(variable.regularizer, self._masks[-1])
            self._thresholds.append(
                self.add_weight(
                    shape=(),
                    initializer="zeros",
                    dtype="float32",
                    trainable=False,
                    autocast=False,
                    name=f"{variable.name}_threshold",
                )
            )

    def call(self, *args, **kwargs):
        with MaskedScope([(weight.variable, weight.masked()) for weight in self.pruned_weights]) as scope:
            outputs = self.layer(*args, **kwargs)
        # What the layer changed meanwhile - batch statistics, seeds, recurrent states - and the losses that it added.
        for variable, value in scope.updates.values():
            variable.assign(value)
        for loss in scope.losses:
            # In a scope, as on JAX, the loss is known as one of the wrapped layer already and would count twice here.
            (scope.original_scope or self).add_loss(loss)
        return outputs

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask):
        return self.layer.compute_mask(inputs, previous_mask)

    @property
    def pruned_weights(self) -> list[PrunedWeight]:
        """The prunable weights of the wrapped layer with their masks, in the order of `layer.weights`."""
        weights = [self.layer.weights[position] for position in self._positions]
        if any(tuple(w.shape) != tuple(mask.shape) for w, mask in zip(weights, self._masks, strict=True)):
            raise ValueError(
                "The layer inside a wrapper must keep its weights, and something has changed them, such as "
                "model.quantize: call keras_prune.strip(model) before. "
                f"Received: layer={self.layer.name!r} with weights {[weight.name for weight in self.layer.weights]}"
            )
        paths = [weight.path.split("/") for weight in weights]
        folders = zip(*(path[:-1] for path in paths), strict=False)
        shared = len(list(itertools.takewhile(lambda names: len(set(names)) == 1, folders)))
        return [
            PrunedWeight("/".join(path[shared:]), weight, mask, threshold)
            for path, weight, mask, threshold in zip(paths, weights, self._masks, self._thresholds, strict=True)
        ]

    @property
    def frozen(self) -> bool:
        """Whether no cut takes anything away, because this wrapper or the layer in it is not trainable."""
        return not (self.trainable and self.layer.trainable)

    @property
    def connections(self) -> tuple[int, int]:
        """How many connections survive, and how many there were: `(kept, total)`."""
        kept = sum(count(mask.value) for mask in self._masks)
        return kept, sum(int(np.prod(mask.shape)) for mask in self._masks)

    @property
    def density(self) -> float:
        """The share of the connections that survive."""
        kept, total = self.connections
        return kept / total

    def require_finite(self) -> None:
        """Raises a `ValueError` that names the layer if a weight holds NaN or infinity: no threshold could be taken."""
        for weight in self.pruned_weights:
            if not ops.all(ops.isfinite(weight.variable.value)):
                raise ValueError(
                    "A cut ranks connections by their magnitude and needs finite weights; NaN or infinity usually "
                    f"means that training has diverged: lower the learning rate. Received: layer={self.name}, "
                    f"weight={weight.name}"
                )

    def cut(self, strength: float = 1.0) -> list[LayerCut]:
        """Cuts the connections that the criterion selects, and zeroes them in the stored weights.

        Args:
            strength: Float in (0, 1]. Defaults to `1.0`.

        Returns:
            A list with a `LayerCut` for every prunable weight.

        Raises:
            ValueError: If a weight holds NaN or infinity, or `strength` lies outside (0, 1].
        """
        self.require_finite()
        cuts = []
        for weight in self.pruned_weights:
            before = count(weight.mask.value)
            selected = self.criterion(weight.variable.value, weight.mask.value, strength)
            weight.mask.assign(selected.mask)
            weight.threshold.assign(selected.threshold)
            kept = count(weight.mask.value)
            cuts.append(LayerCut(weight, before - kept, kept, bool(selected.rescued)))
        self.apply_masks()
        return cuts

    def apply_masks(self) -> None:
        """Sets the stored weights to zero wherever the masks say that there is no connection."""
        for weight in self.pruned_weights:
            weight.variable.assign(weight.masked())

    def save_own_variables(self, store):
        self.apply_masks()  # Before the wrapped layer's turn: no file is denser than its masks.
        super().save_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "criterion": keras.saving.serialize_keras_object(self.criterion)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["criterion"] = keras.saving.deserialize_keras_object(config["criterion"], custom_objects)
        return super().from_config(config, custom_objects)
