"""Dead neurons, those that no connection leads to or from: find and remove them."""

from keras_prune.neurons.report import dead_neurons
from keras_prune.neurons.shrink import remove_dead_neurons

__all__ = ["dead_neurons", "remove_dead_neurons"]
