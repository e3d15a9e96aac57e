"""Leaves out the doctests that export with TensorFlow where Keras runs on something else."""

import keras

collect_ignore = []
if keras.backend.backend() != "tensorflow":
    collect_ignore.append("keras_prune/export/tflite.py")
if keras.backend.backend() == "torch":
    collect_ignore.append("keras_prune/export/xla.py")
