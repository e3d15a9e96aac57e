"""Private names of Keras, each behind a function that says what it is for.

All were read in Keras 3.15, the oldest version that the package accepts.
"""

import contextlib

import keras
from keras import ops
from keras.src.backend.common import global_state
from keras.src.backend.common.variables import initialize_all_variables
from keras.src.models.functional import Functional
from keras.src.ops.node import Node
from keras.src.saving import saving_lib


def layers_of(layer) -> list:
    """Returns the layers that a layer holds itself. `model.layers` exists for models only."""
    return list(layer._layers)


def variables_made_trainable(layer) -> list:
    """Returns the variables that a layer itself made as trainable ones, frozen since or not.

    `trainable_variables` has those of inner layers too, and is empty while the layer is frozen.
    """
    return list(layer._trainable_variables)


def inbound_nodes(operation) -> list[Node]:
    """Returns the calls of an operation in Functional models. There is no public list of them."""
    return list(operation._inbound_nodes)


def add_layer(layer, name: str, inner) -> None:
    """Sets `layer.<name> = inner` on a layer that is built. Keras allows new state only before."""
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        setattr(layer, name, inner)
    finally:
        if locked:
            tracker.lock()


def remove_layer(layer, name: str) -> None:
    """Undoes `add_layer`: `delattr` alone leaves the inner layer in the list of layers."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def forget_variables(layer, paths: set[str]) -> None:
    """Takes variables of inner layers out of a layer's PyTorch parameters, in which Keras lists all of them."""
    parameters = vars(layer).get("_modules", {}).get("_torch_params")
    for path in paths.intersection(parameters or ()):
        parameters.pop(path)


def is_functional_call(model) -> bool:
    """Whether a model runs its graph of layers, because its class does not define `call`."""
    return type(model).call in (Functional.call, keras.Sequential.call, keras.layers.Layer.call)


def is_quantized(layer) -> bool:
    """Whether `quantize` changed the layer. `quantization_mode` is set for layers that ignore it, too."""
    return getattr(layer, "_is_quantized", False)


def strategy_scope(model):
    """The scope of the `tf.distribute.Strategy` that a model was made in, to make variables like its own.

    The public `distribute_strategy` is the current strategy, not the model's, where it was made in none.
    """
    strategy = getattr(model, "_distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def stateless_scope():
    """Returns the active `keras.StatelessScope`, or `None`."""
    return global_state.get_global_attribute("stateless_scope")


class inside:
    """Context in which `scope` is the active stateless scope, and variables are read as they are stored, not cast."""

    def __init__(self, scope):
        self.scopes = {"stateless_scope": scope, "autocast_scope": None}

    def __enter__(self):
        self.before = {name: global_state.get_global_attribute(name) for name in self.scopes}
        for name, scope in self.scopes.items():
            global_state.set_global_attribute(name, scope)

    def __exit__(self, *exception):
        for name, scope in self.before.items():
            global_state.set_global_attribute(name, scope)


def stored_value(variable):
    """Returns the value of a variable outside of any scope; `None` if it is not initialized yet."""
    return variable._value


def initialize_variables() -> None:
    """Initializes the variables that were made in a stateless scope. Keras does it when the scope ends."""
    initialize_all_variables()


def keep_strides(mask, variable) -> None:
    """Gives a new mask the strides of its weight.

    `torch.where` lays its result out like the mask. A matrix product of a weight in another layout rounds differently.
    """
    if keras.backend.backend() == "torch" and variable._value is not None and mask._value is not None:
        stride = variable._value.stride()
        if mask._value.stride() != stride:
            mask._value.data = mask._value.data.new_empty_strided(variable.shape, stride).copy_(mask._value.data)


def where_kept(mask, variable):
    """Returns a weight with zeros where its mask is `False`, as a tensor.

    Each layer does this at each eager call on PyTorch, where `ops.where` takes five times as long as `torch.where`.
    """
    if keras.backend.backend() != "torch":
        return ops.where(mask.value, variable.value, 0.0)
    import torch

    masked = torch.where(mask.value, variable.value, 0.0)
    # PyTorch chooses by it how `matmul` computes and rounds, even where no gradient is recorded.
    if not masked.requires_grad and variable.trainable and not torch.compiler.is_compiling():
        masked.requires_grad_()
    return masked


def get_keras_mask(tensor):
    """Returns the mask that `Masking` or `Embedding(mask_zero=True)` attached to a tensor."""
    return getattr(tensor, "_keras_mask", None)


def set_keras_mask(tensor, mask) -> None:
    """Attaches the mask of time steps to a tensor."""
    if mask is not None:
        tensor._keras_mask = mask


def unpickle(model_class, buffer):
    """Returns the function that unpickles a model in Keras, and its arguments."""
    return model_class._unpickle_model, (buffer,)


def save_to_buffer(model, buffer) -> None:
    """Writes a model with its state into a buffer, as Keras does to pickle it."""
    saving_lib._save_model_to_fileobj(model, buffer, "h5")


def has_keras_class(model) -> bool:
    """Whether a model is of Keras's Sequential or Functional class itself. `Functional` has no public name."""
    return type(model) in (Functional, keras.Sequential)


def origin_of(tensor) -> tuple:
    """Returns the operation that made a symbolic tensor, and the position of the call among its `inbound_nodes`."""
    operation, node_index, _ = tensor._keras_history
    return operation, node_index


def compile_arguments(model) -> dict:
    """Returns the arguments of `compile`, objects and not their configs, which `get_compile_config` gives."""
    return dict(model._compile_config.config)


def has_schedule(optimizer) -> bool:
    """Whether the learning rate of an optimizer is a schedule. `learning_rate` is its value at present."""
    return isinstance(optimizer._learning_rate, keras.optimizers.schedules.LearningRateSchedule)
