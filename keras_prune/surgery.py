"""Surgery: from a model to one with wrapped layers, and back to a plain one."""

import re
from collections.abc import Callable, Mapping

import keras

from keras_prune.criteria import Criterion, StdThreshold
from keras_prune.dropout import PrunedDropout
from keras_prune.graph import has_graph, is_graph, is_weight_layer, leaf_layers, pruned_layers, submodels
from keras_prune.rebuild import rebuild
from keras_prune.subclassed import wrap_layers
from keras_prune.wrappers import Prune


def prune(model, criterion=None):
    """Returns a copy of a model whose layers can be pruned: same weights, same outputs until the first cut.

    Every layer with connections is wrapped in `Prune`, under its own name; frozen ones (`trainable=False`) are left
    alone, and so are those that are wrapped already, but for the criterion that a mapping gives to their name. A
    `Dropout` that drops the outputs of a wrapped layer becomes a `PrunedDropout`. What was left out, and why, stands
    in `report(model).skipped`. A compiled model comes back compiled with the same settings and a fresh optimizer.

    Args:
        model: Built Keras 3 model: Sequential, Functional, or of a class of your own that can be made from its
            `get_config()`; nested ones included. It is not changed.
        criterion: A `Criterion` for every layer; or a mapping from a regular expression, matched against the whole
            layer name, to a `Criterion` or `None` (the first match counts, layers without one are left alone); or a
            callable `layer -> Criterion or None`. Defaults to `None`, `StdThreshold(quality=1.0)`.

    Returns:
        A model of the same class; in one of your own class the wrappers take the place of layers in its attributes.

    Raises:
        ValueError: If the model is not built, not of Keras 3, cannot be made from its configuration, has two layers
            with a weight in common, or has nothing to prune, or if a pattern matches no layer with connections.

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
    _require_built_model(model)
    chosen = {}
    for layer, layer_criterion in _choose(model, criterion):
        if layer_criterion is not None and layer.trainable:
            chosen[id(layer)] = layer_criterion
    if not chosen and not pruned_layers(model):
        raise ValueError(
            "There is nothing to prune: no trainable layer with a weight of two or more dimensions was given a "
            f"criterion. Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    return wrap_layers(model, chosen)


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
    _require_built_model(model)
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
    """Pairs every weight layer that is not wrapped yet with its criterion; a mapping speaks of wrapped ones too."""
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
        is_named = isinstance(layer, Prune) and isinstance(criterion, Mapping)
        if is_named or not any(isinstance(inner, Prune) for inner in layer._flatten_layers()):
            choice = choose(layer)
            if not isinstance(choice, (Criterion, type(None))):
                raise ValueError(
                    f"The criterion of a layer must be a Criterion or None. Received: criterion={choice!r} for layer "
                    f"{layer.name!r}"
                )
            choices.append((layer, choice))
    return choices


def _require_built_model(model):
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
        if not (has_graph(submodel) if is_graph(submodel) else submodel.weights):
            raise ValueError(
                "The model has no weights yet. Give it a keras.Input((...)) as its first layer, call "
                "model.build(input_shape) or, if it is of a class of your own, call it on a batch of data first. "
                f"Received: unbuilt model {submodel.name!r}"
            )
