"""Remove dead neurons with all their connections."""

from keras_prune.models.rebuild import plain_model, rebuild
from keras_prune.neurons.data_flow import follow
from keras_prune.neurons.report import DeadNeurons, summarize
from keras_prune.neurons.rules import rule_of


def remove_dead_neurons(model, verbose: int = 1):
    """Returns a smaller model with the same outputs, without the neurons that have no inputs or no outputs left.

    This is the last step of pruning (Han et al. 2015, section 3.5). A dead neuron is removed with its other
    connections. If these were the last connections of other neurons, those are removed too. A neuron without inputs
    still returns a constant, its activation of the bias. That constant is added to the bias of the next layer, which
    gets a bias if it has none. The outputs are equal up to the rounding of floating-point sums.

    Neurons, in a convolution its channels, are followed through `Dense`, convolutions, elementwise activations,
    `BatchNormalization`, pooling, zero padding, `Flatten` and dropout. They stay where they cannot be followed, at a
    merge, a recurrent or shared layer, or a normalization over neurons. They also stay where zero padding changes a
    constant. See `keras_prune.dead_neurons(model)` for the reasons. The model's inputs and outputs stay, and every
    layer keeps at least one neuron.

    Args:
        model: Built Sequential or Functional Keras 3 model, pruned or not. It is not changed.
        verbose: 1 prints one line with the removed neurons, 0 prints nothing. Defaults to `1`.

    Returns:
        A plain model of the same class with the same layer names, and smaller `units` and `filters`. If the model is
        compiled, so is the smaller one, with the same settings and a fresh optimizer.

    Raises:
        ValueError: If the model is not built or is not a Keras 3 model.

    Example:

    >>> import keras
    >>> import keras_prune as kp
    >>> import numpy as np
    >>> hidden = keras.layers.Dense(3, "relu", name="hidden")
    >>> head = keras.layers.Dense(1, name="head")
    >>> model = keras.Sequential([keras.Input((2,)), hidden, head])
    >>> hidden.set_weights([np.array([[1, 0, 1], [1, 0, 0]]), np.array([0, 3, 0])])  # The second returns relu(3).
    >>> head.set_weights([np.array([[1], [2], [1]]), np.array([0.5])])
    >>> small = kp.remove_dead_neurons(model)
    Removed 1 of 4 neurons: hidden 3 -> 2.
    >>> float(small.get_layer("head").bias[0])
    6.5
    """
    with plain_model(model) as plain:
        followed = follow(plain)
        small = _resized(plain, {id(one.layer): one.kept for one in followed if one.kept})
        dead = summarize(plain, followed)
    if verbose:
        print(_summary(dead))
    return small


def _resized(plain, kept):
    resized = []

    def resize(layer, copy_of):
        if id(layer) not in kept:
            return copy_of(layer)
        config, weights = rule_of(layer).resize(layer, kept[id(layer)])
        copy = type(layer).from_config(layer.get_config() | config)
        resized.append((copy, weights))
        return copy

    small = rebuild(plain, resize)
    for layer, weights in resized:
        for variable, weight in zip(layer.variables, weights, strict=True):
            variable.assign(weight)
    return small


def _summary(dead: DeadNeurons) -> str:
    line = f"Removed {dead.neurons - dead.kept:,} of {dead.neurons:,} neurons"
    shrunk = [f"{row.name} {row.neurons:,} -> {row.kept:,}" for row in dead.rows if row.kept != row.neurons]
    if shrunk:
        line += f": {', '.join(shrunk)}"
    if dead.left:
        line += f"; dead neurons that stay: {dead.left:,}, see keras_prune.dead_neurons(model)"
    return f"{line}."
