"""Leaves out the doctests of modules that need another backend of Keras or a package that is not installed."""

from importlib.util import find_spec

import keras

collect_ignore = []
if keras.backend.backend() != "tensorflow":
    collect_ignore.append("keras_prune/export/tflite.py")
if keras.backend.backend() == "torch":
    collect_ignore += [f"keras_prune/{name}.py" for name in ("export/xla", "sparse/conversion", "sparse/sparse_dense")]
if find_spec("ai_edge_litert") is None:
    collect_ignore.append("keras_prune/export/litert_runner.py")
if find_spec("scipy") is None:
    collect_ignore.append("keras_prune/benchmark/runner.py")
if find_spec("matplotlib") is None:
    collect_ignore += ["keras_prune/benchmark/figures.py", "keras_prune/plots"]
