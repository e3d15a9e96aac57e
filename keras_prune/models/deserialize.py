"""Make a model from its config."""

import functools
import types

import keras


def deserialize(config, custom_objects=None):
    """Returns the object that a config describes, in time that is linear in its layers.

    `Sequential.from_config` builds the model again after each of its layers, so that 800 layers are called 320,000
    times (Keras 3.15). Here, Sequential models are built once, after their last layer. In a copy of the config, they
    get a name that is registered for `_sequential`, because Keras looks up registered names first. A class with its own
    `from_config` or `add` is built by that.

    Args:
        config: Dict, as from `keras.saving.serialize_keras_object`. It is not changed.
        custom_objects: Dict from name to class or function. Defaults to `None`.
    """
    names = {}

    def renamed(node):
        if isinstance(node, list):
            return [renamed(one) for one in node]
        if not isinstance(node, dict):
            return node
        copy = {key: renamed(value) for key, value in node.items()}
        if "class_name" in node and (model_class := _sequential_class(node, custom_objects)):
            copy["registered_name"] = f"keras_prune>{model_class.__module__}.{model_class.__qualname__}"
            names[copy["registered_name"]] = types.SimpleNamespace(
                from_config=functools.partial(_sequential, model_class)
            )
        return copy

    config = renamed(config)
    with keras.saving.custom_object_scope(names):
        return keras.saving.deserialize_keras_object(config, custom_objects=custom_objects)


def _sequential_class(node, custom_objects) -> type | None:
    """Returns the class in a config if it is a Sequential class with the `from_config` and `add` of Keras."""
    name = node.get("registered_name")
    found = keras.saving.get_registered_object(name, custom_objects) if isinstance(name, str) else None
    if (node.get("module"), node["class_name"]) == ("keras", "Sequential"):
        found = found or keras.Sequential
    if not (isinstance(found, type) and issubclass(found, keras.Sequential) and found.add is keras.Sequential.add):
        return None
    from_config = getattr(found.from_config, "__func__", None)
    return found if from_config is keras.Sequential.from_config.__func__ else None


def _sequential(model_class, config):
    """Does what `Sequential.from_config` does, and builds once."""
    model = model_class(name=config["name"])
    layers = keras.saving.deserialize_keras_object(config["layers"])
    for layer in layers[:-1]:
        model.add(layer, rebuild=False)
    for layer in layers[-1:]:
        model.add(layer)
    if config.get("build_input_shape") and not model.built:
        model.build(config["build_input_shape"])
    return model
