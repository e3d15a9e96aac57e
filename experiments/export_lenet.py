"""Every file of a pruned network for MNIST: its size, and whether it still knows the digits.

    python experiments/export_lenet.py --model=output/mnist/model.keras

Exports the model with each format of weights, and as Keras quantizes it, and counts the errors of every file and of
the Keras model on the test set. Nothing is chosen by them. 8-bit activations are calibrated on training images.
"""

import json
import os
import tempfile

import keras
import measurements
import numpy as np
import tensorflow_datasets as tfds
from absl import app, flags
from ai_edge_litert.interpreter import Interpreter

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_string("model", "output/mnist/model.keras", "The pruned network.")
flags.DEFINE_string("data_dir", None, "TensorFlow Datasets directory; its own default (TFDS_DATA_DIR) if not given.")
flags.DEFINE_string("json", "docs/data/export_lenet_300_100.json", "Where the results go.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def run(path, images):
    """Returns the outputs of a .tflite file, 100 images at a time."""
    runner = Interpreter(path).get_signature_runner()
    (name,) = runner.get_input_details()
    batches = np.split(images, len(images) // 100)
    return np.concatenate([next(iter(runner(**{name: batch}).values())).copy() for batch in batches])


def main(_):
    images, labels = load("test")
    model = kp.strip(keras.models.load_model(FLAGS.model, compile=False))
    outputs = model.predict(images, batch_size=100, verbose=0)

    def compare(found):
        difference = float(np.max(np.abs(found - outputs)))
        return {
            "errors": int(np.sum(found.argmax(axis=1) != labels)),
            "other_answers": int(np.sum(found.argmax(axis=1) != outputs.argmax(axis=1))),
            "largest_difference": difference,
            "relative_difference": difference / float(np.max(np.abs(outputs))),
        }

    results = {"compression": kp.report(model).compression, "keras": compare(outputs)}
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.tflite")
        for quantization in (None, "float16", "dynamic_int8", "full_int8"):
            report = kp.export_tflite(model, path, quantization, x=load("train[:500]")[0])
            print(report)
            sizes = {"bytes": report.bytes, "dense_bytes": report.dense_bytes, "gzip_bytes": report.gzip_bytes}
            errors = compare(run(path, images))
            results[quantization or "float32"] = sizes | {"dense_because": report.dense_because} | errors
        path = os.path.join(folder, "model.kprune")
        for name in ("save_sparse", "save_sparse after quantize"):
            kp.save_sparse(model, path)
            found = kp.load_sparse(path).predict(images, batch_size=100, verbose=0)
            results[name] = {"bytes": os.path.getsize(path)} | compare(found)
            if name == "save_sparse":
                model.quantize("int8")
    print(json.dumps(results, indent=1))
    measurements.write(FLAGS.json, results)


if __name__ == "__main__":
    app.run(main)
