"""Import Keras without the lines that TensorFlow prints at its start: `import _quiet` before Keras.

`TF_CPP_MIN_LOG_LEVEL` alone, which is read too late by TensorFlow 2.21, leaves six of them.
"""

import os

from keras_prune.terminal.caught_output import caught_output

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

with caught_output():
    import keras  # noqa: F401
