"""Convert a pruned model to one with sparse layers."""

import math

import keras
import numpy as np
from keras import ops

from keras_prune.layers.kinds import CONVOLUTIONS
from keras_prune.models.graph import is_weight_layer, leaf_layers
from keras_prune.models.rebuild import plain_model, rebuild
from keras_prune.rules.chunks import on_host
from keras_prune.sparse.matrices import MATRICES
from keras_prune.sparse.sparse_dense import SparseDense, require_kernel
from keras_prune.sparse.timing import interleave


def to_sparse(model, kernel: str = "auto", batch_size: int = 1, verbose: int = 1):
    """Returns a copy of a model whose dense layers hold and multiply only the connections that are left.

    Converted are `Dense` layers and the 1x1 convolutions that are dense layers at every position (stride 1, channels
    last); everything else stays as it is. Other convolutions stay dense because they are faster so: at the densities
    that pruning reaches, gathering the patches costs more than the zeros save (docs/benchmark.md). The result is for
    inference: `predict`, `evaluate`, `save` and, on TensorFlow, `export`; its sparse layers do not train.

    Args:
        model: Built model that Keras can rebuild from its config, pruned or plain. It is not changed.
        kernel: `"auto"` times every layer dense and with each sparse kernel, once, on this machine, and takes the
            fastest; `"csr"`, `"coo"` or `"ell"` converts every layer that can be converted (see `SparseDense`).
            Defaults to `"auto"`.
        batch_size: Integer, inputs per call for which `"auto"` chooses. Defaults to `1`.
        verbose: 0 or 1, whether to print what became of every layer with connections, and why. Defaults to `1`.

    Returns:
        A model of the same class. A compiled model comes back compiled with the same settings.

    Raises:
        ValueError: If an argument is none of the above, if the model is not built or not of Keras 3, if it has no
            layer that can be converted, or if the Keras backend has no sparse kernels here.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300, kernel_initializer="zeros", name="fc")])
    >>> sparse = kp.to_sparse(model, kernel="csr")
    fc: csr, as asked; 0.0 % of 235,200 connections in 2,404 bytes, dense 942,000
    >>> type(sparse.layers[0]).__name__, sparse.layers[0].connections
    ('SparseDense', 0)
    """
    require_kernel("csr" if kernel == "auto" else kernel)
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(f"batch_size must be an integer of at least 1. Received: batch_size={batch_size!r}")
    with plain_model(model) as plain:
        sparse_model, lines = _converted(plain, kernel, batch_size)
    if verbose:
        print("\n".join(lines))
    return sparse_model


def _converted(model, kernel, batch_size):
    converted, lines = {}, []

    def convert(layer, copy_of):
        if not is_weight_layer(layer):
            return copy_of(layer)
        reason = _stays_dense(layer)
        if reason:
            lines.append(f"{layer.name}: dense; {reason}")
            return copy_of(layer)
        converted[id(layer)] = layer
        chosen, why = (kernel, "as asked") if kernel != "auto" else _fastest(layer, batch_size)
        sparse = None if chosen == "dense" else SparseDense.of(layer, chosen)
        lines.append(f"{layer.name}: {chosen}, {why}; {_memory(layer, sparse)}")
        return sparse or copy_of(layer)

    sparse_model = rebuild(model, convert)
    if not converted:
        reasons = "; ".join(lines) or f"its layers are {[layer.name for layer in leaf_layers(model)]}"
        raise ValueError(
            "to_sparse converts Dense layers and 1x1 convolutions with stride 1, and the model has none. "
            f"Received: model={model.name!r}, where {reasons}"
        )
    return sparse_model, lines


def _stays_dense(layer) -> str | None:
    """Returns why a layer with connections cannot be converted."""
    # The exact class: a subclass may compute something else.
    if type(layer) not in (keras.layers.Dense, *CONVOLUTIONS):
        return f"a {type(layer).__name__} has no sparse counterpart here"
    if isinstance(layer, CONVOLUTIONS):
        if set(layer.kernel_size) != {1}:
            return "a convolution over several places is faster dense"
        if set(layer.strides) != {1} or layer.groups != 1 or layer.data_format != "channels_last":
            return "of the 1x1 convolutions those with stride 1, one group and channels last are converted"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return "it is quantized or has LoRA weights"
    if layer.kernel.dtype != "float32":
        return f"its weight is of dtype {layer.kernel.dtype}, not float32"
    return None


def _memory(layer, sparse) -> str:
    kernel = on_host(layer.kernel.value)
    line = f"{np.count_nonzero(kernel) / kernel.size:.1%} of {kernel.size:,} connections".replace("%", " %")
    dense = 4 * sum(math.prod(weight.shape) for weight in layer.weights)
    return line + (f" in {sparse.weight_bytes:,} bytes, dense {dense:,}" if sparse else "")


def _fastest(layer, batch_size) -> tuple[str, str]:
    """Returns the fastest kernel for a layer, or `"dense"`, and the reason."""
    # A size that is not known, such as that of an image, counts as one.
    shape = (batch_size, *(size or 1 for size in layer.get_build_config()["input_shape"][1:]))
    inputs = np.random.default_rng(0).normal(size=shape).astype(layer.compute_dtype)
    layers = {"dense": layer}
    layers |= {kernel: SparseDense.of(layer, kernel) for kernel in MATRICES[keras.backend.backend()]}
    times = interleave({kernel: compiled(layer, inputs) for kernel, layer in layers.items()})
    medians = {kernel: np.median(seconds) * 1e6 for kernel, seconds in times.items()}
    chosen = min(medians, key=medians.__getitem__)
    others = ", ".join(f"{medians[kernel]:,.0f} {kernel}" for kernel in layers if kernel != chosen)
    return chosen, f"{medians[chosen]:,.0f} us against {others} at batch {batch_size}"


def compiled(layer, inputs):
    """Returns a function without arguments that runs a layer or model on `inputs`, compiled as its backend does."""
    inputs = ops.convert_to_tensor(inputs)
    if keras.backend.backend() == "jax":
        import jax

        # Weights are arguments: what a compiled function closes over, it folds into its constants.
        call = jax.jit(lambda *state: layer.stateless_call(*state)[0])
        state = ([v.value for v in layer.trainable_variables], [v.value for v in layer.non_trainable_variables])
        return lambda: jax.block_until_ready(call(*state, inputs))
    import tensorflow as tf

    call = tf.function(layer).get_concrete_function(inputs)

    def run():
        outputs = call(inputs)
        tf.test.experimental.sync_devices()
        return outputs

    return run
