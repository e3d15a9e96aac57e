"""Copy a model with its state, with other layers in the place of some of its own.

Conversions that need other layers, smaller or sparse ones, copy a model, and so do exports of models with `Prune`
wrappers. `prune` and `strip` do not.
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
from keras_prune.models.checks import require_built
from keras_prune.models.graph import has_graph, is_graph, leaf_layers
from keras_prune.models.record import plain

_KERAS_ARGUMENTS = ("name", "trainable", "dtype")


@contextlib.contextmanager
def plain_model(model):
    """Gives the plain model, zeros included, while the context lasts.

    It is the model itself, without masks and hooks, or a copy if it has `Prune` wrappers.
    """
    require_built(model)
    apply_masks(model)
    with plain(model):
        yield rebuild(model, lambda layer, copy_of: copy_of(layer)) if wrappers_in(model) else model


def rebuild(model, convert):
    """Copies a plain model, puts `convert(layer, copy_of)` in the place of every layer, and carries the state over.

    Nested models are opened, `Prune` wrappers left out, and a layer that stands in several places has one copy.
    """
    copies: dict[int, keras.layers.Layer] = {}
    variables = []

    def copy_of(layer):
        copy = _empty_copy(layer)
        for old, new in zip(layer.weights, copy.weights, strict=False):  # Some are made at the first call.
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
        # An operation such as `x * 2` stands between the layers of a functional model, but is none.
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
    """Refuses a model in which two layers have a weight in common, which would be two weights in a copy."""
    owners: dict[int, keras.layers.Layer] = {}
    for layer in leaf_layers(model):
        for weight in getattr(layer, "weights", ()):
            owner = owners.setdefault(id(weight), layer)
            if owner is not layer:
                raise ValueError(
                    "A model is copied layer by layer, in which a weight that two layers share would become two. Let "
                    "one layer hold it and stand in both places, such as keras.layers.ReversibleEmbedding. "
                    f"Received: model={model.name!r}, whose "
                    f"layers {owner.name!r} and {layer.name!r} share the weight {weight.path!r}"
                )


def recompile(model, like) -> None:
    """Compiles `model` with what `like` was compiled with, its optimizer and metrics as good as new."""
    try:
        model.compile(**keras.tree.map_structure(_without_state, _keras.compile_arguments(like)))
    except (TypeError, ValueError) as error:
        raise ValueError(
            "A fresh optimizer and fresh metrics are made from their configs, so get_config() must give the arguments "
            "of their constructors, and `compile` must take no others than Keras's. "
            f"Received: model={like.name!r} of class {type(like).__name__}, for which this failed: "
            f"{' '.join(str(error).split())}"
        ) from error


def _without_state(setting):
    """Returns one of the settings that a model was compiled with, optimizers and metrics as good as new."""
    if not isinstance(setting, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return setting
    config = setting.get_config()
    schedule = getattr(setting, "_learning_rate", None)
    if callable(schedule):
        config["learning_rate"] = schedule  # Stateless, and found again from a config only if it is registered.
    return type(setting).from_config(config)


def _empty_copy(layer):
    """Returns a layer of the same class, configuration and shapes."""
    if isinstance(layer, keras.layers.Lambda):
        # Keras refuses to read a lambda from a config, which might be a stranger's; this one is ours.
        config = layer.get_config() | {"function": layer.function, "arguments": layer.arguments, "mask": layer.mask}
        return type(layer)(**config | {"output_shape": layer._output_shape})
    config = layer.get_config()
    try:
        copy = type(layer).from_config(config)
    except (TypeError, ValueError):
        # An activation that is a function is found again only where it is registered; this one is handed on.
        functions = {name: held for name in config if inspect.isfunction(held := getattr(layer, name, None))}
        if not functions:
            raise
        copy = type(layer).from_config(layer.get_config() | functions)
    copy.name = layer.name  # A class without a `get_config` of its own forgets it.
    if layer.built and not copy.built and type(layer).build is not keras.Layer.build:
        _build_like(copy, layer)
    return copy


def _build_like(copy, layer) -> None:
    """Builds a layer, and gives it the values of another's variables without drawing random ones first."""
    for inner in layer._flatten_layers():
        if not type(inner).__module__.startswith("keras.src.") or getattr(inner, "stateful", False):
            # It may make variables in a way that the scope below refuses, as recurrent layers with a state do.
            copy.build_from_config(layer.get_build_config())
            return
    # In this scope variables are declared, and on leaving it initialised. Random numbers would take longer than all
    # the rest, and three times the memory of the weight.
    with keras.StatelessScope():
        copy.build_from_config(layer.get_build_config())
        for old, new in zip(layer.variables, copy.variables, strict=True):
            if new._value is None:
                new._initializer = functools.partial(_copy_of, old)


def _copy_of(variable, shape, dtype):
    return ops.copy(variable.value)


