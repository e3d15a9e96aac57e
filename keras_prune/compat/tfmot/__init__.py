"""The pruning interface of TensorFlow Model Optimization (tfmot) for Keras 3, on every backend.

Replace `import tensorflow_model_optimization as tfmot` by `import keras_prune.compat.tfmot as tfmot`. The guide "Coming
from tensorflow-model-optimization" lists what differs.

Example:

>>> import keras, keras_prune.compat.tfmot as tfmot
>>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
>>> model = tfmot.sparsity.keras.prune_low_magnitude(model)
>>> [layer.name for layer in model.layers]
['prune_low_magnitude_fc']
"""

from keras_prune import _lazy

_INSTEAD = {
    "clustering": "keras_prune does not share weights among connections.",
    "quantization": "Quantize after training, which keeps the zeros: keras_prune.export_tflite(model, filepath, "
    "quantization='full_int8', x=images), or model.quantize('int8') of Keras.",
}
# Lazy, so that `import keras_prune` can register the classes of pruned models in this folder and nothing else.
__all__, _attribute, __dir__ = _lazy.lazy_attributes(__name__, {"keras_prune.compat.tfmot.sparsity": [""]})


def __getattr__(name):
    if name in _INSTEAD:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. {_INSTEAD[name]}")
    return _attribute(name)
