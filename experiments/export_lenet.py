"""Measures the size and the errors of every kind of file of a pruned network for MNIST.

    python examples/mnist.py --seed=0
    python experiments/export_lenet.py
    python experiments/export_lenet.py --table      # Markdown, from the measurements

Writes the model as every kind of file, and counts the errors of exported files and of the Keras model on the test set.
No choice depends on them. 8-bit activations are calibrated on training images.
"""

import pathlib
import tempfile

from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "output/mnist/model.keras", "The pruned network, stripped and compiled with Adam.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_string("json", "docs/data/export_lenet_300_100.json", "File of the results.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    import tensorflow_datasets as tfds

    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def run(path, images):
    """Returns the outputs of a .tflite file, 100 images at a time."""
    import numpy as np
    from ai_edge_litert.interpreter import Interpreter

    runner = Interpreter(str(path)).get_signature_runner()
    (name,) = runner.get_input_details()
    batches = np.split(images, len(images) // 100)
    return np.concatenate([next(iter(runner(**{name: batch}).values())).copy() for batch in batches])


def sizes(path):
    """Returns the bytes of a file or folder, before and after gzip."""
    from keras_prune.export.tflite import gzip_bytes

    paths = [one for one in (path.rglob("*") if path.is_dir() else [path]) if one.is_file()]
    return {"bytes": sum(one.stat().st_size for one in paths), "gzip_bytes": sum(map(gzip_bytes, paths))}


def keras_files(folder):
    """Returns the sizes of files of Keras and for XLA."""
    import keras

    import keras_prune as kp

    found = {}

    def save(name, save, file):
        save(folder / file)
        found[name] = sizes(folder / file)

    model = kp.prune(keras.models.load_model(FLAGS.model))  # Its zeros count as pruned.
    save(".keras, pruned, compiled with Adam", model.save, "pruned.keras")
    kp.strip(model)
    save(".keras, stripped, compiled with Adam", model.save, "compiled.keras")
    save(".weights.h5, stripped, compiled with Adam", model.save_weights, "compiled.weights.h5")
    model = keras.models.load_model(FLAGS.model, compile=False)
    save(".keras, stripped, not compiled", model.save, "model.keras")
    save(".weights.h5, stripped, not compiled", model.save_weights, "model.weights.h5")
    for name in ("saved_model", "stablehlo", "ahead_of_time"):
        save(f"export_xla, {name}", lambda path, name=name: kp.export_xla(model, path, name), name)
    return found


def exported_files(folder):
    """Returns sizes and answers of files of `export_tflite` and `save_sparse`, and of models of `to_sparse`."""
    import keras
    import numpy as np

    import keras_prune as kp
    from keras_prune.benchmark.engine import weight_bytes

    (images, labels), samples = load("test"), load("train[:500]")[0]
    model = keras.models.load_model(FLAGS.model, compile=False)
    outputs = model.predict(images, batch_size=100, verbose=0)

    def answers(found):
        return {
            "errors": int(np.sum(found.argmax(axis=1) != labels)),
            "other_answers": int(np.sum(found.argmax(axis=1) != outputs.argmax(axis=1))),
            "difference": float(np.max(np.abs(found - outputs))),
        }

    about = {"kept": kp.report(model).kept, "float32_bytes": 4 * model.count_params()}
    found = {"Keras": about | {"largest_output": float(np.max(np.abs(outputs)))} | answers(outputs)}
    for quantization in ("float32", "float16", "dynamic_int8", "full_int8"):
        for sparse in (False, "auto"):
            path = folder / f"{quantization}_{sparse}.tflite"
            report = kp.export_tflite(model, path, quantization.replace("float32", "") or None, sparse, x=samples)
            if sparse and report.dense_because:
                continue  # The same file.
            name = f".tflite, {quantization}, zeros {'left out' if sparse else 'stored'}"
            found[name] = sizes(path) | answers(run(path, images))
    for form in ("csr", "coo", "ell"):
        sparse = kp.to_sparse(model, form)
        found[f"to_sparse, {form}"] = {"memory": weight_bytes(sparse)} | answers(sparse.predict(images, 100, 0))
    for name in ("save_sparse", "save_sparse after quantize"):
        kp.save_sparse(model, folder / "model.kprune")
        loaded = kp.load_sparse(folder / "model.kprune").predict(images, batch_size=100, verbose=0)
        found[name] = sizes(folder / "model.kprune") | {"kept": kp.report(model).kept} | answers(loaded)
        if name == "save_sparse":
            model.quantize("int8")
    return found


def tables(results):
    """Returns the sizes and the answers as Markdown."""
    dense = results["Keras"]["float32_bytes"]
    lines = ["**Bytes**", "", f"| file | bytes | of {dense:,} | after gzip |", "|---|---|---|---|"]
    for name, one in results.items():
        if "bytes" in one:
            lines.append(f"| {name} | {one['bytes']:,} | {one['bytes'] / dense:.0%} | {one['gzip_bytes']:,} |")
    lines += ["", "**Answers**", ""]
    lines += ["| file | largest difference of an output | test errors | other answers |", "|---|---|---|---|"]
    for name, one in results.items():
        if "errors" in one:
            lines.append(f"| {name} | {one['difference']:.2g} | {one['errors']} | {one['other_answers']} |")
    return "\n".join(lines)


def main(_):
    import measurements

    if not FLAGS.table:
        with tempfile.TemporaryDirectory() as folder:
            results = keras_files(pathlib.Path(folder))
            results |= exported_files(pathlib.Path(folder))
        measurements.write(FLAGS.json, results)
    print(tables(measurements.read(FLAGS.json)))


if __name__ == "__main__":
    app.run(main)
