"""Settings of all tests, for a quiet TensorFlow, compiled JAX functions on disk, and equal random numbers."""

import os
import tempfile

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# JAX compiles every operation of every shape. A second run, and processes that tests start, load the results.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", os.path.join(tempfile.gettempdir(), "keras_prune_tests_jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")

import hypothesis
import keras
import pytest

# Scripts that tests start. Their backend may not be installed.
collect_ignore_glob = ["training/train_*.py"]

# How long an example takes depends on the machine.
hypothesis.settings.register_profile("without deadlines", deadline=None)
hypothesis.settings.load_profile("without deadlines")


@pytest.fixture(autouse=True)
def _same_random_numbers():
    keras.utils.set_random_seed(0)


@pytest.fixture
def mixed_float16():
    """Makes layers keep float32 variables and compute in float16."""
    keras.config.set_dtype_policy("mixed_float16")
    yield
    keras.config.set_dtype_policy("float32")
