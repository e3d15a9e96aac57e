"""Private names of Keras and its backends, each behind a function.

Each docstring describes the function, why no public name does the same, and the version in which this was checked.
Keras 3.15 is the oldest version that the package accepts.
"""

import contextlib
import sys

import keras
from keras import ops
from keras.src.backend.common import global_state
from keras.src.models.functional import Functional
from keras.src.saving import saving_lib
from keras.src.saving.serialization_lib import SafeModeScope


def layers_of(layer) -> list:
    """Returns the layers that a layer holds itself. Only models have `layers` (Keras 3.15)."""
    return list(layer._layers)


def variables_made_trainable(layer) -> list:
    """Returns the trainable variables of a layer itself, frozen or not. No public name lists them (Keras 3.15)."""
    return list(layer._trainable_variables)


def inbound_nodes(operation) -> list:
    """Returns the calls of an operation in Functional models. No public name lists them (Keras 3.15)."""
    return list(operation._inbound_nodes)


def add_layer(layer, name: str, inner) -> None:
    """Sets `layer.<name> = inner` on a built layer. Keras locks the state of a layer at `build` (Keras 3.15)."""
    tracker = layer._tracker
    locked = tracker.locked
    tracker.unlock()
    try:
        setattr(layer, name, inner)
    finally:
        if locked:
            tracker.lock()


def remove_layer(layer, name: str) -> None:
    """Undoes `add_layer`. `delattr` alone leaves the inner layer in the list of layers (Keras 3.15)."""
    layer._tracker.untrack(getattr(layer, name))
    delattr(layer, name)


def forget_variables(layer, paths: set[str]) -> None:
    """Removes variables from the PyTorch parameters of a layer. Keras itself only adds them (Keras 3.15)."""
    parameters = vars(layer).get("_modules", {}).get("_torch_params")
    for path in paths.intersection(parameters or ()):
        parameters.pop(path)


def is_functional_call(model) -> bool:
    """Whether a model runs its graph because it has no own `call`. `Functional` is not public (Keras 3.15)."""
    return type(model).call in (Functional.call, keras.Sequential.call, keras.layers.Layer.call)


def is_quantized(layer) -> bool:
    """Whether `quantize` changed a layer. `quantization_mode` is also set if it did not (Keras 3.15)."""
    return getattr(layer, "_is_quantized", False)


def strategy_scope(model):
    """Returns the scope a model was created in. `distribute_strategy` may be the current one (Keras 3.15)."""
    strategy = getattr(model, "_distribute_strategy", None)
    return contextlib.nullcontext() if strategy is None else strategy.scope()


def stateless_scope():
    """Returns the active `keras.StatelessScope` or `None`. Only the class is public (Keras 3.15)."""
    return global_state.get_global_attribute("stateless_scope")


class _swapped(dict):
    """Context in which global attributes of Keras have the values of this dict, in the current thread."""

    def __enter__(self, *_):
        for name, value in self.items():
            self[name] = global_state.get_global_attribute(name)
            global_state.set_global_attribute(name, value)

    __exit__ = __enter__


def inside(scope):
    """Context in which `scope` is the active stateless scope, and variables are read without autocasting.

    Entering the public `keras.StatelessScope` again would not suspend the scopes around it (Keras 3.15).
    """
    return _swapped(stateless_scope=scope, autocast_scope=None)


def is_training() -> bool:
    """Whether the current call is in training mode. Keras only passes it to an argument `training` (Keras 3.15)."""
    return bool(getattr(global_state.get_global_attribute("current_call_ctx"), "training", False))


def keep_input_shape(wrapper, layer) -> None:
    """Gives a wrapper the argument `input_shape` of its layer, which `Sequential` reads from the first (Keras 3.15)."""
    if not hasattr(wrapper, "_input_shape_arg") and hasattr(layer, "_input_shape_arg"):
        wrapper._input_shape_arg = layer._input_shape_arg


def stored_value(variable):
    """Returns the value outside of scopes, or `None`. The public `value` is that of the scope (Keras 3.15)."""
    return variable._value


