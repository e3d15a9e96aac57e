"""Shared functions of the short tutorials for made-up data, equal initial weights, and notes of each library.

This module does not import keras_prune, so that the tutorials also run with tfmot and Keras 2.
"""

import importlib.util
import json
import os

import numpy as np

HAS_TENSORBOARD = all(importlib.util.find_spec(name) for name in ("tensorflow", "tensorboard"))
DROPOUT = 0.0  # With dropout, Keras 2 and 3 would draw different random numbers.
NOTES = {"epochs": []}
UPDATES = []


def images(count, shape=(28, 28), seed=0):
    """Returns noisy patterns of ten classes, and their labels."""
    random = np.random.default_rng(seed)
    labels = random.integers(10, size=count)
    patterns = np.random.default_rng(100).random((10, *shape))
    return (patterns[labels] + random.normal(scale=0.7, size=(count, *shape))).astype("float32"), labels


def texts(count, words, length, seed=0):
    """Returns sequences of words, and whether they have more words of the first half than of the second."""
    random = np.random.default_rng(seed)
    x = random.integers(words, size=(count, length))
    return x, (np.mean(x < words // 2, axis=1) > 0.5).astype("float32")


def inner_layers(model):
    return [getattr(layer, "layer", layer) for layer in model.layers]


def start(model):
    """Gives a model the same weights in both libraries."""
    random = np.random.default_rng(2)
    for layer in inner_layers(model):
        layer.set_weights(
            [
                random.normal(scale=np.prod(one.shape[:-1]) ** -0.5, size=one.shape) if one.ndim > 1 else one
                for one in layer.get_weights()
            ]
        )


def kernels(model):
    """Returns the weights with two or more dimensions by layer and position."""
    return {
        f"{layer.name}/{index}": weight
        for layer in inner_layers(model)
        for index, weight in enumerate(layer.get_weights())
        if weight.ndim > 1
    }


def follow(keras, model):
    """Returns a callback that notes the sparsity after each epoch and, for tfmot, the weights behind each mask."""
    layers = [layer for layer in model.layers if getattr(layer, "pruning_vars", None)]
    due = []

    def before(batch, logs):
        due.clear()
        for layer in layers:
            step = int(layer.pruning_step) + 1
            prune, sparsity = layer.pruning_schedule(np.int64(step))
            if step == 1 if layer.sparsity_m_by_n else bool(prune):
                names = ("block_size", "block_pooling_type", "sparsity_m_by_n")
                pattern = {name: getattr(layer, name) for name in names}
                for weight, mask, _ in layer.pruning_vars:
                    due.append((weight.numpy(), mask.numpy() > 0, mask, float(sparsity), pattern))

    def after(batch, logs):
        UPDATES.extend((weight, old, mask.numpy() > 0, *rest) for weight, old, mask, *rest in due)

    def note(epoch, logs):
        NOTES["epochs"].append({name: float(np.mean(weight == 0)) for name, weight in kernels(model).items()})

    batches = {"on_train_batch_begin": before, "on_train_batch_end": after} if layers else {}
    return keras.callbacks.LambdaCallback(on_epoch_end=note, **batches)


def finish(model):
    """Prints the notes, and writes masks and updates into the folder NOTES_DIR."""
    NOTES["sparsity"] = {name: float(np.mean(weight == 0)) for name, weight in kernels(model).items()}
    if folder := os.environ.get("NOTES_DIR"):
        import pickle

        with open(os.path.join(folder, "masks"), "wb") as file:
            pickle.dump(({name: weight != 0 for name, weight in kernels(model).items()}, UPDATES), file)
    print(json.dumps(NOTES))