def clone_graph(model, clone):
    """Rebuilds a Sequential or Functional model around `clone(layer)` for each of its layers, not compiled."""
    compiled = model.compiled
    model.compiled = False  # Or `clone_model` would look for losses and metrics by their registered names.
    try:
        copy = keras.models.clone_model(model, clone_function=clone)
    finally:
        model.compiled = compiled
    if type(copy) is not type(model):
        warnings.warn(
            f"The model {model.name!r} of class {type(model).__name__} comes back as a plain {type(copy).__name__}, "
            "because a class with a constructor of its own cannot be rebuilt layer by layer: methods such as an own "
            "train_step are gone.",
            stacklevel=6,
        )
    # A frozen model must stay one: TensorFlow takes no notice when what is trainable is made so, and would leave the
    # layers inside frozen. Not by the public attribute, which would set those layers too, each of which has its own.
    copy._trainable = model._trainable
    copy.dtype_policy = model.dtype_policy  # Or it would be what is Keras's default now.
    if has_graph(model):
        for old, new in zip(keras.tree.flatten(model.inputs), keras.tree.flatten(copy.inputs), strict=True):
            # `clone_model` gives an input that was not named by hand another name.
            _keras.origin_of(new)[0].name = _keras.origin_of(old)[0].name
    return copy


def _clone_subclassed(model, clone, variables):
    """Copies a subclassed model: another of its class, in which the copies of its layers replace those it made."""
    try:
        copy = type(model).from_config(_constructor_arguments(model))
    except (NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split()).split(". ")[0]
        raise ValueError(
            "A subclassed model is copied through its configuration, so its class needs get_config() and "
            "from_config(config) for the arguments of its constructor, as it does to be saved. "
            f"Received: model {model.name!r} of class {type(model).__name__}, for which this failed: {reason}"
        ) from error
    if model.built and not copy.built:
        copy.build_from_config(model.get_build_config())
    if len(copy.layers) != len(model.layers):
        raise ValueError(
            "A subclassed model is copied by way of its configuration, and must have the same layers when it comes "
            "from from_config and build. Received: model with layers "
            f"{[layer.name for layer in model.layers]}, whose copy has {[layer.name for layer in copy.layers]}"
        )
    variables.append((_OwnVariables(model), _OwnVariables(copy)))
    _replace_layers(copy, {id(new): clone(old) for old, new in zip(model.layers, copy.layers, strict=True)})
    return copy


def _constructor_arguments(model) -> dict:
    """Returns the config of a model, less what Keras puts there and a constructor without keyword arguments refuses."""
    config = model.get_config()
    parameters = inspect.signature(type(model).__init__).parameters
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
        return config
    return {name: value for name, value in config.items() if name in parameters or name not in _KERAS_ARGUMENTS}


class _OwnVariables:
    """The variables of a subclassed model that belong to none of its layers."""

    def __init__(self, model):
        of_layers = {id(variable) for layer in model.layers for variable in layer.variables}
        self.variables = [variable for variable in model.variables if id(variable) not in of_layers]


def _replace_layers(model, replacements) -> None:
    """Puts `replacements`, by `id`, in the place of layers in the attributes of a model, lists and dicts included."""
    for layer in model.layers:
        model._tracker.replace_tracked_value("layers", layer, replacements[id(layer)])
    # PyTorch's modules keep attributes that are modules apart.
    for name, held in {**vars(model), **getattr(model, "_modules", {})}.items():
        if name in ("_layers", "_modules") or name.startswith("_self_"):
            continue  # The books that Keras, PyTorch and TensorFlow keep, which follow the attributes.
        value = getattr(held, "__wrapped__", held)  # TensorFlow has wrapped tuples.
        if any(id(leaf) in replacements for leaf in keras.tree.flatten(value)):
            setattr(model, name, keras.tree.map_structure(lambda leaf: replacements.get(id(leaf), leaf), value))


def _carry_over(layer, copy) -> None:
    """Copies the state of a layer: its variables and what it keeps beside them."""
    for old, new in zip(layer.variables, copy.variables, strict=True):
        # A copy, because JAX hands the very array on, and a later training step donates it.
        new.assign(ops.copy(old.value))
    if isinstance(layer, keras.Layer):
        for old, new in zip(layer._flatten_layers(), copy._flatten_layers(), strict=True):
            store: dict = {}
            if not old.variables:
                # TensorFlow's sparse matrices are variables that Keras does not know, and saves all the same.
                old.save_own_variables(store)
            if store:
                new.load_own_variables(store)
    if hasattr(layer, "save_assets"):
        with tempfile.TemporaryDirectory() as folder:  # The vocabulary of a lookup, which is in no variable.
            layer.save_assets(folder)
            copy.load_assets(folder)
    if isinstance(copy, keras.layers.Normalization):
        copy.finalize_state()  # It computes with tensors taken from its variables.
