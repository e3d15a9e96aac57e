"""Compares pruning libraries at equal training: LeNet-300-100 on MNIST, nothing tuned for anybody.

    KERAS_BACKEND=jax python experiments/peers.py --library=keras_prune      # or tensorflow, torch
    KERAS_BACKEND=jax python experiments/peers.py --library=common_quality   # budgets.CommonQuality
    python experiments/peers.py --library=torch                              # or torch_flushing, without denormals
    python experiments/peers.py --library=tfmot                              # pip install -e '.[tfmot]'
    python experiments/peers.py --library=jaxpruner
    python experiments/peers.py --table

jaxpruner needs JAX before 0.4.26: `pip install 'jax[cpu]==0.4.25' 'scipy<1.13' 'numpy<2' 'optax==0.2.2' 'flax==0.8.2'
'chex==0.1.86' git+https://github.com/google-research/jaxpruner@f133ee50f31a03d0152b8b272edb534065152f5d`.
Each library can have its own environment: the images are taken from tensorflow_datasets once, and then from a file.

Glorot uniform kernels and zero biases train for 15 epochs, and for another 30 while they are pruned, with Adam whose
rate falls from 1e-3 to zero along a cosine. Twenty cuts along a cubic reach the sparsity of all kernels after 20 of the
30 epochs; torch has five rounds, one every four epochs. The last 5,000 training images are held out. Test images are
read once at the end of each run. Runs that are in the JSON file already are not repeated.

All rows take about 35 minutes of one core. The time of an epoch is processor time: run on one core (`taskset -c 0` on
Linux), so that no thread waits for another.
"""

import importlib
import pathlib
import statistics
import tempfile

import measurements
import numpy as np
from absl import app, flags
from peers_training import Laps, Training, measure

FLAGS = flags.FLAGS
LIBRARIES = {
    "keras_prune": "peers_keras.KerasPrune",
    "common_quality": "peers_keras.CommonQuality",
    "torch": "peers_torch.Torch",
    "torch_flushing": "peers_torch.TorchFlushing",
    "jaxpruner": "peers_jaxpruner.JaxPruner",
    "tfmot": "peers_keras.Tfmot",
}
flags.DEFINE_enum("library", None, list(LIBRARIES), "The library to measure.")
flags.DEFINE_list("seeds", ["0", "1"], "Seeds of initial weights and order of images.")
flags.DEFINE_list("compressions", ["12", "40"], "Compressions of all kernels to reach.")
flags.DEFINE_string("images", f"{tempfile.gettempdir()}/peers_mnist.npz", "File that the images are kept in.")
flags.DEFINE_bool("table", False, "Print the table of what was measured.")
flags.DEFINE_string("results", "docs/data/peers.json", "Where the measurements are kept.")


def load(split):
    """Returns flat images between 0 and 1, and their labels."""
    file = pathlib.Path(FLAGS.images)
    if not file.exists():
        import tensorflow_datasets as tfds

        data = {name: tfds.as_numpy(tfds.load("mnist", split=name, batch_size=-1)) for name in ("train", "test")}
        arrays = {f"{name} {key}": one[key] for name, one in data.items() for key in ("image", "label")}
        np.savez_compressed(file, **arrays)
    with np.load(file) as arrays:
        images, labels = arrays[f"{split} image"], arrays[f"{split} label"]
    return images.reshape(-1, 784).astype("float32") / 255, labels.astype("int64")


def run(library, seed):
    """Trains and prunes what is not in the JSON file yet."""
    module, name = LIBRARIES[library].split(".")
    (images, labels), test = load("train"), load("test")
    held_out = images[-5000:], labels[-5000:]
    peer = getattr(importlib.import_module(module), name)(Training((images[:-5000], labels[:-5000]), seed))
    measured = measurements.read(FLAGS.results)
    keys = {f"{peer.name} {one}x seed {seed}": float(one) for one in FLAGS.compressions}
    todo = {key: compression for key, compression in keys.items() if key not in measured}
    if not todo:
        return
    dense = peer.train(peer.dense(), peer.training.dense_epochs, Laps())
    for key, compression in todo.items():
        result = measure(peer, dense, compression, held_out, test)
        measurements.write(FLAGS.results, {**measurements.read(FLAGS.results), key: result})


def table():
    """Returns one row of Markdown for each library: means over seeds and, in brackets, each seed."""
    groups = {}
    for one in measurements.read(FLAGS.results).values():
        groups.setdefault(one["library"], {}).setdefault(one["asked"], []).append(one)
    asked = sorted({compression for found in groups.values() for compression in found})
    errors, sizes = ([f"{name} at {one:g}x" for one in asked] for name in ("test error, %,", "gzip, KB,"))
    lines = [["library", *errors, "epoch / plain epoch", "zeros that are -0.0", *sizes]]
    lines.append(["---"] * len(lines[0]))
    for library, found in sorted(groups.items()):
        cells, sizes = [], []
        for runs in (found.get(one, []) for one in asked):
            values = [run["test_error"] for run in runs]
            each = ", ".join(f"{value:.2f}" for value in values)
            cells.append(f"{statistics.mean(values):.2f} ({each})" if runs else "")
            sizes.append(f"{statistics.mean(run['gzip_bytes'] for run in runs) / 1000:.0f}" if runs else "")
        runs = [run for one in found.values() for run in one]
        ratios = sorted(run["epoch_over_plain"] for run in runs)
        cells.append(f"{statistics.median(ratios):.2f} ({ratios[0]:.2f} to {ratios[-1]:.2f})")
        cells.append(f"{statistics.mean(run['negative_zeros'] for run in runs):.0%}")
        lines.append([library, *cells, *sizes])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main(_):
    if FLAGS.library:
        for seed in map(int, FLAGS.seeds):
            run(FLAGS.library, seed)
    if FLAGS.table:
        print(table())


if __name__ == "__main__":
    app.run(main)
