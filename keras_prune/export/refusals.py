"""Layers that no file can hold, or that crash the converter: refused by name before anything is written."""

import keras

from keras_prune.sparse.sparse_dense import SparseDense


def refuse_layers(model):
    """Refuses a model with layers that neither LiteRT nor XLA runs, wherever in it they are.

    Args:
        model: Keras model without masks and `Prune` wrappers.

    Raises:
        ValueError: If some of them are stateful or sparse.
    """
    layers = model._flatten_layers(include_self=False)
    _refuse(
        model,
        "stateful",
        [layer for layer in layers if isinstance(layer, keras.layers.RNN) and layer.stateful],
        "No file carries the state of recurrent layers from one batch to the next: build the model with stateful=False "
        "in them, and hand it the weights by set_weights(model.get_weights())",
    )
    sparse = [layer for layer in layers if isinstance(layer, SparseDense)]
    # ELL is made of gathers and sums. The other kernels end TensorFlow's converter, and with it the process.
    _refuse(
        model,
        "sparse",
        [layer for layer in sparse if layer.kernel == "csr" or not layer.supports_jit],
        "Neither LiteRT nor XLA has the operators of sparse layers: export the model as it was before to_sparse",
    )


def refuse_tflite_layers(model, weights: str):
    """Refuses a model with layers that TensorFlow's converter to TFLite cannot read, wherever in it they are.

    Args:
        model: Keras model without masks and `Prune` wrappers.
        weights: String, the format of the weights.

    Raises:
        ValueError: If some of them were quantized by Keras, or recurrent ones are to be calibrated in a loop.
    """
    layers = model._flatten_layers(include_self=False)
    _refuse(
        model,
        "quantized",
        [layer for layer in layers if getattr(layer, "quantization_mode", None)],
        "TensorFlow's converter cannot read layers that Keras has quantized: export the model as it was before, with "
        "weights='dynamic_int8'",
    )
    if weights == "full_int8":
        # Its calibrator reads values from inside the loop that are not there, which ends the process.
        _refuse(
            model,
            "recurrent",
            [layer for layer in layers if isinstance(layer, keras.layers.RNN) and not layer.unroll],
            "weights='full_int8' takes recurrent layers that are unrolled: build the model with unroll=True in them, "
            "and hand it the weights by set_weights(model.get_weights()); or choose weights='dynamic_int8'",
        )


def _refuse(model, kind, layers, message):
    if layers:
        names = sorted(layer.name for layer in layers)
        raise ValueError(f"{message}. Received: model={model.name!r} with the {kind} layers {names}")
