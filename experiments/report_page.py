"""Measures seconds and bytes of a report and its page, for LeNet-300-100 and VGG-16.

    python experiments/report_page.py          # writes output/report/<network>.html and docs/data/report_page.json
    python experiments/report_page.py --table

LeNet-300-100 is trained on MNIST and pruned in rounds, as in examples/mnist.py but with fewer epochs. VGG-16 is pruned
to the densities of the paper without training. Each time is the least of five.
"""

import json
import os
import pathlib
import time

import measurements
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_list("networks", ["lenet_300_100", "vgg16"], "Networks to report on.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_bool("table", False, "Print the table of the measurements.")
flags.DEFINE_string("pages", "output/report", "Folder for the pages.")
flags.DEFINE_string("results", "docs/data/report_page.json", "File of the measurements.")


def lenet_300_100(keras, kp):
    """Returns a trained and pruned LeNet-300-100, its rounds, and images to measure activations on."""
    import tensorflow_datasets as tfds

    def load(split):
        data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
        return data["image"].astype("float32") / 255, data["label"]

    (x, y), held_out = load("train[:55000]"), load("train[55000:]")
    model = kp.networks.lenet_300_100(dropout=(0.5, 0.5))
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    model.fit(x, y, batch_size=200, epochs=8, verbose=0)
    training = {"x": x, "y": y, "batch_size": 200, "epochs": 3, "validation_data": held_out}
    rounds = kp.iterative_prune(model, [2, 4, 8, 12, 20, 40], 0.002, learning_rate_fraction=0.3, **training)
    return model, rounds, held_out[0]


def vgg16(keras, kp):
    """Returns VGG-16 at the densities of the paper, not trained."""
    model = kp.networks.vgg16()
    densities = {row.layer: row.density / 100 for row in kp.networks.TABLES["vgg16"][:-1]}
    kp.cut(kp.prune(model, {name: kp.TargetSparsity(1 - density) for name, density in densities.items()}))
    return model, None, None


def seconds(call):
    """Returns the least time of five calls, and the result of the last."""
    times, result = [], None
    for _ in range(5):
        started = time.perf_counter()
        result = call()
        times.append(time.perf_counter() - started)
    return round(min(times), 3), result


def table():
    """Returns the table of what was measured, as Markdown."""
    rows = ["| network | `kp.report`, s | `report.save`, s | page, MB |", "|---|---|---|---|"]
    for name, one in measurements.read(FLAGS.results).items():
        cells = one["report_seconds"], one["save_seconds"], one["page_bytes"] / 1e6
        rows.append(f"| {name} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    return "\n".join(rows)


def main(_):
    if FLAGS.table:
        print(table())
        return
    import keras

    import keras_prune as kp

    measured = measurements.read(FLAGS.results)
    for name in FLAGS.networks:
        keras.utils.set_random_seed(0)
        model, rounds, x = globals()[name](keras, kp)
        page = pathlib.Path(FLAGS.pages, f"{name}.html")
        page.parent.mkdir(parents=True, exist_ok=True)
        report_seconds, report = seconds(lambda model=model: kp.report(model))
        report = kp.report(model, x) if x is not None else report
        save_seconds, _ = seconds(lambda report=report, page=page, rounds=rounds: report.save(page, rounds))
        measured[name] = {
            "cores": os.cpu_count(),
            "weights": report.weights,
            "report_seconds": report_seconds,
            "save_seconds": save_seconds,
            "page_bytes": page.stat().st_size,
        }
        print(name, json.dumps(measured[name]))
        measurements.write(FLAGS.results, measured)


if __name__ == "__main__":
    app.run(main)
