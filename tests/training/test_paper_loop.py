"""Test of the paper's loop against NumPy: thresholds, masks and dropout rates over three rounds."""

import keras
import numpy as np

import keras_prune as kp
from keras_prune.layers import pruned_weights

QUALITY = 0.8


def test_cut_follows_the_paper_round_by_round():
    random = np.random.default_rng(0)
    kernels = [random.normal(size=shape).astype("float32") for shape in ((20, 30), (30, 5))]
    model = keras.Sequential(
        [
            keras.Input((20,)),
            keras.layers.Dense(30, "relu", use_bias=False, name="fc1"),
            keras.layers.Dropout(0.5, name="drop"),
            keras.layers.Dense(5, use_bias=False, name="fc2"),
        ]
    )
    model.set_weights(kernels)
    kp.prune(model, kp.StdThreshold(QUALITY))
    masks = [np.ones(kernel.shape, bool) for kernel in kernels]
    for _ in range(3):
        kp.cut(model)
        for i, weight in enumerate(pruned_weights(model)):
            # Below quality times the standard deviation of the survivors. Pruned connections stay pruned.
            threshold = QUALITY * kernels[i][masks[i]].std(dtype="float64")
            masks[i] &= np.abs(kernels[i]) >= threshold
            kernels[i] *= masks[i]
            np.testing.assert_allclose(float(keras.ops.convert_to_numpy(weight.threshold)), threshold, rtol=1e-5)
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight.mask), masks[i])
            np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight.variable), kernels[i])
        # D_r = D_o sqrt(C_r / C_o), for the connections into the layer that is dropped.
        rate = model.get_layer("drop").pruning.current_rate
        np.testing.assert_allclose(rate, 0.5 * np.sqrt(masks[0].mean()))
        # Survivors move in retraining, by the same steps on every backend.
        for i, weight in enumerate(pruned_weights(model)):
            kernels[i] += masks[i] * random.normal(scale=0.1, size=masks[i].shape).astype("float32")
            weight.variable.assign(kernels[i])
    assert [int(mask.sum()) for mask in masks] == EXPECTED


# With this seed, on TensorFlow, JAX and PyTorch alike.
EXPECTED = [106, 37]
