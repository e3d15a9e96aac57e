"""Surgery: from a model to one with wrapped layers, and back to a plain one."""

import re
import tempfile
import warnings
from collections.abc import Callable, Mapping

import keras
from keras import ops

from keras_prune.criteria import Criterion, StdThreshold
from keras_prune.graph import dropout_sources, has_graph, is_weight_layer, leaf_layers, pruned_layers, submodels
from keras_prune.wrappers import Prune, PrunedDropout


def prune(model, criterion=None):
    """Returns a copy of a model whose layers can be pruned: same weights, same outputs until the first cut.

    Every layer with connections is wrapped in `Prune`, under its own name; layers that are wrapped already or frozen
    (`trainable=False`) are left alone. A `Dropout` that drops the outputs of a wrapped layer becomes a
    `PrunedDropout`. What was left out, and why, stands in `report(model).skipped`. A compiled model comes back
    compiled with the same settings and a fresh optimizer.

    Args:
        model: Built Sequential or Functional Keras 3 model, nested ones included. It is not changed.
        criterion: A `Criterion` for every layer; or a mapping from a regular expression, matched against the whole
            layer name, to a `Criterion` or `None` (the first match counts, layers without one are left alone); or a
            callable `layer -> Criterion or None`. Defaults to `None`, `StdThreshold(quality=1.0)`.

    Returns:
        A model of the same class.

    Raises:
        ValueError: If the model is not built, not of Keras 3, or has nothing to prune, or if a pattern matches no
            layer with connections.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     keras.layers.Dense(300, "relu", name="fc1"),
    ...     keras.layers.Dense(10, name="head"),
    ... ])
    >>> model = kp.prune(model, {"fc.*": kp.StdThreshold(1.2), "head": kp.StdThreshold(0.6)})
    >>> [type(layer).__name__ for layer in model.layers]
    ['Prune', 'Prune']
    """
    _require_keras_graph(model)
    chosen = {}
    for layer, layer_criterion in _choose(model, criterion):
        if layer_criterion is not None and layer.trainable:
            chosen[id(layer)] = layer_criterion
    if not chosen and not pruned_layers(model):
        raise ValueError(
            "There is nothing to prune: no trainable layer with a weight of two or more dimensions was given a "
            f"criterion. Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    sources = dropout_sources(model)

    def wrap(layer, copy_of):
        if id(layer) in chosen:
            return Prune(copy_of(layer), chosen[id(layer)])
        source = sources[id(layer)].layer if id(layer) in sources else None
        # The exact class: a subclass, such as SpatialDropout, draws its noise in a way of its own.
        if type(layer) is keras.layers.Dropout and (id(source) in chosen or isinstance(source, Prune)):
            return PrunedDropout(**layer.get_config() | {"source": source.name})
        return copy_of(layer)

    return rebuild(model, wrap)


def strip(model):
    """Returns a plain Keras copy of a pruned model: the original layers, their names and config, the zeros inside.

    Args:
        model: Model that went through `prune`. It is not changed. Anything else comes back as a copy.

    Returns:
        A model of the same class with neither `Prune` nor `PrunedDropout`, whose outputs are the same.

    Raises:
        ValueError: If the model is not built or not of Keras 3.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")])
    >>> pruned = kp.prune(model, kp.TargetSparsity(0.75))
    >>> cuts = pruned.layers[0].cut()
    >>> plain = kp.strip(pruned)
    >>> type(plain.layers[0]).__name__, int(keras.ops.count_nonzero(plain.layers[0].kernel.value))
    ('Dense', 2)
    """
    _require_keras_graph(model)
    own = {id(layer) for layer in leaf_layers(model)}
    inside = [layer.name for layer in pruned_layers(model) if id(layer) not in own]
    if inside:
        raise ValueError(
            "strip takes out the wrappers that are layers of the model, not those inside other layers, which only "
            f"their own class can rebuild. Received: model={model.name!r} with wrappers inside layers {inside}"
        )

    def unwrap(layer, copy_of):
        if isinstance(layer, Prune):
            layer.apply_masks()
            return copy_of(layer.layer)
        if isinstance(layer, PrunedDropout):
            config = layer.get_config()
            del config["source"]
            return keras.layers.Dropout.from_config(config)
        return copy_of(layer)

    return rebuild(model, unwrap)


def _choose(model, criterion) -> list[tuple[keras.Layer, Criterion | None]]:
    """Pairs every weight layer that is not wrapped yet with its criterion."""
    layers = [layer for layer in leaf_layers(model) if is_weight_layer(layer)]
    names = [layer.name for layer in layers]
    if criterion is None:
        criterion = StdThreshold()
    if isinstance(criterion, Criterion):
        choose: Callable = lambda layer: criterion  # noqa: E731
    elif isinstance(criterion, Mapping):
        for pattern in criterion:
            try:
                re.compile(pattern)
            except (re.error, TypeError) as error:
                raise ValueError(
                    "The keys of a mapping are regular expressions for layer names, such as 'conv.*'; "
                    f"re.escape(name) makes one of a name. Received: criterion={criterion}, where {pattern!r} is none: "
                    f"{error}"
                ) from error
            if not any(re.fullmatch(pattern, name) for name in names):
                raise ValueError(
                    "Each pattern must match the whole name of at least one layer with connections, which here are "
                    f"{names}. Received: criterion={criterion}, where {pattern!r} matches none of them"
                )

        def choose(layer):
            return next((c for pattern, c in criterion.items() if re.fullmatch(pattern, layer.name)), None)
    elif callable(criterion):
        choose = criterion
    else:
        raise ValueError(
            "criterion must be a Criterion such as StdThreshold(1.0), a mapping from layer-name pattern to Criterion, "
            f"or a callable from layer to Criterion or None. Received: criterion={criterion!r}"
        )
    choices = []
    for layer in layers:
        if not any(isinstance(inner, Prune) for inner in layer._flatten_layers()):
            choice = choose(layer)
            if not isinstance(choice, (Criterion, type(None))):
                raise ValueError(
                    f"The criterion of a layer must be a Criterion or None. Received: criterion={choice!r} for layer "
                    f"{layer.name!r}"
                )
            choices.append((layer, choice))
    return choices


def rebuild(model, convert):
    """Clones a model, puts `convert(layer, copy_of)` in the place of every layer, and carries the state over."""
    pairs = []

    def copy_of(layer):
        if isinstance(layer, Prune):
            # Not through its config, from which only registered layers and criteria could be found again.
            kept = {"name": layer.name, "dtype": layer.dtype_policy, "trainable": layer.trainable}
            copy = Prune(copy_of(layer.layer), layer.criterion, **kept)
        elif isinstance(layer, keras.layers.Lambda):
            # Keras refuses to read a lambda from a config, which might be a stranger's; this one is ours.
            config = layer.get_config() | {"function": layer.function, "arguments": layer.arguments, "mask": layer.mask}
            copy = type(layer)(**config | {"output_shape": layer._output_shape})
        else:
            copy = type(layer).from_config(layer.get_config())
            if layer.built and not copy.built and type(layer).build is not keras.Layer.build:
                copy.build_from_config(layer.get_build_config())
        pairs.append((layer, copy))
        return copy

    def clone(layer):
        # An operation such as `x * 2` stands between the layers of a functional model, but is none.
        if isinstance(layer, keras.Layer):
            return convert(layer, copy_of)
        return type(layer).from_config(layer.get_config())

    compiled = [submodel for submodel in submodels(model) if submodel.compiled]
    try:
        for submodel in compiled:
            submodel.compiled = False  # Or `clone_model` would look for losses and metrics by their registered names.
        rebuilt = keras.models.clone_model(model, clone_function=clone, recursive=True)
    finally:
        for submodel in compiled:
            submodel.compiled = True
    for original, counterpart in zip(submodels(model), submodels(rebuilt), strict=True):
        if type(counterpart) is not type(original):
            warnings.warn(
                f"The model {original.name!r} of class {type(original).__name__} comes back as a plain "
                f"{type(counterpart).__name__}, because a class with a constructor of its own cannot be rebuilt layer "
                "by layer: methods such as an own train_step are gone.",
                stacklevel=3,
            )
        for old, new in zip(keras.tree.flatten(original.inputs), keras.tree.flatten(counterpart.inputs), strict=True):
            # `clone_model` gives an input that was not named by hand another name.
            new._keras_history.operation.name = old._keras_history.operation.name
    for layer, copy in pairs:
        for old, new in zip(layer.variables, copy.variables, strict=True):
            # A copy, because JAX hands the very array on, and a later training step donates it.
            new.assign(ops.copy(old.value))
        if hasattr(layer, "save_assets"):
            with tempfile.TemporaryDirectory() as folder:  # The vocabulary of a lookup, which is in no variable.
                layer.save_assets(folder)
                copy.load_assets(folder)
        if isinstance(copy, keras.layers.Normalization):
            copy.finalize_state()  # It computes with tensors taken from its variables.
    if model.compiled:
        rebuilt.compile(**keras.tree.map_structure(_without_state, dict(model._compile_config.config)))
    return rebuilt


def _without_state(setting):
    """Returns one of the settings that a model was compiled with, optimizers and metrics as good as new."""
    if not isinstance(setting, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return setting
    config = setting.get_config()
    schedule = getattr(setting, "_learning_rate", None)
    if isinstance(schedule, keras.optimizers.schedules.LearningRateSchedule):
        config["learning_rate"] = schedule  # Stateless, and found again from a config only if it is registered.
    return type(setting).from_config(config)


def _require_keras_graph(model):
    module = type(model).__module__
    if not isinstance(model, keras.Model):
        if module.startswith(("tf_keras", "tensorflow.python.keras")):
            raise ValueError(
                "keras_prune works on Keras 3 models, and this one is of Keras 2. Build it with `import keras` and, "
                "where it comes from `tf.keras`, without TF_USE_LEGACY_KERAS=1. "
                f"Received: model of class {module}.{type(model).__name__}"
            )
        raise ValueError(
            "Expected a Keras 3 model, such as keras.Sequential([...]); a single layer is wrapped with "
            f"keras_prune.Prune(layer). Received: model={model!r} of class {module}.{type(model).__name__}"
        )
    for submodel in submodels(model):
        if not isinstance(submodel, (keras.Sequential, keras.Function)):
            raise ValueError(
                "Expected a Sequential or a Functional model, whose layers can be followed and replaced; in a "
                "subclassed model wrap the layers yourself with keras_prune.Prune(layer). "
                f"Received: model {submodel.name!r} of class {type(submodel).__name__}"
            )
        if not has_graph(submodel):
            raise ValueError(
                "The model has no weights yet. Give it a keras.Input((...)) as its first layer, or call "
                f"model.build(input_shape) first. Received: unbuilt model {submodel.name!r}"
            )
