"""Save and load pruned models through a record on the model.

Layers keep their plain configs. The record lists which weights are pruned, and by which criteria. The masks are in the
weights file, beside the weights of their layers.
"""

import contextlib
import functools
import io
import os
import warnings
from typing import Any

import keras

from keras_prune import _keras
from keras_prune._processes import process_count
from keras_prune.layers.attachment import apply_masks, attach, put_back, take_off
from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.hook import refuse_quantize_and_lora
from keras_prune.layers.traversal import is_pruning_state, layers_in, models_in
from keras_prune.layers.weights import masks_of, pruned_weights, pruning_of
from keras_prune.models.checks import require_whole
from keras_prune.models.deserialize import deserialize

# `super()` has the methods of a model, because the class of the model comes after the mixin.
_Base: Any = object


@keras.saving.register_keras_serializable(package="keras_prune")
class PrunedModel(_Base):
    """Mixin that `prune` adds to the class of a model, under the name of that class."""

    plain_class: type

    def __new__(cls, *args, **kwargs):
        # `clone_model`, for example, creates another model of the class, whose layers are plain.
        return cls.plain_class(*args, **kwargs)

    def get_config(self):
        record = _record(self)
        with plain(self):
            config = keras.saving.serialize_keras_object(self)
        config.pop("compile_config", None)
        return {"model": config, "pruned": record}

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Creates the plain model and prunes the weights of the record."""
        model = deserialize(config["model"], custom_objects)
        freeze(model, config["pruned"]["frozen"])
        _attach_recorded(model, config["pruned"], custom_objects)
        return as_pruned(model)

    def save_own_variables(self, store):
        apply_masks(self)  # Before the layers are saved, so that no file is denser than its masks.
        super().save_own_variables(store)

    @property
    def layers(self):
        # A model that owns weights also owns their masks, which are a layer inside it.
        return [layer for layer in super().layers if not is_pruning_state(layer)]

    def get_weights(self):
        apply_masks(self)  # Some optimizers, such as Muon, move stored zeros.
        return super().get_weights()

    def set_weights(self, weights):
        super().set_weights(weights)
        if zeros := sum(weight.take_zeros() for weight in pruned_weights(self)):
            print(f"set_weights: {zeros:,} of the weights are zero and count as pruned.", flush=True)
        apply_masks(self)

    def fit(self, *args, **kwargs):
        try:
            history = super().fit(*args, **kwargs)
        except ValueError as error:
            if process_count(self) > 1 and any(one in str(error) for one in ("PerReplica", "Invalid reduction dim")):
                raise RuntimeError(
                    f"Keras {keras.__version__} cannot `fit` a model under MultiWorkerMirroredStrategy, pruned or not: "
                    "it does not reduce the batches and losses of several workers. Train in a custom loop, with "
                    "`keras_prune.cut(model, schedule(epoch))` and `PruningBackup.epochs`."
                ) from error
            raise
        weights = pruned_weights(self)
        # A `PruningCallback` has its own warnings. This comes after the run, since a custom callback may prune.
        if weights and not getattr(history, "follows_schedule", False):
            warn_if_never_cut(
                weights,
                "`fit` has trained the dense model, and nothing is pruned yet. Pass callbacks=["
                "keras_prune.PruningCallback()], or call keras_prune.cut(model).",
            )
        return history

    def save_weights(self, *args, **kwargs):
        require_whole(self)  # Keras would leave an incomplete file.
        super().save_weights(*args, **kwargs)

    def save(self, filepath, *args, **kwargs):
        require_whole(self)
        if os.fspath(filepath).endswith((".h5", ".hdf5")):
            self._save_plain("An .h5 file", super().save, filepath, *args, **kwargs)
        else:
            super().save(filepath, *args, **kwargs)

    def export(self, *args, **kwargs):
        apply_masks(self)
        with plain(self):
            return self.export(*args, **kwargs)

    def _save_plain(self, what, save, *args, **kwargs):
        warnings.warn(
            f"{what} holds the plain model, with its zeros but without masks and criteria. Save to a .keras file to "
            "keep them, or prune the loaded model, in which zeros count as pruned.",
            stacklevel=3,
        )
        apply_masks(self)
        with plain(self):
            save(*args, **kwargs)

    def __reduce__(self):
        buffer = io.BytesIO()
        _keras.save_to_buffer(self, buffer)
        # A function of this package, so that a process that unpickles the model imports the package and its classes.
        return _keras.unpickle, (self.plain_class, buffer)


def _save_to_preset(self, *args, **kwargs):
    self._save_plain("A preset", lambda: self.save_to_preset(*args, **kwargs))


@functools.cache
def _pruned_class(plain_class) -> type:
    members = {"plain_class": plain_class, "__module__": __name__, "__doc__": plain_class.__doc__}
    if hasattr(plain_class, "save_to_preset"):
        members["save_to_preset"] = _save_to_preset
    pruned_class = type(plain_class.__name__, (PrunedModel, plain_class), members)
    # All are saved under one name, and `PrunedModel.from_config` finds the class. The base class is registered again,
    # because KerasHub looks for a preset's class among the subclasses that are registered.
    register = keras.saving.register_keras_serializable(package="keras_prune", name="PrunedModel")
    register(pruned_class)
    register(PrunedModel)
    return pruned_class


def warn_if_never_cut(weights, message: str) -> None:
    """Warns with a message if all connections of pruned weights are left."""
    if all(weight.kept == weight.size for weight in weights):
        warnings.warn(message, stacklevel=3)


def as_pruned(model):
    """Gives a model its record, and returns it."""
    if not isinstance(model, PrunedModel):
        model.__class__ = _pruned_class(type(model))
        if pruning_of(model) is None:
            refuse_quantize_and_lora(model)
    return model


def plain_class(model) -> type:
    """Returns the class of a model without its record."""
    return model.plain_class if isinstance(model, PrunedModel) else type(model)


@contextlib.contextmanager
def plain(model):
    """Context in which a model has its classes and layers from before pruning. Its zeros stay."""
    pruned = [(one, type(one)) for one in models_in(model)]
    taken = []
    try:
        for layer in layers_in(model):
            taken.append(take_off(layer))
        for one, _ in pruned:
            one.__class__ = plain_class(one)
        yield model
    finally:
        for one, kind in pruned:
            one.__class__ = kind
        for layer, methods, state in taken:
            put_back(layer, methods, state)


def forget(model) -> None:
    """Removes masks, hooks and records from a model for good."""
    paths = {variable.path for layer in layers_in(model) for variable in _state_variables(layer)}
    for layer in layers_in(model):
        take_off(layer)
        _keras.forget_variables(layer, paths)
    for one in models_in(model):
        one.__class__ = plain_class(one)


def frozen_models(model) -> list[int]:
    """Returns the positions in `models_in` of frozen models. The config of a Sequential model lacks it."""
    return [position for position, one in enumerate(models_in(model)) if not one.trainable]


def freeze(model, positions) -> None:
    """Freezes the models that `frozen_models` returned, but not their layers, whose state is in the config."""
    for position, one in enumerate(models_in(model)):
        if position in positions:
            _keras.set_trainable(one, False)


def _state_variables(layer) -> list:
    state = pruning_of(layer)
    return state.variables if isinstance(state, keras.layers.Layer) else []


def _record(model) -> dict:
    layers = layers_in(model)
    weights = [weight for layer in layers for weight in masks_of(layer)]
    # Each budget once, so that its weights share it again after they are loaded.
    criteria = list({id(weight.criterion): weight.criterion for weight in weights}.values())
    index = {id(criterion): position for position, criterion in enumerate(criteria)}
    return {
        "criteria": [keras.saving.serialize_keras_object(criterion) for criterion in criteria],
        "weights": [
            {
                "layer": position,
                "class": type(layer).__name__,
                "weight": [id(v) for v in _keras.variables_made_trainable(layer)].index(id(weight.variable)),
                "criterion": index[id(weight.criterion)],
            }
            for position, layer in enumerate(layers)
            for weight in masks_of(layer)
        ],
        "frozen": frozen_models(model),
        "dropouts": [position for position, layer in enumerate(layers) if isinstance(pruning_of(layer), DropoutRate)],
    }


def _attach_recorded(model, record, custom_objects) -> None:
    layers = layers_in(model)
    rules = [keras.saving.deserialize_keras_object(config, custom_objects) for config in record["criteria"]]
    criteria = {}
    for entry in record["weights"]:
        layer = layers[entry["layer"]] if entry["layer"] < len(layers) else None
        if type(layer).__name__ != entry["class"]:
            raise ValueError(
                "The model has other layers than when it was saved: its constructor and build must make the same "
                f"ones. Expected: {entry['class']} as layer {entry['layer']}. "
                f"Received: model {model.name!r} with {len(layers)} layers and {type(layer).__name__} in its place"
            )
        criteria[id(layer), entry["weight"]] = rules[entry["criterion"]]

    def select(layer, variable, around):
        index = [id(v) for v in _keras.variables_made_trainable(layer)].index(id(variable))
        return True, criteria.get((id(layer), index))

    attach(model, select, keep_zeros=False, frozen=True)
