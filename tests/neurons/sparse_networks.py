"""Networks with dead neurons, and their outputs."""

import keras
import numpy as np
from helpers import array
from keras import layers


def randomize(model, density=0.3, seed=0):
    """Gives every weight a random value, and leaves a share of the connections of each kernel."""
    random = np.random.default_rng(seed)
    for variable in model.weights:
        value = random.normal(size=variable.shape)
        if "variance" in variable.name or "gamma" in variable.name:
            value = abs(value) + 0.5
        if len(variable.shape) > 1:
            value *= random.random(variable.shape[-2:]) < density
        variable.assign(value)
    return model


def outputs(model, seed=1):
    """Returns the outputs of a model for random inputs, in one array."""
    random = np.random.default_rng(seed)
    inputs = [random.normal(size=(5, *tensor.shape[1:])).astype("float32") for tensor in model.inputs]
    results = keras.tree.flatten(model(inputs[0] if len(inputs) == 1 else inputs))
    return np.concatenate([array(result).reshape(5, -1) for result in results], axis=1)


def assert_same_outputs(small, model):
    expected = outputs(model)
    np.testing.assert_allclose(outputs(small), expected, rtol=1e-5, atol=1e-5 * max(1, abs(expected).max()))


def row(report, name):
    (found,) = (row for row in report.rows if row.name == name)
    return found


def conv_net(*hidden, channels=6, shape=(8, 9, 2)):
    """A convolution, the given layers behind it, and a convolution as the head."""
    return keras.Sequential(
        [
            keras.Input(shape),
            layers.Conv2D(channels, 3, activation="tanh", name="conv"),
            *hidden,
            layers.Conv2D(3, 1, name="head"),
        ]
    )


def cut_inputs(layer, neurons):
    """Removes all connections into some neurons of a layer."""
    kernel = np.array(array(layer.kernel))
    kernel[..., neurons] = 0
    layer.kernel.assign(kernel)


def residual_net():
    inputs = keras.Input((6, 6, 2))
    start = layers.Conv2D(4, 3, padding="same", name="start")(inputs)
    x = layers.Conv2D(8, 3, padding="same", activation="relu", name="inner")(start)
    x = layers.Conv2D(4, 1, name="end")(x)
    x = layers.Add(name="add")([start, x])
    x = layers.GlobalAveragePooling2D()(x)
    return keras.Model(inputs, layers.Dense(3, name="head")(x))
