"""The same connections are pruned as by tfmot 0.8.1, which printed the expected numbers."""

import keras
import numpy as np
import pytest
from helpers import array
from keras import layers

import keras_prune as kp
from keras_prune.compat import tfmot

s = tfmot.sparsity.keras
RANDOM = np.random.default_rng(0)


def mask(weight, sparsity=0.5, **arguments):
    criterion = s.prune_low_magnitude(layers.Dense(1), **arguments).criterion
    weight = np.asarray(weight, "float32")
    return array(criterion(weight, np.ones(weight.shape, "bool"), sparsity).mask)


@pytest.mark.parametrize(("size", "sparsity", "kept"), [(10, 0.25, 8), (7, 0.5, 4), (10, 0.45, 6), (10, 0.99, 1)])
def test_the_number_of_connections_left_is_rounded_to_even(size, sparsity, kept):
    assert mask(RANDOM.normal(size=(size, 1)), sparsity).sum() == kept


def test_equal_magnitudes_are_kept_together():
    assert mask([[1.0], [-2.0], [2.0], [2.0]], 0.75).ravel().tolist() == [False, True, True, True]
    assert mask(np.zeros((4, 1))).all()


@pytest.mark.parametrize(("pooling", "kept"), [("AVG", [1, 1, 0, 0]), ("MAX", [0, 0, 1, 1])])
def test_blocks_are_scored_by_their_pooling(pooling, kept):
    weight = [[2.0], [2.0], [0.0], [3.0]]
    made = mask(weight, block_size=(2, 1), block_pooling_type=pooling)
    assert made.ravel().tolist() == [bool(one) for one in kept]


def test_m_by_n_follows_the_input_channels_of_each_tap():
    weight = RANDOM.normal(size=(3, 3, 6, 2))
    left = mask(weight, sparsity_m_by_n=(2, 4))
    assert (left[:, :, :4].sum(axis=2) == 2).all()
    assert left[:, :, 4:].all()  # In a group of two, none need be zero.


@pytest.mark.parametrize("shape", [(5, 5, 1, 4), (4,)])
def test_m_by_n_prunes_nothing_of_a_single_input_channel(shape):
    assert mask(RANDOM.normal(size=shape), sparsity_m_by_n=(2, 4)).all()


def test_m_by_n_counts_the_zeros():
    assert mask(RANDOM.normal(size=(9, 2)), sparsity_m_by_n=(2, 3)).sum() == 6


def pruned(layer, shape):
    wrapper = s.prune_low_magnitude(layer)
    wrapper.build((None, *shape))
    return [weight.name for weight in wrapper.get_prunable_weights()]


@pytest.mark.parametrize(
    ("layer", "shape", "names"),
    [
        (layers.Dense(2), (4,), ["kernel"]),
        (layers.Dense(2, trainable=False), (4,), ["kernel"]),
        (layers.SeparableConv2D(2, 2), (4, 4, 3), ["pointwise_kernel"]),
        (layers.SeparableConv1D(2, 2), (4, 3), ["pointwise_kernel"]),
        (layers.LSTM(2), (4, 3), ["kernel", "recurrent_kernel"]),
        (layers.RNN([layers.GRUCell(2), layers.GRUCell(2)]), (4, 3), ["kernel", "recurrent_kernel"] * 2),
        (layers.Conv2DTranspose(2, 2), (4, 4, 3), ["kernel"]),
    ],
)
def test_kernels_are_pruned(layer, shape, names):
    assert pruned(layer, shape) == names
    assert [weight.name for weight in layer.get_prunable_weights()] == names


def test_kernels_of_multi_head_attention_are_pruned():
    inputs = keras.Input((4, 3))
    layer = layers.MultiHeadAttention(2, 2)
    model = s.prune_low_magnitude(keras.Model(inputs, layer(query=inputs, value=inputs)))
    kernels = [layer.query_dense.kernel, layer.key_dense.kernel, layer.value_dense.kernel, layer.output_dense.kernel]
    assert {id(one) for one in model.layers[-1].get_prunable_weights()} == {*map(id, kernels)}


class WithBias(layers.Dense, s.PrunableLayer):
    def get_prunable_weights(self):
        return [self.kernel, self.bias]


def test_a_layer_names_its_weights_itself():
    assert pruned(WithBias(2), (4,)) == ["kernel", "bias"]


@pytest.mark.parametrize(
    "layer", [layers.DepthwiseConv2D(2), layers.Flatten(), layers.BatchNormalization(), layers.Dropout(0.5)]
)
def test_layers_without_prunable_weights_pass_through(layer):
    assert s.prune_low_magnitude(layer) is layer


def test_an_unknown_layer_without_weights_stays_usable():
    wrapper = s.prune_low_magnitude(layers.Rescaling(2.0))
    assert array(wrapper(np.ones((1, 2)))).tolist() == [[2.0, 2.0]]
    assert wrapper.get_prunable_weights() == []


@pytest.mark.parametrize(("layer", "shape"), [(layers.Conv2D(2, 2), (None, 4, 4, 3)), (WithBias(2), (None, 4))])
def test_blocks_refuse_weights_of_other_dimensions(layer, shape):
    wrapper = s.prune_low_magnitude(layer, block_size=(1, 2))
    with pytest.raises(ValueError, match="of two dimensions"):
        wrapper.build(shape)


@pytest.mark.parametrize(
    "arguments", [{"block_pooling_type": "MIN"}, {"block_size": (0, 1)}, {"sparsity_m_by_n": (4, 4)}]
)
def test_invalid_arguments_are_refused(arguments):
    with pytest.raises(ValueError, match="Received"):
        s.prune_low_magnitude(layers.Dense(2), **arguments)


def test_cut_without_a_sparsity_is_refused():
    model = s.prune_low_magnitude(keras.Sequential([keras.Input((4,)), layers.Dense(2)]))
    with pytest.raises(ValueError, match="needs a sparsity"):
        kp.cut(model)
    assert kp.cut(model, 0.75)[0].kept == 2
