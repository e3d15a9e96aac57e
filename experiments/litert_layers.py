"""Measures which layers LiteRT makes smaller or faster when they are pruned, in which pattern and from which share on.

    python experiments/litert_layers.py --output=docs/data/litert_layers.json
    python experiments/litert_layers.py --models=pruned.keras --output=docs/data/litert_lenet_300_100_blocks.json

Each layer stands alone in a model of random weights, is converted with `EXPERIMENTAL_SPARSITY` through Keras's own
export, and run on one thread with LiteRT's default delegate. The variants of a layer take turns, so that a slower
moment of the machine hits them all; times are medians in microseconds. `deployment_plan` says what this found.
"""

import json
import os
import pathlib
import platform
import time

import keras
import measurements
import numpy as np
import tensorflow as tf
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter
from keras import layers

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "JSON file for the measurements.", required=True)
flags.DEFINE_list("models", [], "Measure these saved models instead, against the dense network of the first.")
flags.DEFINE_string(
    "folder", "output/litert_layers", "Where the .tflite files are kept; one that is there is used again."
)
flags.DEFINE_integer("repeats", 30, "How many rounds of the variants of a layer.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "Inputs in one call.", lower_bound=1)

BLOCKS = kp.Blocks((4, 1))
KINDS = {
    "Dense 1024x1024": ((1024,), lambda: layers.Dense(1024)),
    "Dense of a sequence": ((32, 256), lambda: layers.Dense(256)),
    "EinsumDense": ((32, 256), lambda: layers.EinsumDense("abc,cd->abd", (None, 256))),
    "MultiHeadAttention": ((32, 128), lambda: layers.MultiHeadAttention(4, 32)),
    "Conv2D 3x3": ((28, 28, 64), lambda: layers.Conv2D(64, 3, padding="same")),
    "Conv2D 1x1": ((28, 28, 256), lambda: layers.Conv2D(256, 1)),
    "DepthwiseConv2D": ((28, 28, 256), lambda: layers.DepthwiseConv2D(3, padding="same")),
    "SeparableConv2D": ((28, 28, 128), lambda: layers.SeparableConv2D(128, 3, padding="same")),
    "Conv2DTranspose": ((14, 14, 64), lambda: layers.Conv2DTranspose(64, 3, strides=2, padding="same")),
    "Conv1D": ((128, 64), lambda: layers.Conv1D(64, 3, padding="same")),
    "LSTM": ((16, 128), lambda: layers.LSTM(128)),
    "GRU": ((16, 128), lambda: layers.GRU(128)),
    "Embedding": ((16,), lambda: layers.Embedding(4096, 128)),
}
DENSE_SHAPES = [(784, 300), (1024, 1024), (4096, 4096)]
SPARSITIES = [0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]


def alone(input_shape, make):
    """Returns a model of one layer with random weights."""
    keras.utils.set_random_seed(0)
    layer = make()
    inputs = keras.Input(input_shape, dtype="int32" if isinstance(layer, layers.Embedding) else "float32")
    attends = isinstance(layer, layers.MultiHeadAttention)
    return keras.Model(inputs, layer(inputs, inputs) if attends else layer(inputs))


def pruned(model, sparsity, pattern):
    """Returns a plain copy of a model in which every weight was cut."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kp.prune(copy, kp.TargetSparsity(sparsity, pattern))
    kp.cut(copy)
    return kp.strip(copy)


def convert(model, path):
    """Writes a sparsely encoded TFLite file."""
    signature = [keras.InputSpec(shape=(FLAGS.batch_size, *i.shape[1:]), dtype=i.dtype) for i in model.inputs]
    options = {"optimizations": [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]}
    model.export(path, format="litert", verbose=False, input_signature=signature, **options)


def measure(kind, makers):
    """Returns bytes, operators that unpack weights, and the median time of one call, for each of the named models."""
    runs = {}
    for name, make in makers.items():
        file = pathlib.Path(FLAGS.folder, f"{kind} {name}, batch {FLAGS.batch_size}.tflite".replace("/", "_"))
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            convert(make(), str(file))
        interpreter = Interpreter(str(file), num_threads=1)
        interpreter.allocate_tensors()
        (given,) = interpreter.get_input_details()
        x = np.random.default_rng(0).random(given["shape"])
        interpreter.set_tensor(given["index"], x.astype(given["dtype"]))
        interpreter.invoke()
        started = time.perf_counter()
        interpreter.invoke()
        # Enough calls for about ten milliseconds.
        runs[name] = file.stat().st_size, interpreter, max(1, int(0.01 / (time.perf_counter() - started)))
    times = {name: [] for name in runs}
    for _ in range(FLAGS.repeats):
        for name, (_, interpreter, calls) in runs.items():
            started = time.perf_counter()
            for _ in range(calls):
                interpreter.invoke()
            times[name].append((time.perf_counter() - started) / calls)
    return {
        name: {
            "bytes": size,
            "unpacked": sum(op["op_name"] == "DENSIFY" for op in interpreter._get_ops_details()),
            "microseconds": round(1e6 * float(np.median(times[name])), 2),
        }
        for name, (size, interpreter, _) in runs.items()
    }


def variants(model, sparsities):
    """Returns makers of the model itself and of its pruned copies, by name."""
    makers = {"dense": lambda: model}
    for name, pattern in (("single", None), ("4x1", BLOCKS)):
        for sparsity in sparsities:
            makers[f"{name} {sparsity:.0%}"] = lambda sparsity=sparsity, pattern=pattern: pruned(
                model, sparsity, pattern
            )
    return makers


def main(_):
    results = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "batch_size": FLAGS.batch_size}
    if FLAGS.models:

        def load(path):
            return kp.strip(keras.models.load_model(path, compile=False))

        # With random weights, none of them zero.
        makers = {"dense": lambda: keras.models.clone_model(load(FLAGS.models[0]))}
        makers |= {path: lambda path=path: load(path) for path in FLAGS.models}
        results["models"] = measure("", makers)
    else:
        for name, (shape, make) in KINDS.items():
            results[name] = measure(name, variants(alone(shape, make), [0.9]))
        for inputs, outputs in DENSE_SHAPES:
            name = f"Dense {inputs}x{outputs} by sparsity"
            model = alone((inputs,), lambda outputs=outputs: layers.Dense(outputs))
            results[name] = measure(name, variants(model, SPARSITIES))
    measurements.write(FLAGS.output, results)
    print(json.dumps(results, indent=1))


if __name__ == "__main__":
    app.run(main)
