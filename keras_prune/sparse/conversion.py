"""Convert a pruned model to one with sparse layers."""

import math

import keras
import numpy as np
from keras import ops

from keras_prune._arguments import require_integer
from keras_prune._processes import process_count
from keras_prune.layers.kinds import CONVOLUTIONS
from keras_prune.models.checks import require_built
from keras_prune.models.graph import is_weight_layer, leaf_layers
from keras_prune.models.rebuild import plain_model, rebuild
from keras_prune.rules.chunks import on_host
from keras_prune.sparse.matrices import MATRICES
from keras_prune.sparse.sparse_dense import SparseDense, require_format
from keras_prune.sparse.timing import interleave


def to_sparse(model, format: str = "auto", batch_size: int = 1, verbose: int = 1):
    """Returns a copy of a model whose dense layers store only their nonzero weights.

    `Dense` layers and 1x1 convolutions (stride 1, one group, channels last) are converted. Other convolutions stay
    dense, because at the densities of pruning, gathering the patches takes more time than the zeros save
    (docs/results/runtimes.md). The copy is for inference with `predict`, `evaluate`, `save` and, on TensorFlow,
    `export`. Its sparse layers cannot be trained.

    Args:
        model: Built model that Keras can rebuild from its config, pruned or plain. It is not changed.
        format: Layout of the sparse layers. `"auto"` times each layer dense and in each format on this machine, and
            chooses the fastest. It needs a single process. `"csr"`, `"coo"` or `"ell"` converts all layers that can be
            converted (see `SparseDense`). Defaults to `"auto"`.
        batch_size: Integer, the number of inputs with which `"auto"` times the layers. Defaults to `1`.
        verbose: 0 or 1, whether to print how each layer with connections was converted. Defaults to `1`.

    Returns:
        A model of the same class. If `model` is compiled, it is compiled with the same arguments.

    Raises:
        ValueError: If `format` or `batch_size` is invalid, if the model is not a built Keras 3 model or has no layer
            that can be converted, if there are no sparse layers for the Keras backend, or if several processes would
            have to choose a format together.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(300, kernel_initializer="zeros", name="fc")])
    >>> sparse = kp.to_sparse(model, format="csr")
    fc: csr, as requested; 0.0% of 235,200 connections in 2,404 bytes, dense 942,000
    >>> type(sparse.layers[0]).__name__, sparse.layers[0].connections
    ('SparseDense', 0)
    """
    require_built(model)
    require_format("csr" if format == "auto" else format)
    require_integer("batch_size", batch_size, 1)
    if format == "auto" and process_count(model) > 1:
        raise ValueError(
            "Several processes cannot time layers together, because they may choose different formats. Pass "
            'format="csr", "coo" or "ell", or convert the model in a single process. Received: '
            f"format='auto' in one of {process_count(model)} processes"
        )
    with plain_model(model) as plain:
        sparse_model, lines = _converted(plain, format, batch_size)
    if verbose:
        print("\n".join(lines))
    return sparse_model


def _converted(model, format, batch_size):
    converted, lines = {}, []

    def convert(layer, copy_of):
        if not is_weight_layer(layer):
            return copy_of(layer)
        reason = _stays_dense(layer)
        if reason:
            lines.append(f"{layer.name}: dense; {reason}")
            return copy_of(layer)
        converted[id(layer)] = layer
        chosen, why = (format, "as requested") if format != "auto" else _fastest(layer, batch_size)
        sparse = None if chosen == "dense" else SparseDense.of(layer, chosen)
        lines.append(f"{layer.name}: {chosen}, {why}; {_memory(layer, sparse)}")
        return sparse or copy_of(layer)

    sparse_model = rebuild(model, convert)
    if not converted:
        reasons = "; ".join(lines) or f"its layers are {[layer.name for layer in leaf_layers(model)]}"
        raise ValueError(
            "`to_sparse` converts Dense layers and 1x1 convolutions with stride 1, but the model has none. "
            f"Received: model={model.name!r}, where {reasons}"
        )
    return sparse_model, lines


def _stays_dense(layer) -> str | None:
    """Returns why a layer with connections cannot be converted."""
    # The exact class: a subclass may compute something else.
    if type(layer) not in (keras.layers.Dense, *CONVOLUTIONS):
        return f"there is no sparse {type(layer).__name__}"
    if isinstance(layer, CONVOLUTIONS):
        if set(layer.kernel_size) != {1}:
            return "a convolution of several positions is faster dense"
        if set(layer.strides) != {1} or layer.groups != 1 or layer.data_format != "channels_last":
            return "a 1x1 convolution must have stride 1, one group and channels last"
    if getattr(layer, "quantization_mode", None) or getattr(layer, "lora_enabled", False):
        return "it is quantized or has LoRA weights"
    if layer.kernel.dtype != "float32":
        return f"its kernel has dtype {layer.kernel.dtype}, not float32"
    return None


def _memory(layer, sparse) -> str:
    kernel = on_host(layer.kernel.value)
    line = f"{np.count_nonzero(kernel) / kernel.size:.1%} of {kernel.size:,} connections"
    dense = 4 * sum(math.prod(weight.shape) for weight in layer.weights)
    return line + (f" in {sparse.weight_bytes:,} bytes, dense {dense:,}" if sparse else "")


def _fastest(layer, batch_size) -> tuple[str, str]:
    """Returns the fastest format for a layer, or `"dense"`, and the reason."""
    # An unknown size, such as that of an image, counts as one.
    shape = (batch_size, *(size or 1 for size in layer.get_build_config()["input_shape"][1:]))
    inputs = np.random.default_rng(0).normal(size=shape).astype(layer.compute_dtype)
    layers = {"dense": layer}
    layers |= {format: SparseDense.of(layer, format) for format in MATRICES[keras.backend.backend()]}
    times = interleave({name: compiled(layer, inputs) for name, layer in layers.items()})
    medians = {name: np.median(seconds) * 1e6 for name, seconds in times.items()}
    chosen = min(medians, key=medians.__getitem__)
    others = ", ".join(f"{medians[name]:,.0f} {name}" for name in layers if name != chosen)
    return chosen, f"{medians[chosen]:,.0f} us against {others} at batch {batch_size}"


def compiled(layer, inputs):
    """Returns a function without arguments that runs a layer or model on `inputs`, compiled by the backend."""
    inputs = ops.convert_to_tensor(inputs)
    if keras.backend.backend() == "jax":
        import jax

        # Weights are arguments, because arrays in the closure of a compiled function are folded as constants.
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
