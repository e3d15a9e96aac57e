"""Leaves out the doctests of modules that do not run on the backend of Keras."""

import keras

collect_ignore = []
if keras.backend.backend() != "tensorflow":
    collect_ignore.append("keras_prune/export/tflite.py")
if keras.backend.backend() == "torch":
    collect_ignore += ["keras_prune/export/xla.py", "keras_prune/sparse/conversion.py", "keras_prune/sparse/layers.py"]
