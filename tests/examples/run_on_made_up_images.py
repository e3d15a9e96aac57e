"""Runs an example on random images of TensorFlow Datasets: `run_on_made_up_images.py COUNT SCRIPT FLAGS...`.

Every split has the same COUNT images of noise. For imagenet.py, keras.applications builds a small network as VGG-16.
"""

import functools
import os
import runpy
import sys


def replace_vgg16():
    import keras  # Not above, since other examples choose their backend first.
    from keras import layers

    def small_vgg16(weights, input_shape, classifier_activation):
        inputs = keras.Input(input_shape)
        network = [
            layers.Conv2D(4, 3, padding="same", activation="relu", name="block1_conv1"),
            layers.MaxPooling2D(4, name="block1_pool"),
            layers.Flatten(name="flatten"),
            layers.Dense(16, "relu", name="fc1"),
            layers.Dense(16, "relu", name="fc2"),
            layers.Dense(1000, classifier_activation, name="predictions"),
        ]
        return keras.Model(inputs, functools.reduce(lambda outputs, layer: layer(outputs), network, inputs))

    keras.applications.VGG16 = small_vgg16


if __name__ == "__main__":
    import tensorflow_datasets as tfds  # Not above either, since it may be missing where tests are only collected.

    count, *sys.argv = sys.argv[1:]
    sys.path.insert(0, os.path.dirname(sys.argv[0]))
    if sys.argv[0].endswith("imagenet.py"):
        replace_vgg16()
    with tfds.testing.mock_data(num_examples=int(count)):
        runpy.run_path(sys.argv[0], run_name="__main__")
