"""Set the random seeds that training uses, so that a resumed run draws the same noise."""

import keras
import numpy as np


def reseed(model, seed: int) -> None:
    """Sets the global seeds and the seeds that layers hold, some of which are not saved with a model."""
    keras.utils.set_random_seed(seed)
    random = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.name == "seed_generator_state":
            variable.assign(random.integers(2**31, size=variable.shape))
