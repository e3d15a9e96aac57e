"""The training that `peers.py` gives every library, and what is measured of it."""

import dataclasses
import gzip
import importlib.metadata
import statistics
import time

import numpy as np

RATE = 1e-3
EPSILON = 1e-7  # Of Adam, as Keras has it.


@dataclasses.dataclass
class Training:
    """Images, labels and length of a training, the same for every library.

    Attributes:
        data: `(images, labels)`, images flat and between 0 and 1.
        seed: Seed of initial weights and order of images.
        dense_epochs: Epochs of the dense network.
        epochs: Epochs of each pruned network, which begins at the dense one.
        pruned_epochs: Epochs after which a network has its final sparsity.
        batch: Images in a batch. It divides the number of images, so that no batch is smaller.
    """

    data: tuple
    seed: int = 0
    dense_epochs: int = 15
    epochs: int = 30
    pruned_epochs: int = 20
    batch: int = 250

    @property
    def steps(self):
        """Steps of an epoch."""
        return len(self.data[0]) // self.batch

    def batches(self, random):
        """Yields the batches of an epoch in random order."""
        for index in random.permutation(len(self.data[0])).reshape(self.steps, self.batch):
            yield tuple(array[index] for array in self.data)


class Laps:
    """Seconds of processor time from one call to the next, which other processes do not change much."""

    def __init__(self):
        self.seconds = []
        self.start()

    def start(self):
        self.begin = time.process_time()

    def __call__(self):
        self.seconds.append(round(time.process_time() - self.begin, 4))
        self.start()


def error(logits, labels):
    """Returns the share of wrong answers in percent."""
    return round(100 * float(np.mean(np.argmax(logits, -1) != labels)), 2)


def measure(peer, dense, compression, held_out, test):
    """Prunes a copy of a dense model, and times epochs of another copy after every tenth epoch.

    A dense epoch is compared in the same process at the same time. The first epoch of each call compiles, and counts
    for neither.
    """
    twin, plain, pruned = peer.copy(dense), [], Laps()

    def on_epoch():
        pruned()
        if len(pruned.seconds) % 10 == 0:
            laps = Laps()
            peer.train(twin, 3, laps)
            plain.extend(laps.seconds[1:])
            pruned.start()

    model = peer.train(peer.copy(dense), peer.training.epochs, on_epoch, compression)
    kernels = [np.asarray(kernel, "float32") for kernel in peer.kernels(model)]
    zeros = np.concatenate([kernel[kernel == 0] for kernel in kernels])
    return {
        "library": peer.name,
        "versions": {name: importlib.metadata.version(name) for name in peer.packages},
        "asked": compression,
        "compression": sum(kernel.size for kernel in kernels) / int(sum(map(np.count_nonzero, kernels))),
        **{field: getattr(peer.training, field) for field in ("seed", "dense_epochs", "epochs", "batch")},
        "dense_test_error": error(peer.logits(dense, test[0]), test[1]),
        "held_out_error": error(peer.logits(model, held_out[0]), held_out[1]),
        "test_error": error(peer.logits(model, test[0]), test[1]),
        "negative_zeros": float(np.mean(np.signbit(zeros))),
        "gzip_bytes": len(gzip.compress(b"".join(kernel.tobytes() for kernel in kernels))),
        "epoch_over_plain": statistics.median(pruned.seconds[1:]) / statistics.median(plain),
        "seconds": {"plain": plain, "pruned": pruned.seconds},
    }
