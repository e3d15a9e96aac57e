"""Reject layers that an exported file cannot hold, or that crash the converter, before anything is written."""

import keras

from keras_prune import _keras
from keras_prune.export.sample import CALIBRATED
from keras_prune.layers.traversal import layers_in
from keras_prune.sparse.sparse_dense import SparseDense


def refuse_layers(model) -> None:
    """Rejects a model with layers that neither LiteRT nor XLA runs, at any depth.

    Args:
        model: Keras model without masks and `Prune` wrappers.

    Raises:
        ValueError: If a layer is stateful or sparse.
    """
    _refuse(
        model,
        "stateful",
        lambda layer: isinstance(layer, keras.layers.RNN) and layer.stateful,
        "An exported file cannot carry the state of recurrent layers from one batch to the next. Build the model with "
        "stateful=False in them, and copy the weights with set_weights(model.get_weights())",
    )
    _refuse(
        model,
        "sparse",
        # ELL consists of gathers and sums. The other kernels crash TensorFlow's converter, and with it the process.
        lambda layer: isinstance(layer, SparseDense) and (layer.format == "csr" or not layer.supports_jit),
        "Neither LiteRT nor XLA has the operators of sparse layers. Export the model as it was before to_sparse",
    )


def refuse_tflite_layers(model, quantization: str | None) -> None:
    """Rejects a model with layers that TensorFlow's converter to TFLite cannot read, at any depth.

    Args:
        model: Keras model without masks and `Prune` wrappers.
        quantization: String or `None`, as for `export_tflite`.

    Raises:
        ValueError: If Keras quantized a layer, or a recurrent layer that is not unrolled would be calibrated.
    """
    _refuse(
        model,
        "quantized",
        _keras.is_quantized,
        "TensorFlow's converter cannot read layers that Keras has quantized. Export the model as it was before, with "
        "quantization='dynamic_int8'",
    )
    if quantization in CALIBRATED:
        _refuse(
            model,
            "recurrent",
            # The calibrator reads values inside the loop that do not exist, which crashes the process.
            lambda layer: isinstance(layer, keras.layers.RNN) and not layer.unroll,
            f"quantization={quantization!r} requires recurrent layers to be unrolled. Build the model with unroll=True "
            "in them, and copy the weights with set_weights(model.get_weights()), or use quantization='dynamic_int8'",
        )


def _refuse(model, kind, is_refused, message):
    if names := sorted(layer.name for layer in layers_in(model) if is_refused(layer)):
        raise ValueError(f"{message}. Received: model={model.name!r} with the {kind} layers {names}")
