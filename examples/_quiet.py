"""Import Keras without the lines that TensorFlow prints at its start: `import _quiet` before Keras.

`TF_CPP_MIN_LOG_LEVEL` alone leaves six lines, because TensorFlow 2.21 reads it too late. TensorFlow Datasets logs each
dataset that it reads, at a level that `absl.app.run` turns on.
"""

import logging
import os

from keras_prune.terminal.caught_output import caught_output

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
logging.getLogger("absl").addFilter(lambda record: record.levelno >= logging.WARNING)

with caught_output():
    import keras  # noqa: F401