def layout_of(variable):
    """Returns the layout of a variable over devices, or `None`. Only the argument is public (Keras 3.15)."""
    return getattr(variable, "_layout", None)


def keep_strides(mask, variable) -> None:
    """Gives a new mask the strides of its PyTorch weight.

    `torch.where` returns the layout of the mask, and a matrix product in another layout rounds differently. The public
    `assign` keeps the strides of the variable (Keras 3.15).
    """
    if keras.backend.backend() == "torch" and variable._value is not None and mask._value is not None:
        stride = variable._value.stride()
        if mask._value.stride() != stride:
            mask._value.data = mask._value.data.new_empty_strided(variable.shape, stride).copy_(mask._value.data)


def copy_keras_mask(source, target) -> None:
    """Gives a tensor the mask of time steps of another. No public function reads or sets it (Keras 3.15)."""
    if getattr(source, "_keras_mask", None) is not None:
        target._keras_mask = source._keras_mask


def unpickle(model_class, buffer):
    """Returns the model in a buffer of `save_to_buffer`, which no public function reads (Keras 3.15)."""
    return model_class._unpickle_model(buffer)


def save_to_buffer(model, buffer) -> None:
    """Writes a model with its state into a buffer. The public `save` only writes to a path (Keras 3.15)."""
    saving_lib._save_model_to_fileobj(model, buffer, "h5")


def has_keras_class(model) -> bool:
    """Whether a model is exactly of the class `Sequential` or `Functional`, which has no public name (Keras 3.15)."""
    return type(model) in (Functional, keras.Sequential)


def origin_of(tensor) -> tuple:
    """Returns the operation of a symbolic tensor and the index of its call, which are not public (Keras 3.15)."""
    operation, node_index, _ = tensor._keras_history
    return operation, node_index


def compile_arguments(model) -> dict:
    """Returns the arguments of `compile` as objects. `get_compile_config` returns their configs (Keras 3.15)."""
    return dict(model._compile_config.config)


def schedule_of(optimizer):
    """Returns the schedule of an optimizer or `None`. `learning_rate` is its current value (Keras 3.15)."""
    schedule = getattr(optimizer, "_learning_rate", None)
    return schedule if callable(schedule) else None


def slots_of(optimizer) -> tuple[list, dict[str, list]]:
    """Returns the variables that an optimizer trains, and by attribute its lists of one slot for each of them.

    The public `variables` lists all slots in one sequence, without the weights they belong to (Keras 3.15).
    """
    trained = optimizer._trainable_variables
    lists = {name: held for name, held in vars(optimizer).items() if isinstance(held, list) and held is not trained}
    return trained, {name: held for name, held in lists.items() if len(held) == len(trained)}


def set_initial_epoch(model, epoch: int | None) -> None:
    """Sets the epoch at which `fit` starts, for which callbacks have no public name (Keras 3.15)."""
    model._initial_epoch = epoch


class _NameScopes(list):
    """Stack of the name scopes of a thread. No stateless scope is active in the scopes of optimizers."""

    def append(self, scope):
        super().append(scope)
        if isinstance(scope.caller, keras.optimizers.Optimizer):
            scope.outside = inside(None)
            scope.outside.__enter__()

    def pop(self):
        scope = super().pop()
        if hasattr(scope, "outside"):
            scope.outside.__exit__()


@contextlib.contextmanager
def declaring():
    """Context in which variables get a shape but no memory, yields the list of them.

    Leave it before you call `allocate`. At the end of a `keras.StatelessScope`, Keras would initialize all variables,
    even of a model that was rejected. Variables of optimizers get their values at once. The constructor of a model may
    call `compile`, and optimizers create variables with values, which Keras refuses in the scope (Keras 3.15).
    """
    declared: list = []
    names = _NameScopes(global_state.get_global_attribute("name_scope_stack", []))
    variables = _swapped(uninitialized_variables=declared, name_scope_stack=names)
    with variables, keras.StatelessScope(initialize_variables=False):
        yield declared


