"""Configs that could run code, read files or fill the memory are rejected."""

import inspect

import pytest
from keras import layers

from keras_prune.storage.config_check import require_harmless


def thing(path, **others):
    module, _, name = path.rpartition(".")
    return {"module": module, "class_name": name, "config": {}, "registered_name": None} | others


def function(path):
    return thing("builtins.function", module=path.rpartition(".")[0], config=path.rpartition(".")[2])


HARMFUL = {
    "Python code": thing("keras.layers.Lambda"),
    "Python code without a module": {"class_name": "Lambda", "config": {}},
    "Python code of a function": {"class_name": "__lambda__", "config": {"value": {}}},
    "a name with a dot": thing("keras.layers.Lambda", module="keras", class_name="layers.Lambda"),
    "a private module": thing("keras.src.layers.core.lambda_layer.Lambda"),
    "a registered name": thing("none.Dense", registered_name="package>Lambda"),
    "a pickled module": thing("keras.layers.TorchModuleWrapper"),
    "a SavedModel": thing("keras.layers.TFSMLayer"),
    "functions of JAX": thing("keras.layers.JaxLayer"),
    "a vocabulary": thing("keras.layers.StringLookup", config={"vocabulary": "/etc/passwd"}),
    "a vocabulary of KerasHub": thing("keras_hub.src.tokenizers.byte_tokenizer.ByteTokenizer"),
    "a registered vocabulary": thing("none.Dense", registered_name="keras_hub>WordPieceTokenizer"),
    "a download": function("keras.utils.get_file"),
    "a data set": function("keras.datasets.mnist.load_data"),
    "pretrained weights": thing("keras.applications.VGG16"),
    "a metric": thing("keras.metrics.AUC", config={"num_thresholds": 10**12}),
    "long strings": {"class_name": "__numpy__", "config": {"value": ["a"], "dtype": "U1000000000"}},
    "a call of numbers": thing("keras.src.ops.numpy.Arange", inbound_nodes=[{"args": [10**12], "kwargs": {}}]),
}


@pytest.mark.parametrize("harmful", [pytest.param(config, id=name) for name, config in HARMFUL.items()])
def test_require_harmless_rejects_objects_anywhere(harmful):
    inner = thing("keras.layers.TimeDistributed", config={"layer": harmful})
    activation = thing("keras.layers.Dense", config={"activation": harmful})
    deep = harmful
    for _ in range(10_000):
        deep = [deep]
    for config in (harmful, inner, {"layers": [activation]}, {"more": deep}):
        with pytest.raises(ValueError, match=r"must not hold|must be of dtype|a symbolic input"):
            require_harmless(config)


def layer_classes():
    return {name: one for name, one in vars(layers).items() if isinstance(one, type) and issubclass(one, layers.Layer)}


def test_harmful_layers_of_keras_are_known():
    """A layer is harmful if it has a safe mode or reads a file. `from_config` of others only calls the constructor."""
    found = {
        name
        for name, one in layer_classes().items()
        if hasattr(one, "save_assets") or "safe_mode" in inspect.signature(one.from_config).parameters
    }
    assert {"Lambda", "StringLookup", "TFSMLayer", "TorchModuleWrapper"} <= found
    for name in found:
        with pytest.raises(ValueError, match=f"must not hold keras.layers.{name}"):
            require_harmless([thing(f"keras.layers.{name}")])


def test_other_layers_are_harmless():
    rejected = set()
    for name, one in layer_classes().items():
        for path in (f"keras.layers.{name}", f"{one.__module__}.{name}"):
            try:
                require_harmless(thing(path))
            except ValueError:
                rejected.add(name)
    found = {"Lambda", "TorchModuleWrapper", "TFSMLayer", "JaxLayer", "FlaxLayer"}
    assert rejected == found | {"IntegerLookup", "StringLookup", "TextVectorization"}
    require_harmless(function("builtins.relu"))
    require_harmless(function("my_package.layers.activation"))


def test_require_harmless_removes_compile_configs():
    config = thing("keras.Sequential", compile_config={"metrics": [thing("keras.metrics.AUC")]})
    require_harmless([config])
    assert "compile_config" not in config
