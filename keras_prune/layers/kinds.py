"""Kinds of Keras layers that the package treats alike.

Match them with `isinstance`, so that subclasses count. Where what a class computes matters, use `computes_like`.
"""

from keras import layers

# Matrix products over the last axes.
DENSE = (layers.Dense, layers.EinsumDense)
# Convolutions in which each output channel reads all channels of its group.
CONVOLUTIONS = (layers.Conv1D, layers.Conv2D, layers.Conv3D)
# Convolutions in which each output channel reads one channel.
DEPTHWISE_CONVOLUTIONS = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
# A depthwise convolution and a pointwise one, each with its own kernel.
SEPARABLE_CONVOLUTIONS = (layers.SeparableConv1D, layers.SeparableConv2D)
# Convolutions that upsample. They compute once for each position of the input, all others for each of the output.
TRANSPOSED_CONVOLUTIONS = (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose)
# Cells of recurrent layers with gates, of two kernels each. LiteRT has dense and sparse products for them.
GATED = (layers.LSTMCell, layers.GRUCell)
# Layers whose zeros TensorFlow's converter was seen to leave out of a `.tflite` file.
SPARSE_IN_TFLITE = (
    *DENSE,
    *GATED,
    layers.Conv1D,
    layers.Conv2D,
    *DEPTHWISE_CONVOLUTIONS,
    *SEPARABLE_CONVOLUTIONS,
    layers.Conv1DTranspose,
    layers.Conv2DTranspose,
)
# Layers that use their kernels once for each time step.
RECURRENT = (layers.RNN, layers.Bidirectional)
# Layers that call a layer inside them at each time step.
LOOPS = (layers.RNN, layers.TimeDistributed)

# Activations without weights that act on each value alone.
ELEMENTWISE = (layers.ReLU, layers.LeakyReLU, layers.ELU)
# All layers that do nothing but activate.
ACTIVATIONS = (layers.Activation, *ELEMENTWISE, layers.PReLU, layers.Softmax)
# Layers that normalize activations with statistics of a batch or of one input.
NORMALIZATIONS = (
    layers.BatchNormalization,
    layers.LayerNormalization,
    layers.GroupNormalization,
    layers.RMSNormalization,
    layers.UnitNormalization,
)
# Layers that drop at random while training, at a `rate`.
DROPOUTS = (
    layers.Dropout,
    layers.SpatialDropout1D,
    layers.SpatialDropout2D,
    layers.SpatialDropout3D,
    layers.GaussianDropout,
    layers.AlphaDropout,
)
# Layers that return their inputs outside of training.
ONLY_IN_TRAINING = (*DROPOUTS, layers.GaussianNoise)
# Layers that reduce each channel over positions. They leave the padding out, so a constant does not change.
POOLING = (
    layers.AveragePooling1D,
    layers.AveragePooling2D,
    layers.AveragePooling3D,
    layers.GlobalAveragePooling1D,
    layers.GlobalAveragePooling2D,
    layers.GlobalAveragePooling3D,
    layers.GlobalMaxPooling1D,
    layers.GlobalMaxPooling2D,
    layers.GlobalMaxPooling3D,
    layers.MaxPooling1D,
    layers.MaxPooling2D,
    layers.MaxPooling3D,
)
# Layers that add zeros around each channel.
ZERO_PADDING = (layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D)
# Layers that move values to other places.
RESHAPING = (layers.Flatten, layers.Reshape, layers.Permute)
# Layers whose outputs still count as those of the weight layer before them, because they do not mix neurons.
TRANSPARENT = (*ACTIVATIONS, *NORMALIZATIONS, *ONLY_IN_TRAINING, *POOLING, *ZERO_PADDING, *RESHAPING)


def computes_like(layer, kinds) -> bool:
    """Whether a layer is of one of the kinds, and its class does not replace the `call` of that kind."""
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in kinds)
