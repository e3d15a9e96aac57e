import keras
import pytest


@pytest.fixture(autouse=True, scope="module")
def initial_zeros():
    """JAX compiles the drawing of initial weights again for every shape. `randomize` draws them instead."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(keras.initializers.GlorotUniform, "__call__", keras.initializers.Zeros.__call__)
        yield
