"""Engines on LiteRT, the runtime of `.tflite` files: dense, 8 bits, and sparse."""

import os
import tempfile

import keras

from keras_prune.benchmark.engine import Engine, threads
from keras_prune.rules.patterns import Blocks
from keras_prune.terminal.caught_output import caught_output


class LiteRT(Engine):
    """The LiteRT interpreter with its default delegate, float32. `weight_bytes` is the size of the file."""

    name = runtime = "LiteRT"
    baseline = True
    packages = ("ai_edge_litert", "tensorflow")
    optimizations: tuple[str, ...] = ()

    def __init__(self, model, device):
        from ai_edge_litert.interpreter import Interpreter

        with tempfile.TemporaryDirectory() as folder:
            path = os.path.join(folder, "model.tflite")
            self._convert(model, path)
            self.weight_bytes = os.path.getsize(path)
            with open(path, "rb") as file, caught_output():
                self.interpreter = Interpreter(model_content=file.read(), num_threads=threads())

    @classmethod
    def missing(cls):
        reason = super().missing()
        if reason is None and keras.backend.backend() != "tensorflow":
            reason = f"the export needs KERAS_BACKEND=tensorflow, and Keras runs on {keras.backend.backend()}"
        return reason

    def prepare(self, inputs):
        (taken,), (given,) = self.interpreter.get_input_details(), self.interpreter.get_output_details()
        self.interpreter.resize_tensor_input(taken["index"], inputs.shape)
        with caught_output():  # LiteRT prints which delegate it creates.
            self.interpreter.allocate_tensors()
        self.interpreter.set_tensor(taken["index"], inputs)

        def run():
            self.interpreter.invoke()
            return self.interpreter.get_tensor(given["index"])

        return run

    def _convert(self, model, path):
        import tensorflow as tf

        chosen = [getattr(tf.lite.Optimize, name) for name in self.optimizations]
        with caught_output():
            model.export(path, format="litert", verbose=False, **({"optimizations": chosen} if chosen else {}))


class LiteRTInt8(LiteRT):
    """Weights of 8 bits, float activations (dynamic range)."""

    name = "LiteRT int8"
    baseline = False
    optimizations = ("DEFAULT",)
    quantized = True
    tolerance = 0.1


class LiteRTSparse(LiteRT):
    """Sparse encoding. The runtime unpacks zeros outside of blocks into dense weights when it loads the file."""

    name = "LiteRT sparse"
    baseline = False
    optimizations = ("EXPERIMENTAL_SPARSITY",)


class LiteRTBlocks(LiteRTSparse):
    """Sparse encoding of zeros in blocks of 4 inputs of a neuron. LiteRT has a kernel for it."""

    name = "LiteRT sparse 4x1"
    pattern = Blocks((4, 1))
