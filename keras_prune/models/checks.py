"""Check that an argument is a built Keras 3 model with connections."""

import keras

from keras_prune._shards import is_spread
from keras_prune.layers.skip_reasons import unmaskable_layers
from keras_prune.layers.traversal import layers_in, models_in
from keras_prune.layers.weights import PrunableWeight, prunable_weights
from keras_prune.models.graph import has_graph, is_graph


def require_model(model) -> None:
    """Raises a `ValueError` that names the object if it is not a Keras 3 model."""
    if isinstance(model, keras.Model):
        return
    module = type(model).__module__
    if module.split(".")[0] in ("tf_keras", "tensorflow"):
        raise ValueError(
            "keras_prune needs a Keras 3 model, and this is a Keras 2 model. Build it with `import keras` and, where "
            f"it comes from `tf.keras`, without TF_USE_LEGACY_KERAS=1. Received: model of class {module}."
            f"{type(model).__name__}"
        )
    raise ValueError(
        "Expected a Keras 3 model, such as keras.Sequential([...]). For a single layer, use keras_prune.Prune(layer). "
        f"Received: model={model!r} of class {module}.{type(model).__name__}"
    )


def require_whole(model) -> None:
    """Raises a `ValueError` if Keras cannot save a model, since no process can read all of its weights (JAX)."""
    if spread := [weight.path for weight in model.weights if is_spread(weight.value)]:
        raise ValueError(
            f"Keras {keras.__version__} cannot save weights that are spread over processes. Call "
            "keras_prune.save_sparse in every process, or keep checkpoints with keras.callbacks.OrbaxCheckpoint. "
            f"Received: model={model.name!r} with {len(spread)} such weights, the first of which is {spread[0]!r}"
        )


def require_built(model) -> None:
    """Raises a `ValueError` if a model is not a Keras 3 model or has no weights yet."""
    require_model(model)
    for submodel in models_in(model):
        if not (has_graph(submodel) if is_graph(submodel) else submodel.weights):
            raise ValueError(
                "The model has no weights yet. Give it a keras.Input((...)) as its first layer, call "
                "model.build(input_shape) or, if it is a subclassed model, call it on a batch of data first. "
                f"Received: unbuilt model {submodel.name!r}"
            )


def require_connections(model, stored: bool = False) -> list[PrunableWeight]:
    """Returns the weights of a model as `prunable_weights` does, and raises a `ValueError` if there is none."""
    require_model(model)
    weights = prunable_weights(model, stored)
    if not weights:
        raise ValueError(
            "The model has no connections, since no layer has a trainable weight of two or more dimensions. If the "
            f"model is not built yet, call it on a batch of data first. {left_out(model)}Received: model="
            f"{model.name!r} with layers {[layer.name for layer in model.layers]}"
        )
    return weights


def left_out(model) -> str:
    """Returns a sentence about each layer whose weights cannot have masks."""
    return "".join(f"{layer.path or layer.name}: {reason}. " for layer, reason in unmaskable_layers(layers_in(model)))
