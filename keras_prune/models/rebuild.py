"""Copy a model with its state and replace some of its layers.

Conversions to smaller or sparse layers copy a model, and so do exports of models with `Prune` wrappers. `prune` and
`strip` do not.
"""

import contextlib
import functools
import inspect
import tempfile
import warnings

import keras
from keras import ops

from keras_prune import _keras
from keras_prune.layers.attachment import apply_masks
from keras_prune.layers.prune import wrapped_layer, wrappers_in
from keras_prune.layers.traversal import layers_in
from keras_prune.models.checks import require_built
from keras_prune.models.graph import has_graph, is_graph, leaf_layers
from keras_prune.models.record import plain

_KERAS_ARGUMENTS = ("name", "trainable", "dtype")


@contextlib.contextmanager
def plain_model(model):
    """Context in which a model is plain and its pruned weights are zero.

    Yields the model itself, without masks and hooks, or a copy if it has `Prune` wrappers.
    """
    require_built(model)
    apply_masks(model)
    with plain(model):
        yield rebuild(model, lambda layer, copy_of: copy_of(layer)) if wrappers_in(model) else model


def rebuild(model, convert):
    """Copies a plain model with its state, with `convert(layer, copy_of)` in place of each layer.

    Nested models are opened, `Prune` wrappers are removed, and a layer that is used several times has one copy.
    """
    copies: dict[int, keras.layers.Layer] = {}
    variables = []

    def copy_of(layer):
        copy = _empty_copy(layer)
        for old, new in zip(layer.weights, copy.weights, strict=False):  # Some are created in the first call.
            new.regularizer = old.regularizer
        variables.append((layer, copy))
        return copy

    def clone(layer):
        layer = wrapped_layer(layer)
        if id(layer) not in copies:
            copies[id(layer)] = _clone(layer)
        return copies[id(layer)]

    def _clone(layer):
        if is_graph(layer):
            return clone_graph(layer, clone)
        if isinstance(layer, keras.Model):
            return _clone_subclassed(layer, clone, variables)
        if isinstance(layer, keras.Layer):
            return convert(layer, copy_of)
        # An operation such as `x * 2` is not a layer, but is among the layers of a functional model.
        return type(layer).from_config(layer.get_config())

    _refuse_tied_weights(model)
    rebuilt = clone(model)
    for old, new in variables:
        _carry_over(old, new)
    if model.compiled:
        try:
            recompile(rebuilt, model)
        except ValueError as error:
            warnings.warn(f"The copy of {model.name!r} is not compiled, compile it again. {error}", stacklevel=4)
    return rebuilt


def _refuse_tied_weights(model) -> None:
    """Raises a `ValueError` if two layers share a weight, which would become two weights in a copy."""
    owners: dict[int, keras.layers.Layer] = {}
    for layer in leaf_layers(model):
        for weight in getattr(layer, "weights", ()):
            owner = owners.setdefault(id(weight), layer)
            if owner is not layer:
                raise ValueError(
                    "Two layers of the model share a weight, which would become two weights in a copy. Let one layer "
                    "own the weight and use that layer twice, such as keras.layers.ReversibleEmbedding. "
                    f"Received: model={model.name!r}, where layers {owner.name!r} and {layer.name!r} share the weight "
                    f"{weight.path!r}"
                )


