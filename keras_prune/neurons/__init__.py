"""Find and remove dead neurons, which have no incoming or no outgoing connection."""

from keras_prune.neurons.report import dead_neurons
from keras_prune.neurons.shrink import remove_dead_neurons

__all__ = ["dead_neurons", "remove_dead_neurons"]
