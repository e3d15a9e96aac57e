"""Dropout whose rate can change while training, since it follows the connections."""

import keras
from keras import ops


@keras.saving.register_keras_serializable(package="keras_prune")
class PrunedDropout(keras.layers.Dropout):
    """A dropout whose rate follows the connections of the layer it drops (Han et al. 2015, section 3.2).

    With `C` of the `C_o` connections left, the rate is `rate x sqrt(C / C_o)`: a sparse layer overfits less. Keras'
    own `Dropout` bakes its rate into the compiled training step; here it is a variable, saved with the model.

    Args:
        rate: Float in [0, 1], the rate for the dense layer.
        source: String, the name of the layer whose outputs are dropped. Defaults to `None`: the rate stays.
        noise_shape: Tuple as in `keras.layers.Dropout`. Defaults to `None`, every entry dropped on its own.
        seed: Integer. Defaults to `None`, a random one.

    Input shape: any. Output shape: the same.

    Example:

    >>> import keras_prune as kp
    >>> dropout = kp.PrunedDropout(0.5, source="fc6")
    >>> dropout.build((None, 4096))
    >>> dropout.follow(density=0.09)
    >>> round(float(dropout.current_rate), 4)
    0.15
    """

    def __init__(self, rate: float, source: str | None = None, noise_shape=None, seed=None, **kwargs):
        if not 0 <= rate <= 1:
            raise ValueError(f"rate is the share of entries to drop, in [0, 1]. Received: rate={rate}")
        super().__init__(rate, noise_shape=noise_shape, seed=seed, **kwargs)
        self.source = source

    def build(self, input_shape=None):
        self.current_rate = self.add_weight(
            shape=(),
            initializer=keras.initializers.Constant(self.rate),
            dtype="float32",
            trainable=False,
            autocast=False,
            name="current_rate",
        )

    def follow(self, density: float) -> None:
        """Sets the rate for the share of connections left, `D_r = D_o x sqrt(C_r / C_o)`."""
        self.current_rate.assign(self.rate * density**0.5)

    def call(self, inputs, training=False):
        if not training or self.rate == 0:
            return inputs
        noise_shape = ops.shape(inputs)
        if self.noise_shape is not None:
            noise_shape = tuple(
                size if wanted is None else wanted for size, wanted in zip(noise_shape, self.noise_shape, strict=True)
            )
        keep = 1.0 - self.current_rate.value
        survives = keras.random.uniform(noise_shape, dtype="float32", seed=self.seed_generator) < keep
        # Where all are dropped, nothing is divided by zero.
        scale = 1.0 / ops.where(keep > 0, keep, 1.0)
        return ops.where(survives, inputs * ops.cast(scale, inputs.dtype), ops.zeros_like(inputs))

    def save_own_variables(self, store):
        # Keras saves no seeds. Without its seed a run that was stopped would go on with other noise, to other masks.
        for variable in self.variables:
            store[variable.name] = variable

    def load_own_variables(self, store):
        for variable in self.variables:
            variable.assign(store[variable.name])

    def get_config(self):
        return {**super().get_config(), "source": self.source}
