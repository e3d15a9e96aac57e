"""Seeds: noise that depends on the time alone, so that a run that was stopped draws what it would have drawn."""

import keras
import numpy as np


def reseed(model, seed: int) -> None:
    """Sets the global seeds and those that layers hold, not all of which are saved with a model."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign(random.integers(2**31, size=variable.shape))
