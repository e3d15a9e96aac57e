"""Subclassed models: how one whose layers are wrapped comes to be saved and loaded with its wrappers."""

import functools

import keras

from keras_prune.dropout import PrunedDropout
from keras_prune.graph import dropout_sources, is_graph, leaf_layers, pruned_layers, submodels
from keras_prune.rebuild import as_plain, rebuild
from keras_prune.wrappers import Prune


def wrap_layers(model, criteria):
    """Returns a copy of a model with `Prune` around the layers in `criteria`, and the dropouts behind them tied.

    Layers that are wrapped already get the criterion that stands there for them, if there is one.

    Args:
        model: Keras model. It is not changed.
        criteria: Mapping from the `id` of a layer to its `Criterion`.
    """
    sources = dropout_sources(model)

    def wrap(layer, copy_of):
        if isinstance(layer, Prune):
            copy = copy_of(layer)
            copy.criterion = criteria.get(id(layer), layer.criterion)
            return copy
        if id(layer) in criteria:
            return Prune(copy_of(layer), criteria[id(layer)])
        source = sources[id(layer)].layer if id(layer) in sources else None
        # The exact class: a subclass, such as SpatialDropout, draws its noise in a way of its own.
        if type(layer) is keras.layers.Dropout and (id(source) in criteria or isinstance(source, Prune)):
            return PrunedDropout(**layer.get_config() | {"source": source.name})
        return copy_of(layer)

    wrapped = rebuild(model, wrap)
    for submodel in submodels(wrapped):
        if not is_graph(submodel) and pruned_layers(submodel):
            submodel.__class__ = _pruned_class(type(submodel))
    return wrapped


@keras.saving.register_keras_serializable(package="keras_prune")
class PrunedModel:
    """Mixed into the class of a subclassed model whose layers are wrapped.

    The user's constructor makes plain layers. What is saved here beside its arguments is which of them are wrapped.
    """

    plain_class: type

    def get_config(self):
        with as_plain(self):
            plain = keras.saving.serialize_keras_object(self)
        plain.pop("compile_config", None)
        layers = leaf_layers(self)
        criteria = [layer.criterion if isinstance(layer, Prune) else None for layer in layers]
        return {"model": plain, "criteria": [keras.saving.serialize_keras_object(one) for one in criteria]}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Makes the plain model and wraps its layers again."""
        model = keras.saving.deserialize_keras_object(config["model"], custom_objects)
        criteria = {}
        for layer, criterion in zip(leaf_layers(model), config["criteria"], strict=True):
            # A `get_config` that goes by the model's attributes has saved the wrapper itself.
            if criterion is not None and not isinstance(layer, Prune):
                criteria[id(layer)] = keras.saving.deserialize_keras_object(criterion, custom_objects)
        return wrap_layers(model, criteria)


@functools.cache
def _pruned_class(plain_class) -> type:
    pruned_class = type(plain_class.__name__, (PrunedModel, plain_class), {"plain_class": plain_class})
    # Every such class is saved under one name, behind which `PrunedModel.from_config` finds the user's.
    return keras.saving.register_keras_serializable(package="keras_prune", name="PrunedModel")(pruned_class)
