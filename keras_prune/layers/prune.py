"""Layer wrapper that prunes the layer inside it, for models built layer by layer."""

import functools
import inspect

import keras

from keras_prune import _keras
from keras_prune.layers.attachment import apply_masks, attach
from keras_prune.layers.skip_reasons import unmaskable
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import pruned_weights
from keras_prune.rules.criteria import StdThreshold
from keras_prune.rules.rule import Rule, rule_of


@keras.saving.register_keras_serializable(package="keras_prune")
class Prune(keras.layers.Wrapper):
    """Wraps a layer whose weights are pruned. For a whole model, use `keras_prune.prune(model)`.

    Until the first cut the outputs are those of the wrapped layer, to the bit. The masks belong to the wrapped layer
    and are saved with the model, as the criterion is. Every trainable weight of two or more dimensions has one; biases
    and normalization scales do not.

    Args:
        layer: Keras layer, built or not.
        criterion: A `Criterion`, a budget, or a float, the sparsity of the layer. Defaults to `None`,
            `StdThreshold(quality=1.0)`.

    Input shape: that of `layer`, such as `(batch, features)` for a `Dense`.

    Output shape: that of `layer`, such as `(batch, units)` for a `Dense`.

    Raises:
        ValueError: If `layer` is not a Keras layer, is pruned already, or has no connections.

    Example:

    >>> import numpy as np, keras_prune as kp
    >>> layer = kp.Prune(keras.layers.Dense(2, use_bias=False, name="fc"), kp.TargetSparsity(0.75))
    >>> layer(np.ones((1, 4))).shape == (1, 2)
    True
    >>> [(cut.weight.name, cut.cut, cut.kept) for cut in kp.cut(layer)]
    [('kernel', 6, 2)]
    """

    def __init__(self, layer, criterion: Rule | float | None = None, **kwargs):
        if not isinstance(layer, keras.layers.Layer):
            raise ValueError(
                "Prune wraps a layer, such as keras.layers.Dense(10), and is then called on a tensor. "
                f"Received: layer={layer!r} of type {type(layer).__name__}"
            )
        if isinstance(layer, (Prune, keras.Model)) or pruned_weights(layer):
            raise ValueError(
                "Prune wraps one layer that is not pruned yet. For a whole model, call keras_prune.prune(model). "
                f"Received: layer={layer!r}"
            )
        criterion = rule_of(criterion, layer.name)
        kwargs.setdefault("name", layer.name)
        kwargs.setdefault("dtype", layer.dtype_policy)
        # From these signatures Keras infers which arguments are tensors, masks and shapes. They must be the layer's.
        self.call = functools.update_wrapper(functools.partial(self.call), layer.call)
        self.build = functools.update_wrapper(functools.partial(self.build), layer.build)
        super().__init__(layer, **kwargs)
        _keras.keep_input_shape(self, layer)
        self.autocast = False  # The layer inside casts its inputs to its own dtype.
        self._criterion = StdThreshold() if criterion is None else criterion
        self.supports_masking = layer.supports_masking
        if layer.built and layer.weights:
            self._attach(keep_zeros=True)
            self.built = True

    @property
    def criterion(self) -> Rule:
        """The criterion of the first pruned weight, which `prune` with a mapping replaces."""
        weights = pruned_weights(self.layer)
        return weights[0].criterion if weights else self._criterion

    def build(self, *args, **kwargs):
        has_weights = bool(self.layer.weights)
        if type(self.layer).build is keras.Layer.build:
            if not has_weights:
                # A layer that does not define `build` makes its weights when it is first called.
                inputs = lambda shape: keras.Input(batch_shape=shape, dtype=self.layer.input_dtype)  # noqa: E731
                self.layer(*keras.tree.map_shape_structure(inputs, args or tuple(kwargs.values())))
        elif not self.layer.built:
            self.layer.build(*args, **kwargs)
        self._attach(keep_zeros=has_weights)
        self.built = True

    def _attach(self, keep_zeros):
        attached = attach(self.layer, lambda *_: (True, self._criterion), keep_zeros, frozen=True)
        if not (attached.weights or attached.unbuilt):
            raise ValueError(
                "Prune needs a layer with connections: a trainable weight of two or more dimensions that is not a "
                f"bias. Leave this layer unwrapped{f', since {reason}' if (reason := unmaskable(self.layer)) else ''}. "
                f"Received: layer={self.layer!r} with weights {[weight.name for weight in self.layer.weights]}"
            )

    def call(self, *args, **kwargs):
        return self.layer(*args, **kwargs)

    def compute_output_shape(self, *args, **kwargs):
        return self.layer.compute_output_shape(*args, **kwargs)

    def compute_output_spec(self, *args, **kwargs):
        return self.layer.compute_output_spec(*args, **kwargs)

    def compute_mask(self, inputs, previous_mask=None):
        return self.layer.compute_mask(inputs, previous_mask)

    def get_build_config(self):
        return self.layer.get_build_config()

    def build_from_config(self, config):
        if type(self.layer).build is keras.Layer.build:
            parameters = inspect.signature(self.layer.call).parameters.values()
            if sum(one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD for one in parameters) == 1:
                super().build_from_config(config)
            else:  # The config has the shape of the first input alone. The layers inside are built in the first call.
                self._attach(keep_zeros=False)
        else:
            self.layer.build_from_config(config)
            self.build()

    @property
    def input_spec(self):
        return self.layer.input_spec

    def __getattr__(self, name):
        # Attributes that only some layers have. Methods that Keras looks for on every layer must not be found twice.
        if name in ("stateful", "input_shape", "reset_state", "reset_states", "units", "kernel"):
            return getattr(self.layer, name)
        return super().__getattr__(name) if hasattr(super(), "__getattr__") else self.__getattribute__(name)

    def save_own_variables(self, store):
        apply_masks(self)  # Before the wrapped layer is saved, so that no file is denser than its masks.
        super().save_own_variables(store)

    def get_config(self):
        return {**super().get_config(), "criterion": keras.saving.serialize_keras_object(self.criterion)}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        config["criterion"] = keras.saving.deserialize_keras_object(config["criterion"], custom_objects)
        return super().from_config(config, custom_objects)


def wrapped_layer(layer):
    """Returns the layer inside a `Prune` wrapper, and any other layer itself."""
    return layer.layer if isinstance(layer, Prune) else layer


def wrappers_in(root) -> list[Prune]:
    """Returns the `Prune` wrappers in a model or layer."""
    return [layer for layer in layers_in(root) if isinstance(layer, Prune)]
