"""What every test starts from: a quiet TensorFlow and the same random numbers."""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import hypothesis
import keras
import pytest

# How long an example takes is the machine's business.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed_float16():
    """Layers made in the test keep float32 variables and compute in float16."""
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")
