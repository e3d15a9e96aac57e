"""Repeats the paper's experiments on MNIST, and writes its tables and figures with the results beside them.

    python examples/paper.py --network=lenet_300_100              # train and prune for every seed; continues if stopped
    python examples/paper.py --network=lenet_300_100 --baseline=naive_cut      # other methods (Table 6)
    python examples/paper.py --network=lenet_300_100 --experiment=regularization   # for Fig. 5
    python examples/paper.py --network=lenet_300_100 --experiment=sensitivity      # for Fig. 6
    python examples/paper.py --table                              # Markdown, from the measurements alone
    python examples/paper.py --figure=5                           # PNG, from the measurements alone

Every round of every seed is saved in `--output_dir`. Measurements are JSON files in `--results_dir`. All choices are
made on the last 5,000 training images, which are held out. The test set is read once, after all rounds of a seed.
"""

import json
import math
import pathlib
import time

import _quiet  # noqa: F401
import keras
import numpy as np
import paper_results
from absl import app, flags

import keras_prune as kp
from keras_prune import networks

HELD_OUT = 5_000
LEARNING_RATE = 1e-3
BATCH_SIZE = 128
# Chosen on the held-out images of seed 0. Each round keeps 55% to 75% of the connections of the round before. With a
# sensitivity budget, the quality of each layer comes from a scan of the dense network. Without, all are the same.
SETTINGS = {
    "lenet_300_100": {
        "build": lambda l2: networks.lenet_300_100(dropout=(0.3, 0.15), l2=l2),
        "l2": 1.5e-5,
        "dense_epochs": 40,
        "epochs": 30,
        "compressions": [1.5, 2.4, 3.6, 5.6, 8.6, 13, 20, 31, 41, 55],
        "sensitivity_drop": None,
    },
    "lenet_5": {
        "build": lambda l2: networks.lenet_5(dropout=0.5, l2=l2),
        "l2": 1.5e-4,
        "dense_epochs": 15,
        "epochs": 10,
        "compressions": [4, 12.5, 28, 45, 62],
        "sensitivity_drop": 0.001,
    },
}

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", None, list(SETTINGS), "The network to train, or to run a baseline or experiment on.")
flags.DEFINE_enum("baseline", None, ["naive_cut", "svd"], "Method without retraining, at the same parameter count.")
flags.DEFINE_enum("experiment", None, ["regularization", "sensitivity"], "Experiment of Fig. 5 or Fig. 6.")
flags.DEFINE_bool("table", False, "Only print the tables of the measurements beside the paper's results.")
flags.DEFINE_enum("figure", None, ["4", "5", "5_penalties", "6", "7"], "Figure of the paper to draw.")
flags.DEFINE_list("seeds", ["0", "1", "2", "3", "4"], "Seeds of initial weights, order of images and dropout.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_float("l2", None, "Factor of the sum of squares of the weights in the loss. Defaults to the network's.")
flags.DEFINE_float("l1", 5e-6, "Factor of the sum of magnitudes, for --experiment=regularization.", lower_bound=0)
flags.DEFINE_string("output_dir", "output/paper", "Folder for the rounds of every seed.")
flags.DEFINE_string("results_dir", "docs/data", "Folder for the measurements.")
flags.DEFINE_string("figures_dir", "docs/figures", "Folder for figures.")


def load(split):
    """Returns the images of a split as float32 in [0, 1], shape (n, 28, 28, 1), and their labels, shape (n,)."""
    import tensorflow_datasets as tfds  # Tables and figures need no images.

    data = tfds.as_numpy(tfds.load("mnist", split=split, data_dir=FLAGS.data_dir, batch_size=-1))
    return data["image"].astype("float32") / 255, data["label"]


def compile(model):
    """Compiles with Adam and the cross-entropy of the logits."""
    model.compile(
        keras.optimizers.Adam(LEARNING_RATE),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # On a CPU, XLA is slower for networks of this size.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )


def cosine(epochs):
    """Returns a callback with which the learning rate falls to zero along a cosine."""
    return keras.callbacks.LearningRateScheduler(
        lambda epoch: LEARNING_RATE * 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    )


def error(model, data):
    """Returns the share of wrong answers in percent."""
    return 100 * (1 - model.evaluate(*data, batch_size=1000, verbose=0, return_dict=True)["accuracy"])


def split_train():
    """Returns the training images and labels, and those of the last 5,000, which are held out."""
    images, labels = load("train")
    return (images[:-HELD_OUT], labels[:-HELD_OUT]), (images[-HELD_OUT:], labels[-HELD_OUT:])


def dense_model(network, seed, l1=0.0):
    """Returns the trained dense network of a seed, or loads it if it was trained before."""
    settings = SETTINGS[network]
    file = directory(network, seed) / ("dense_l1.keras" if l1 else "dense.keras")
    if not file.exists():
        keras.utils.set_random_seed(seed)
        l2 = settings["l2"] if FLAGS.l2 is None else FLAGS.l2
        model = settings["build"](0.0 if l1 else l2)
        if l1:
            kp.regularize(model, l1=l1)
        compile(model)
        data, held_out = split_train()
        fit(model, data, held_out, settings["dense_epochs"])
        file.parent.mkdir(parents=True, exist_ok=True)
        model.save(file.with_name("partial.keras"))
        file.with_name("partial.keras").rename(file)
    model = keras.models.load_model(file, compile=False)
    compile(model)
    return model


def fit(model, data, held_out, epochs, callbacks=()):
    """Trains with a learning rate that falls to zero."""
    callbacks = [*callbacks, cosine(epochs)]
    model.fit(*data, batch_size=BATCH_SIZE, epochs=epochs, verbose=2, validation_data=held_out, callbacks=callbacks)


def directory(network, seed):
    """Returns the folder for the models of a seed."""
    return pathlib.Path(FLAGS.output_dir) / network / f"seed_{seed}"


def prune_in_rounds(network, seed):
    """Prunes the dense network of a seed in rounds, and returns the measurements of every round."""
    settings = SETTINGS[network]
    data, held_out = split_train()
    model = dense_model(network, seed)
    if settings["sensitivity_drop"] is not None:
        scan = kp.sensitivity(model, held_out)
        kp.prune(model, scan.criteria(settings["sensitivity_drop"]))
    keras.utils.set_random_seed(1000 * (seed + 1))
    rounds = kp.iterative_prune(
        model,
        settings["compressions"],
        max_drop=0.02,  # For the whole curve, including the loss of accuracy.
        learning_rate_fraction=1.0,
        directory=directory(network, seed),
        x=data[0],
        y=data[1],
        batch_size=BATCH_SIZE,
        epochs=settings["epochs"],
        validation_data=held_out,
        callbacks=[cosine(settings["epochs"])],
    )
    test = load("test")
    measurements = []
    for index, one in enumerate(rounds):
        model = keras.models.load_model(directory(network, seed) / f"round_{index:02d}.keras")
        report = kp.report(model, held_out[0])
        measurements.append(
            {
                "compression": report.compression,
                "held_out_error": error(model, held_out),
                "test_error": error(model, test),
                "activation": report.activation,
                "flop_density": report.flop_density,
                "layers": [row._asdict() for row in report.rows],
                "seconds": one.seconds,
            }
        )
    if network == "lenet_300_100" and seed == 0:
        keep_weights(network, seed, len(rounds))
    return measurements


def keep_weights(network, seed, rounds):
    """Saves fc1 before pruning and at the paper's compression, in float16, for Figs. 4 and 7."""
    models = [keras.models.load_model(directory(network, seed) / f"round_{i:02d}.keras") for i in range(rounds)]
    wanted = networks.TABLE_1[network].compression
    pruned = next(model for model in models if kp.report(model).compression >= wanted)
    kernels = [model.get_layer("fc1").kernel for model in (models[0], pruned)]
    before, after = (keras.ops.convert_to_numpy(kernel).astype("float16") for kernel in kernels)
    np.savez_compressed(pathlib.Path(FLAGS.results_dir) / f"{network}_fc1.npz", before=before, after=after)


def copy_of(model):
    """Returns a copy of a dense model, compiled."""
    copy = keras.models.clone_model(model)
    copy.set_weights(model.get_weights())
    compile(copy)
    return copy


def pruned_copy(model, compression):
    """Returns a copy of a dense model with the common quality that gives the compression in one cut."""
    return kp.prune(copy_of(model), kp.budgets.CommonQuality(compression))


def naive_cut(model, compression):
    """Prunes all layers once at the common quality that gives the compression, without retraining."""
    pruned = pruned_copy(model, compression)
    kp.cut(pruned)
    return pruned


def svd(model, compression):
    """Reduces the rank of every layer by singular value decomposition to the compression."""
    reduced = copy_of(model)
    for layer in reduced.layers:
        if layer.weights:
            kernel = keras.ops.convert_to_numpy(layer.kernel)
            matrix = kernel.reshape(-1, kernel.shape[-1])
            rank = max(1, round(matrix.size / compression / sum(matrix.shape)))
            u, s, vt = np.linalg.svd(matrix, full_matrices=False)
            layer.kernel.assign(((u[:, :rank] * s[:rank]) @ vt[:rank]).reshape(kernel.shape))
    return reduced


def baseline(network, seed):
    """Returns the test errors of a method without retraining at several compressions."""
    model, test = dense_model(network, seed), load("test")
    rival = {"naive_cut": naive_cut, "svd": svd}[FLAGS.baseline]
    compressions = [1.5, 2, 3, 4, 6, 8, 12]
    return [{"compression": c, "test_error": error(rival(model, c), test)} for c in compressions]


def regularization(network, seed):
    """Returns the held-out errors of one cut with and without retraining, under L1 and L2 (Han et al. 2015, Fig. 5)."""
    data, held_out = split_train()
    measurements = []
    for penalty, l1 in (("L2", 0.0), ("L1", FLAGS.l1)):
        dense = dense_model(network, seed, l1)
        measurements.append({"penalty": penalty, "compression": 1.0, "error": error(dense, held_out)})
        for compression in (2, 4, 8, 13, 20):
            cut = error(naive_cut(dense, compression), held_out)
            model = pruned_copy(dense, compression)
            if l1:
                kp.regularize(model, l1=l1)
            keras.utils.set_random_seed(seed)
            once = kp.PruningCallback(kp.OneShot())
            fit(model, data, held_out, SETTINGS[network]["epochs"], [once])
            measurements.append(
                {
                    "penalty": penalty,
                    "compression": compression,
                    "cut_error": cut,
                    "retrained_error": error(model, held_out),
                }
            )
    return measurements


def sensitivity(network, seed):
    """Returns the held-out accuracy with one layer pruned at a time (Han et al. 2015, Fig. 6)."""
    _, held_out = split_train()
    scan = kp.sensitivity(dense_model(network, seed), held_out)
    curves = {
        name: [{"strength": one.criterion.quality, "density": one.density, "value": one.value} for one in points]
        for name, points in scan.curves.items()
    }
    criteria = {name: repr(criterion) for name, criterion in scan.criteria(max_drop=0.001).items()}
    return {"reference": scan.reference, "monitor": scan.monitor, "curves": curves, "criteria": criteria}


def main(_):
    if FLAGS.table:
        print(paper_results.tables(FLAGS.results_dir))
    if FLAGS.figure:
        import paper_figures

        print(paper_figures.figure(FLAGS.figure, pathlib.Path(FLAGS.results_dir), pathlib.Path(FLAGS.figures_dir)))
    if FLAGS.network:
        kind = FLAGS.baseline or FLAGS.experiment or "rounds"
        measure = {
            "naive_cut": baseline,
            "svd": baseline,
            "regularization": regularization,
            "sensitivity": sensitivity,
            "rounds": prune_in_rounds,
        }[kind]
        for seed in map(int, FLAGS.seeds):
            file = pathlib.Path(FLAGS.results_dir) / f"{FLAGS.network}_{kind}_{seed}.json"
            if not file.exists():
                started = time.time()
                result = {"network": FLAGS.network, "seed": seed, kind: measure(FLAGS.network, seed)}
                result["seconds"] = time.time() - started
                file.parent.mkdir(parents=True, exist_ok=True)
                partial = file.with_suffix(".partial")  # A seed with a file counts as measured.
                partial.write_text(json.dumps(result, indent=1))
                partial.replace(file)
                print(f"{file}: {result['seconds']:.0f} s", flush=True)


if __name__ == "__main__":
    app.run(main)