def recompile(model, like) -> None:
    """Compiles a model with the arguments with which `like` was compiled. Optimizer and metrics are new."""
    try:
        model.compile(**keras.tree.map_structure(_without_state, _keras.compile_arguments(like)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "The model cannot be compiled again. `get_config()` of its optimizer and metrics must return the "
            "arguments of their constructors, and `compile` may only have the arguments of Keras. "
            f"Received: model={like.name!r} of class {type(like).__name__}, for which this failed: "
            f"{' '.join(str(error).split())}"
        ) from error


def _without_state(setting):
    """Returns an argument of `compile`. An optimizer or metric is replaced by a new one of the same config."""
    if not isinstance(setting, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return setting
    config = setting.get_config()
    schedule = _keras.schedule_of(setting)
    if schedule is not None:
        config["learning_rate"] = schedule  # It has no state, and a config restores it only if it is registered.
    return type(setting).from_config(config)


def _empty_copy(layer):
    """Returns a layer of the same class, configuration and shapes."""
    if isinstance(layer, keras.layers.Lambda):
        # Keras does not read a lambda from a config, which might not be trusted.
        config = layer.get_config() | {"function": layer.function, "arguments": layer.arguments, "mask": layer.mask}
        return type(layer)(**config | {"output_shape": _keras.lambda_output_shape(layer)})
    config = layer.get_config()
    try:
        copy = type(layer).from_config(config)
    except (TypeError, ValueError):
        # A config restores an activation that is a function only if it is registered.
        functions = {name: held for name in config if inspect.isfunction(held := getattr(layer, name, None))}
        if not functions:
            raise
        copy = type(layer).from_config(layer.get_config() | functions)
    copy.name = layer.name  # A class without its own `get_config` loses it.
    if layer.built and not copy.built and type(layer).build is not keras.Layer.build:
        _build_like(copy, layer)
    return copy


def _build_like(copy, layer) -> None:
    """Builds a layer with the values of another as initial values.

    Random initial values would take longer than the rest of the copy, and three times the memory of the weight.
    """
    # Custom and stateful layers may create variables that cannot be declared.
    if all(_is_stateless_keras_layer(inner) for inner in layers_in(layer)):
        with _keras.declaring() as declared:
            copy.build_from_config(layer.get_build_config())
        pairs = zip(layer.variables, copy.variables, strict=True)
        initializers = {id(new): functools.partial(_copy_of, old) for old, new in pairs}
        _keras.allocate(declared, initializers, layers_in(copy))
    else:
        copy.build_from_config(layer.get_build_config())


def _is_stateless_keras_layer(layer) -> bool:
    of_keras = getattr(keras.layers, type(layer).__name__, None) is type(layer)
    return of_keras and not getattr(layer, "stateful", False)


def _copy_of(variable, shape, dtype):
    return ops.copy(variable.value)


def clone_graph(model, clone):
    """Rebuilds a Sequential or Functional model with `clone(layer)` for each layer, without compiling it."""
    compiled = model.compiled
    model.compiled = False  # Otherwise `clone_model` looks up losses and metrics by their registered names.
    try:
        copy = keras.models.clone_model(model, clone_function=clone)
    finally:
        model.compiled = compiled
    if type(copy) is not type(model):
        warnings.warn(
            f"The copy of model {model.name!r} of class {type(model).__name__} is a plain {type(copy).__name__}, "
            "because a class with its own constructor cannot be rebuilt layer by layer. It loses methods such as a "
            "custom train_step.",
            stacklevel=6,
        )
    _keras.set_trainable(copy, model.trainable)
    copy.dtype_policy = model.dtype_policy  # Otherwise it is the current default.
    if has_graph(model):
        for old, new in zip(keras.tree.flatten(model.inputs), keras.tree.flatten(copy.inputs), strict=True):
            # `clone_model` renames inputs whose names were automatic.
            _keras.origin_of(new)[0].name = _keras.origin_of(old)[0].name
    return copy


def _clone_subclassed(model, clone, variables):
    """Copies a subclassed model. The copies of its layers replace those that the new model created."""
    try:
        copy = type(model).from_config(_constructor_arguments(model))
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise ValueError(
            "A subclassed model is copied through its config. Its class needs `get_config()` and "
            "`from_config(config)` for the arguments of its constructor, as it does to be saved. "
            f"Received: model={model.name!r} of class {type(model).__name__}, for which this failed: {reason}"
        ) from error
    if model.built and not copy.built:
        copy.build_from_config(model.get_build_config())
    if len(copy.layers) != len(model.layers):
        raise ValueError(
            "A subclassed model is copied through its config, and must have the same layers after `from_config` and "
            f"`build`. Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}, whose copy "
            f"has {[layer.name for layer in copy.layers]}"
        )
    variables.append((_OwnVariables(model), _OwnVariables(copy)))
    _keras.replace_layers(copy, {id(new): clone(old) for old, new in zip(model.layers, copy.layers, strict=True)})
    return copy


def _constructor_arguments(model) -> dict:
    """Returns the config of a model without the arguments of Keras that its constructor does not take."""
    config = model.get_config()
    parameters = inspect.signature(type(model).__init__).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return config
    return {name: value for name, value in config.items() if name in parameters or name not in _KERAS_ARGUMENTS}


class _OwnVariables:
    """Variables of a subclassed model that do not belong to its layers."""

    def __init__(self, model):
        of_layers = {id(variable) for layer in model.layers for variable in layer.variables}
        self.variables = [variable for variable in model.variables if id(variable) not in of_layers]


def _carry_over(layer, copy) -> None:
    """Copies the variables of a layer and its other state."""
    for old, new in zip(layer.variables, copy.variables, strict=True):
        # JAX would share the array, and a later training step donates it.
        new.assign(ops.copy(old.value))
    if isinstance(layer, keras.Layer):
        for old, new in zip(layers_in(layer), layers_in(copy), strict=True):
            store: dict = {}
            if not old.variables:
                # Keras does not know the variables of TensorFlow's sparse matrices, but saves them.
                old.save_own_variables(store)
            if store:
                new.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:  # Such as the vocabulary of a lookup layer.
            layer.save_assets(folder)
            copy.load_assets(folder)
    if isinstance(copy, keras.layers.Normalization):
        copy.finalize_state()  # It computes with tensors that it read from its variables.
