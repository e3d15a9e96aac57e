"""Prune a model in place, and make it plain again."""

import warnings

import keras

from keras_prune import _keras
from keras_prune.layers.attachment import Attached, apply_masks, attach
from keras_prune.layers.prune import Prune, wrapped_layer, wrappers_in
from keras_prune.layers.traversal import models_in, paths_in
from keras_prune.layers.weights import pruned_weights
from keras_prune.models.checks import left_out, require_model
from keras_prune.models.rebuild import clone_graph
from keras_prune.models.record import as_pruned, forget, warn_if_never_cut
from keras_prune.models.select_criteria import Selection


def prune(model, criterion=None, keep_zeros: bool = True):
    """Enables pruning for a model in place. The outputs stay the same until the first cut.

    Every trainable weight of two or more dimensions gets a mask. Biases, normalization scales and frozen layers
    (`trainable=False`) do not. Layers that are not built yet get their masks when they are built. A compiled model
    stays compiled and keeps its optimizer. Masks and criteria are saved with the model in a `.keras` file.

    A pruned model can be passed again: it keeps its masks, and the weights that `criterion` names get a new criterion.

    Args:
        model: Keras 3 model of any kind: Sequential, Functional, subclassed, or of KerasHub, nested models included.
        criterion: How much to prune, and which connections.

            - A float in (0, 1) is the sparsity of the whole model, that is of all weights with masks. The largest
              magnitudes of the model survive (`budgets.GlobalMagnitude`).
            - A `Criterion`, such as `StdThreshold(1.0)`, applies to each weight separately. `Prune` wrappers keep their
              criteria.
            - A budget, such as `budgets.CommonQuality(12)`, applies to all weights together.
            - A mapping gives a pattern for layers a criterion, a budget for all weights that match, a float (here the
              sparsity of that layer) or `None` (not pruned, or unchanged if pruned already). A pattern is a regular
              expression that matches the whole name or path of a layer, of a layer around it, or the path of a weight.
              The first match counts, but a pattern that matches only a weight comes before all others, and then the
              whole path of the layer. Weights without a match are not pruned.
            - A callable from a layer to one of these values.

            Defaults to `None`, `StdThreshold(quality=1.0)`.
        keep_zeros: Boolean, whether zeros in the weights count as pruned, as in a model that was pruned before. Weights
            that are all zero, have a `NonNeg` constraint or an `Identity` initializer are left out. So are zeros that
            may be chance, at most one in 100,000. Defaults to `True`.

    Returns:
        The model itself.

    Raises:
        ValueError: If `model` is not a Keras 3 model or has nothing to prune, if a pattern matches no layer, or if a
            layer already has an attribute `pruning`.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([
    ...     keras.Input((784,)),
    ...     keras.layers.Dense(300, "relu", name="fc1"),
    ...     keras.layers.Dense(10, name="head"),
    ... ])
    >>> model = kp.prune(model, 0.9)
    >>> [weight.criterion for weight in kp.layers.pruned_weights(model)]
    [GlobalMagnitude(compression=10.0), GlobalMagnitude(compression=10.0)]
    >>> model = kp.prune(model, {"fc.*": kp.StdThreshold(1.2), "head": 0.75})
    >>> [weight.criterion for weight in kp.layers.pruned_weights(model)]
    [StdThreshold(quality=1.2), TargetSparsity(sparsity=0.75)]
    """
    require_model(model)
    paths = {key: f"{model.name}/{path}" for key, path in paths_in(model).items()}
    selection = Selection(criterion, paths)

    def check(found, unbuilt):
        if unbuilt:
            return
        selection.require_matches()
        if not found:
            raise ValueError(
                "The model has nothing to prune: no trainable layer with a weight of two or more dimensions has a "
                f"criterion. {left_out(model)}"
                f"Received: model={model.name!r} with layers {[layer.name for layer in model.layers]}"
            )

    with _keras.strategy_scope(model):
        attached = attach(model, _not_of_wrappers(model, selection), keep_zeros, check=check)
    as_pruned(model)
    forget_compiled_functions(model)
    _report_zeros(attached)
    _warn_of_skipped(model)
    _warn_of_wrappers(model, selection)
    return model


def strip(model):
    """Makes a pruned model plain again, in place.

    The zeros stay. Masks and everything else that `prune` added are removed.

    Args:
        model: Model that `prune` returned, or that has `Prune` wrappers. Any other model is returned as it is.

    Returns:
        The model itself. Only a Sequential or Functional model with `Prune` wrappers is rebuilt around the same layers.
        In a model of another class, the wrappers stay without masks.

    Raises:
        ValueError: If `model` is not a Keras 3 model.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> cuts = kp.cut(model)
    >>> kp.strip(model) is model, int(keras.ops.count_nonzero(model.layers[0].kernel.value))
    (True, 2)
    """
    require_model(model)
    if weights := pruned_weights(model):
        warn_if_never_cut(weights, "The stripped model is dense: none of its connections was ever pruned.")
    apply_masks(model)
    forget(model)
    forget_compiled_functions(model)
    return _without_wrappers(model)


def forget_compiled_functions(model) -> None:
    """Makes `fit`, `evaluate`, `predict` and `generate` trace the model again."""
    for one in models_in(model):
        for name in ("train_function", "test_function", "predict_function", "generate_function"):
            if getattr(one, name, None) is not None:
                setattr(one, name, None)


def _not_of_wrappers(model, selection):
    """Keeps the criteria of weights in `Prune` wrappers, unless a mapping names them or a budget needs all weights."""

    def select(layer, variable, around):
        if not (selection.mapping or selection.is_budget) and any(isinstance(one, Prune) for one in around):
            return False, None
        return selection(layer, variable, around)

    return select


def _report_zeros(attached: Attached) -> None:
    if attached.zeros:
        total = sum(weight.size for weight in attached.weights)
        print(
            f"prune: {attached.zeros:,} of {total:,} connections are zero and count as pruned. Pass keep_zeros=False "
            "to train them again.",
            flush=True,
        )
    for path, reason in attached.all_zeros.items():
        print(f"prune: the zeros of {path} do not count as pruned, since {reason}.", flush=True)


def _warn_of_skipped(model) -> None:
    if skipped := left_out(model):
        warnings.warn(f"`prune` left out layers with weights. {skipped}".rstrip(), stacklevel=3)


def _warn_of_wrappers(model, selection) -> None:
    if selection.mapping or selection.is_budget or selection.received is None:
        return
    if kept := [wrapper.name for wrapper in wrappers_in(model) if wrapper.criterion != selection.choose(wrapper.layer)]:
        warnings.warn(
            f"The layers in `Prune` wrappers keep their own criteria: {kept}. To replace these, pass a mapping that "
            f"names the layers. Received: criterion={selection.received!r}",
            stacklevel=3,
        )


def _without_wrappers(model):
    """Returns a Sequential or Functional model without its wrappers, and any other model unchanged."""
    if not (_keras.has_keras_class(model) and wrappers_in(model)):
        return model
    kept: dict[int, keras.Model] = {}

    def unwrap(layer):
        if isinstance(layer, keras.Model):
            return kept.setdefault(id(layer), _without_wrappers(layer))
        return wrapped_layer(layer)

    with _keras.strategy_scope(model):
        unwrapped = clone_graph(model, unwrap)
        if model.compiled:
            unwrapped.compile(**_keras.compile_arguments(model))
    return unwrapped
