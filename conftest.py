"""Leaves out the doctests of modules that need another backend of Keras or a package that is not installed."""

from importlib.util import find_spec

import keras

collect_ignore = []
if keras.backend.backend() != "tensorflow":
    collect_ignore.append("keras_prune/export/tflite.py")
if keras.backend.backend() == "torch":
    collect_ignore += ["keras_prune/export/xla.py", "keras_prune/sparse/conversion.py", "keras_prune/sparse/layers.py"]
if find_spec("scipy") is None:
    collect_ignore.append("keras_prune/benchmark/runner.py")
