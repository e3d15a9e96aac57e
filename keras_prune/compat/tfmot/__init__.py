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

from keras_prune.compat.tfmot import sparsity

__all__ = ["sparsity"]

_MISSING = {
    "clustering": "keras_prune does not share weights among connections yet",
    "experimental": "keras_prune has no parts of tfmot.experimental",
    "quantization": (
        "Quantize after training: keras_prune.export_tflite(model, filepath, quantization='full_int8', x=images), or "
        "model.quantize('int8') of Keras. Both keep the zeros"
    ),
}


def __getattr__(name):
    if name in _MISSING:
        raise AttributeError(f"keras_prune.compat.tfmot has no {name!r}. {_MISSING[name]}.")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
