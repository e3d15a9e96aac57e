"""Measures which pruned layers LiteRT makes smaller or faster, in which pattern, and from which share of zeros on.

    python experiments/litert_layers.py --output=docs/data/litert_layers.json
    python experiments/litert_layers.py --models=output/blocks_0.keras --output=output/litert.json
    python experiments/litert_layers.py --table --output=docs/data/litert_layers.json

Each layer is in its own model with random weights. It is converted with `EXPERIMENTAL_SPARSITY` through the export of
Keras, and run on one thread with LiteRT's default delegate. The variants of a layer take turns, so that a slow moment
of the machine affects all of them. Times are medians in microseconds. `deployment_plan` uses these results.
"""

import os
import pathlib
import platform
import time

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("output", None, "JSON file for the measurements.", required=True)
flags.DEFINE_list("models", [], "Saved models to measure instead, beside the dense network of the first.")
flags.DEFINE_string("folder", "output/litert_layers", "Folder for the .tflite files. Existing files are used again.")
flags.DEFINE_integer("repeats", 30, "Number of rounds of the variants of a layer.", lower_bound=1)
flags.DEFINE_integer("batch_size", 1, "Inputs in one call.", lower_bound=1)
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")

DENSE_SHAPES = [(784, 300), (1024, 1024), (4096, 4096)]
SPARSITIES = [0.25, 0.35, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95]


def kinds():
    """Returns the input shape of each kind of layer, and a function that creates it."""
    from keras import layers

    return {
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


def alone(input_shape, make):
    """Returns a model of one layer with random weights."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    layer = make()
    inputs = keras.Input(input_shape, dtype="int32" if isinstance(layer, layers.Embedding) else "float32")
    attends = isinstance(layer, layers.MultiHeadAttention)
    return keras.Model(inputs, layer(inputs, inputs) if attends else layer(inputs))


def pruned(model, sparsity, pattern):
    """Returns a plain copy of a model with all weights pruned."""
    import keras

    import keras_prune as kp

    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    kp.prune(copy, kp.TargetSparsity(sparsity, pattern))
    kp.cut(copy)
    return kp.strip(copy)


def convert(model, path):
    """Writes a sparsely encoded TFLite file."""
    import keras
    import tensorflow as tf

    signature = [keras.InputSpec(shape=(FLAGS.batch_size, *i.shape[1:]), dtype=i.dtype) for i in model.inputs]
    options = {"optimizations": [tf.lite.Optimize.EXPERIMENTAL_SPARSITY]}
    model.export(path, format="litert", verbose=False, input_signature=signature, **options)


def measure(kind, makers):
    """Returns bytes, operators that unpack weights, and the median time of one call, for each named model."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

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
    """Returns functions that create the model and its pruned copies, by name."""
    import keras_prune as kp

    makers = {"dense": lambda: model}
    for name, pattern in (("single", None), ("4x1", kp.Blocks((4, 1)))):
        for sparsity in sparsities:
            makers[f"{name} {sparsity:.0%}"] = lambda sparsity=sparsity, pattern=pattern: pruned(
                model, sparsity, pattern
            )
    return makers


def measure_models():
    """Returns the measurements of saved models and of the dense network of the first."""
    import keras

    import keras_prune as kp

    def load(path):
        return kp.strip(keras.models.load_model(path, compile=False))

    # With random weights without zeros.
    makers = {"dense": lambda: keras.models.clone_model(load(FLAGS.models[0]))}
    makers |= {path: lambda path=path: load(path) for path in FLAGS.models}
    return {"models": measure("", makers)}


def measure_layers():
    """Returns the measurements of each kind of layer, and of dense layers at several sparsities."""
    from keras import layers

    results = {}
    for name, (shape, make) in kinds().items():
        results[name] = measure(name, variants(alone(shape, make), [0.9]))
    for inputs, outputs in DENSE_SHAPES:
        name = f"Dense {inputs}x{outputs} by sparsity"
        model = alone((inputs,), lambda outputs=outputs: layers.Dense(outputs))
        results[name] = measure(name, variants(model, SPARSITIES))
    return results


def gains(layer, variant):
    """Returns how many times smaller and faster than the dense layer a variant is."""
    dense, one = layer["dense"], layer[variant]
    smaller, faster = (dense[key] / one[key] for key in ("bytes", "microseconds"))
    return f"{smaller:.1f}x, {faster:.2f}x"


def layer_tables(results):
    """Returns the gains of each kind of layer at 90% zeros, and of dense layers at several sparsities."""
    shapes = [f"{inputs}x{outputs}" for inputs, outputs in DENSE_SHAPES]
    lines = ["**Layers with 90% zeros**", ""]
    lines += ["| | single: smaller, faster | blocks of 4x1: smaller, faster |", "|---|---|---|"]
    for name, layer in results.items():
        if isinstance(layer, dict) and "single 90%" in layer and "single 50%" not in layer:
            lines.append(f"| {name} | {gains(layer, 'single 90%')} | {gains(layer, '4x1 90%')} |")
    lines += ["", "**Dense layers by sparsity**", ""]
    lines += [f"| zeros | {' | '.join(f'{shape}, single | {shape}, 4x1' for shape in shapes)} |"]
    lines += ["|---|" + "---|" * 2 * len(shapes)]
    for sparsity in SPARSITIES:
        layers = [results[f"Dense {shape} by sparsity"] for shape in shapes]
        cells = [gains(layer, f"{kind} {sparsity:.0%}") for layer in layers for kind in ("single", "4x1")]
        lines.append(f"| {sparsity:.0%} | {' | '.join(cells)} |")
    return "\n".join(lines)


def model_table(models):
    """Returns the gains of LeNet-300-100 beside its errors, which `examples/mnist.py` counted."""
    kinds = {"blocks": ("blocks of 4x1", "lenet_300_100_blocks"), "single": ("single", "mnist")}
    dense = models.pop("dense")
    columns = ("zeros", "test error, dense", "test error, pruned", "compression", "fc1, fc2, fc3 kept", "bytes", "time")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    lines.append(f"| none | | | 1x | | {dense['bytes']:,} | {dense['microseconds']:.1f} us |")
    for name, one in models.items():
        kind, _, seed = pathlib.Path(name).stem.partition("_")
        trained = measurements.read(f"docs/data/{kinds[kind][1]}_{seed}.json")
        smaller, faster = (dense[key] / one[key] for key in ("bytes", "microseconds"))
        cells = [f"{kinds[kind][0]}, seed {seed}"]
        cells += [f"{trained[key]:.2f}%" for key in ("reference_error", "test_error")]
        cells += [f"{trained['compression']:.1f}x", ", ".join(f"{row['density']:.0%}" for row in trained["rows"])]
        cells += [f"{one['bytes']:,} ({smaller:.1f}x)", f"{one['microseconds']:.1f} us ({faster:.1f}x)"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def main(_):
    if not FLAGS.table:
        results = {"machine": f"{platform.machine()}, {os.cpu_count()} cores", "batch_size": FLAGS.batch_size}
        results |= measure_models() if FLAGS.models else measure_layers()
        measurements.write(FLAGS.output, results)
    results = measurements.read(FLAGS.output)
    print(model_table(results["models"]) if "models" in results else layer_tables(results))


if __name__ == "__main__":
    app.run(main)
