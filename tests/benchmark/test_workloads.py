import keras
import numpy as np
import pytest

import keras_prune as kp
from keras_prune.benchmark.workloads import layer_workloads, model_workloads


def test_layer_workloads_have_the_densities_of_the_paper():
    workloads = layer_workloads("vgg16")
    assert [(w.name, w.density) for w in workloads] == [("vgg16/fc6", 0.04), ("vgg16/fc7", 0.04), ("vgg16/fc8", 0.23)]
    assert [(w.name, w.density) for w in layer_workloads("alexnet/fc8")] == [("alexnet/fc8", 0.25)]


@pytest.mark.parametrize("pattern", [kp.Pattern(), kp.Blocks((4, 1))])
def test_layer_workloads_have_the_density_and_the_pattern(pattern):
    kernel = layer_workloads("alexnet", [0.1])[2].build(pattern).get_weights()[0]
    assert kernel.shape == (4096, 1000)
    assert np.count_nonzero(kernel) / kernel.size == pytest.approx(0.1, rel=0.02)
    whole_blocks = (kernel.reshape(1024, 4, 1000) != 0).sum(axis=1)
    assert (set(np.unique(whole_blocks)) == {0, 4}) == (pattern == kp.Blocks((4, 1)))


def test_model_workloads_are_the_model_and_its_layers():
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(6, name="a"), keras.layers.Dense(2, name="b")])
    whole, first, second = model_workloads(model)
    assert whole.build(kp.Pattern()) is model
    assert whole.build(kp.Blocks((4, 1))) is None
    assert (first.name, second.name) == (f"{model.name}/a", f"{model.name}/b")
    np.testing.assert_array_equal(first.build(kp.Pattern()).get_weights()[0], model.get_weights()[0])
    assert first.build(kp.Blocks((4, 1))).get_weights()[0].shape == (8, 6)
    assert second.build(kp.Blocks((4, 1))) is None  # Six inputs do not make blocks of four.


def test_model_workloads_count_frozen_weights():
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, use_bias=False)])
    model.layers[0].kernel.assign([[1, 0]] * 4)
    for model.trainable in (True, False):
        assert [workload.density for workload in model_workloads(model)] == [0.5, 0.5]


@pytest.mark.parametrize(("network", "densities"), [("resnet", []), ("alexnet", [0.0]), ("alexnet", [1.5])])
def test_layer_workloads_reject_unknown_layers_and_densities(network, densities):
    with pytest.raises(ValueError, match="Received:"):
        layer_workloads(network, densities)
