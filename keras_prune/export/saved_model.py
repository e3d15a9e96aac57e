"""Write and run TensorFlow SavedModels whose serving function XLA compiles."""

import keras
import numpy as np

from keras_prune.export.sample import Sample, input_name, pack_inputs


def write(model, path: str, inputs) -> None:
    """Writes a SavedModel for any batch size.

    Args:
        model: Plain Keras model with a graph.
        path: String, a new folder.
        inputs: List of one array for each input. Only the axes behind the batch matter.
    """
    save(model, path, [(None, *tensor.shape[1:]) for tensor in model.inputs])


def save(model, path: str, shapes) -> None:
    """Writes a SavedModel for inputs of the given shapes."""
    import tensorflow as tf

    specs = [
        tf.TensorSpec(shape, tensor.dtype, name=input_name(tensor))
        for shape, tensor in zip(shapes, model.inputs, strict=True)
    ]
    function = tf.function(
        lambda inputs: model(inputs, training=False), jit_compile=True, input_signature=[pack_inputs(model, specs)]
    )
    archive = keras.export.ExportArchive()  # To `track` the model as well would store its variables twice.
    archive.add_endpoint("serve", function)
    archive.write_out(path, verbose=False)


def run(path: str, sample: Sample) -> dict[str, np.ndarray]:
    """Returns the outputs of a SavedModel for a sample, each of shape `(runs, batch_size, ...)`."""
    import tensorflow as tf

    loaded = tf.saved_model.load(path)  # Its functions need it alive.
    serve = loaded.signatures["serving_default"]
    results = [serve(**dict(zip(sample.names, map(tf.constant, run), strict=True))) for run in sample.runs]
    return {name: np.stack([result[name].numpy() for result in results]) for name in results[0]}
