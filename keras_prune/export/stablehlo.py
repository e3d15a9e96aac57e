"""Write and run StableHLO modules with the weights inside, on TensorFlow and JAX."""

import keras
import numpy as np

from keras_prune import _keras
from keras_prune.export.sample import Sample, pack_inputs


def write(model, path: str, inputs) -> None:
    """Writes a StableHLO module for one batch size.

    On JAX, `jax.export.deserialize` reads it.

    Args:
        model: Plain Keras model with a graph.
        path: String, a new file.
        inputs: List of one array for each input, of the batch size.
    """
    function = _with_constants(model)
    if keras.backend.backend() == "jax":
        import jax

        shapes = [jax.ShapeDtypeStruct(array.shape, array.dtype) for array in inputs]
        module = jax.export.export(jax.jit(function))(*shapes).serialize()
    else:
        import tensorflow as tf

        specs = [tf.TensorSpec(array.shape, array.dtype) for array in inputs]
        compiler_ir = tf.function(function, jit_compile=True).experimental_get_compiler_ir(*specs)
        module = compiler_ir(stage="stablehlo_serialized")
    with open(path, "xb") as file:
        file.write(module)


def run(path: str, sample: Sample) -> dict[str, np.ndarray]:
    """Returns the outputs of a module for a sample, each of shape `(runs, batch_size, ...)`."""
    with open(path, "rb") as file:
        module = file.read()
    if keras.backend.backend() == "jax":
        import jax

        call = jax.export.deserialize(bytearray(module)).call
    else:
        # A module does not tell TensorFlow the types of its outputs.
        dtypes = [array.dtype for array in sample.outputs.values()]
        shapes = [array.shape[1:] for array in sample.outputs.values()]
        call = _keras.stablehlo_function(module, dtypes, shapes)

    columns = zip(*(call(*inputs) for inputs in sample.runs), strict=True)
    return {name: np.stack(arrays) for name, arrays in zip(sample.outputs, columns, strict=True)}


def _with_constants(model):
    """Returns a function of the inputs of a model, in their order, with the weights as constants."""
    trainable = [keras.ops.convert_to_numpy(variable.value) for variable in model.trainable_variables]
    others = [keras.ops.convert_to_numpy(variable.value) for variable in model.non_trainable_variables]

    def call(*inputs):
        constants = [[keras.ops.convert_to_tensor(value) for value in values] for values in (trainable, others)]
        outputs, _ = model.stateless_call(*constants, pack_inputs(model, inputs), training=False)
        return list(outputs.values()) if isinstance(outputs, dict) else keras.tree.flatten(outputs)

    return call
