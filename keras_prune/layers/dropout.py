"""Dropout whose rate decreases as the layer before it is pruned (Han et al. 2015, section 3.2)."""

import math

import keras
import numpy as np
from keras import ops

from keras_prune.layers.traversal import PruningState


class DropoutRate(PruningState):
    """The current rate of a `keras.layers.Dropout`, as its attribute `pruning`.

    With `C` of the `C_o` connections left, the rate is `rate x sqrt(C / C_o)`, because a sparse layer overfits less. In
    Keras, the rate of a `Dropout` is a constant of the compiled training step. Here it is a variable, saved with the
    model.
    """

    def __init__(self, layer):
        super().__init__(layer)
        # The rate, the share that is kept, and what the kept entries are multiplied by. All three are computed from the
        # rate in double precision as in Keras, so that the same entries are dropped.
        self.numbers = keras.Variable(np.zeros(3, "float32"), trainable=False, autocast=False, name="dropout_rate")
        self.set_rate(layer.rate)

    def set_rate(self, rate: float) -> None:
        """Sets the current rate."""
        self.__dict__["rate"] = float(rate)
        keep = 1.0 - rate
        self.numbers.assign(np.array([rate, keep, 1.0 / keep if keep > 0 else 0.0], "float32"))

    @property
    def current_rate(self) -> float:
        """The current rate, a float in [0, 1]."""
        stored = ops.convert_to_numpy(self.numbers)[0]
        exact = vars(self)["rate"]
        # `tf.train.Checkpoint` restores variables alone.
        return exact if np.float32(exact) == stored else float(stored)

    def follow(self, density: float) -> None:
        """Sets the rate for the share of connections left, `D_r = D_o x sqrt(C_r / C_o)`."""
        self.set_rate(self.owner().rate * math.sqrt(density))

    def drop(self, inputs):
        """Returns the inputs with entries dropped, with the noise of Keras for the current rate."""
        layer = self.owner()
        backend = keras.backend.backend()
        if backend == "torch":
            return keras.random.dropout(inputs, vars(self)["rate"], layer.noise_shape, layer.seed_generator)
        shape = ops.shape(inputs)
        if layer.noise_shape is not None:
            shape = tuple(n if wanted is None else wanted for n, wanted in zip(shape, layer.noise_shape, strict=True))
        rate, keep, scale = (ops.cast(self.numbers.value[i], inputs.dtype) for i in range(3))
        if backend == "jax":
            survives = ops.less(
                keras.random.uniform(shape, dtype="float32", seed=layer.seed_generator), self.numbers.value[1]
            )
            outputs = inputs / ops.where(keep > 0, keep, ops.ones_like(keep))
        else:
            survives = keras.random.uniform(shape, dtype=inputs.dtype, seed=layer.seed_generator) >= rate
            outputs = inputs * scale
        return ops.where(survives, outputs, ops.zeros_like(inputs))

    def save_own_variables(self, store):
        store["rate"] = np.float64(self.current_rate)
        # Keras saves no seeds. Without the seed, a resumed run would draw other noise and end with other masks.
        store["seed"] = self.owner().seed_generator.state

    def load_own_variables(self, store):
        if len(store.keys()):
            self.set_rate(float(np.asarray(store["rate"])))
            self.owner().seed_generator.state.assign(store["seed"])