def allocate(variables, initializers, layers) -> None:
    """Gives variables from `declaring` in these layers their first values, one after the other.

    `initializers` maps the `id` of a variable to a function of shape and dtype. Other variables keep the initializer
    of their layer. `assign` would first allocate and initialize the variable (Keras 3.15).
    """
    trained = {id(variable) for layer in layers for variable in layer._trainable_variables}
    for variable in variables:
        variable._initializer = initializers.get(id(variable), variable._initializer)
        # TensorFlow never trains a variable that is created untrainable, as in a layer that is frozen until later.
        trainable, variable.trainable = variable.trainable, variable.trainable or id(variable) in trained
        variable._deferred_initialize()
        variable.trainable = trainable


def safe_mode():
    """Context in which configs cannot run code, even after `enable_unsafe_deserialization()` (Keras 3.15)."""
    return SafeModeScope(True)


def attribute_of(layer, name: str):
    """Returns an attribute set on a layer itself, or `None`. PyTorch stores inner layers apart (PyTorch 2.13)."""
    return vars(layer).get(name) or vars(layer).get("_modules", {}).get(name)


def replace_layers(model, replacements: dict) -> None:
    """Replaces layers, by `id`, in the attributes of a model, including those in lists and dicts.

    `setattr` alone would append the new layer, which changes the order of `model.layers` (Keras 3.15). Attributes in
    which Keras, PyTorch and TensorFlow track layers are left out, because they follow the others.
    """
    for layer in model.layers:
        model._tracker.replace_tracked_value("layers", layer, replacements[id(layer)])
    for name, held in {**vars(model), **vars(model).get("_modules", {})}.items():
        value = getattr(held, "__wrapped__", held)  # TensorFlow wraps tuples.
        held_here = any(id(leaf) in replacements for leaf in keras.tree.flatten(value))
        if held_here and name not in ("_layers", "_modules") and not name.startswith("_self_"):
            setattr(model, name, keras.tree.map_structure(lambda leaf: replacements.get(id(leaf), leaf), value))


def set_trainable(model, trainable: bool) -> None:
    """Sets `trainable` of a model alone. The public attribute would also set all inner layers (Keras 3.15)."""
    model._trainable = trainable


def lambda_output_shape(layer):
    """Returns `output_shape` of a `Lambda` layer. `get_config` serializes it if it is a function (Keras 3.15)."""
    return layer._output_shape


def metric_directions(model) -> dict[str, str]:
    """Returns `"up"` or `"down"` for each compiled metric of a model that says which values are better.

    Only callbacks such as `EarlyStopping(mode="auto")` read it, and `model.metrics` lists the containers alone. The
    metrics exist once the model was trained or evaluated (Keras 3.15).
    """
    metrics = [metric for container in model.metrics for metric in getattr(container, "metrics", [])]
    return {metric.name: metric._direction for metric in metrics if hasattr(metric, "_direction")}


def batches_seen(optimizer) -> int:
    """Returns the number of batches, accumulated ones included. `iterations` counts updates (Keras 3.15)."""
    # Through NumPy, because a variable under `tf.distribute` does not support int().
    return int(ops.convert_to_numpy(optimizer._iterations))


def graph_structures(model) -> tuple:
    """Returns the nested inputs and outputs of a graph. `inputs` and `outputs` are flat lists (Keras 3.15)."""
    function = getattr(model, "_functional", model)  # A Sequential model keeps its graph there.
    return function._inputs_struct, function._outputs_struct


def stablehlo_function(module: bytes, dtypes, shapes):
    """Returns a serialized StableHLO module as a function of its inputs, compiled for the CPU at its first call.

    The operator `XlaCallModule` has no public name (TensorFlow 2.21).
    """
    import tensorflow as tf
    from tensorflow.compiler.tf2xla.python import xla

    settings = {"version": 9, "module": module, "Tout": dtypes, "Sout": shapes, "platforms": ["CPU"]}
    return tf.function(lambda *inputs: xla.call_module(inputs, **settings), jit_compile=True)


def saved_model_cli() -> list[str]:
    """Returns the command `saved_model_cli`. The public script may not be on the path (TensorFlow 2.21)."""
    return [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli"]
