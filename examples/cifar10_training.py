"""Images, networks, training and measurements of cifar10.py."""

import functools
import math
import pathlib
import time
from typing import NamedTuple

import _quiet  # noqa: F401
import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from keras import layers
from local_pruning import local_retraining

import keras_prune as kp

BATCH_SIZE = 128


class Settings(NamedTuple):
    """Settings with which a network is trained and pruned."""

    learning_rate: float  # The highest rate while the dense network trains.
    l2: float
    dropout: float
    dense_epochs: int
    sensitivity_drop: float  # The drop allowed for pruning one layer, in the scan that sets thresholds.
    compressions: tuple[float, ...]
    epochs: int  # In each of the two phases of a round.
    retraining_fraction: float  # Share of the learning rate.


SETTINGS = {
    "vgg": Settings(0.05, 2.5e-4, 0.3, 26, 0.02, (5, 13.5, 22), 6, 0.5),
    "alexnet": Settings(0.02, 2.5e-4, 0.5, 18, 0.02, (4, 9.5, 15), 4, 0.5),
}


def vgg(width, settings):
    """Returns a VGG-style network: blocks of convolution, batch normalization and ReLU, then three dense layers."""
    blocks = []
    for block, (count, factor) in enumerate([(1, 1), (1, 2), (2, 4), (2, 8), (1, 16)], start=1):
        for i in range(1, count + 1):
            name = f"{block}_{i}"
            blocks += [
                layers.Conv2D(factor * width, 3, padding="same", use_bias=False, name=f"conv{name}", **_l2(settings)),
                layers.BatchNormalization(momentum=0.9, name=f"norm{name}"),
                layers.ReLU(name=f"relu{name}"),
            ]
        if block < 5:
            blocks.append(layers.MaxPooling2D(name=f"pool{block}"))
    return _network("vgg", blocks, 64 * width, settings)


def alexnet(width, settings):
    """Returns an AlexNet-style network: three convolutions, and dense layers with nearly all of the weights."""
    blocks = []
    for index, (factor, size, strides) in enumerate([(2, 5, 2), (4, 5, 1), (8, 3, 1)], start=1):
        arguments = {"padding": "same", "activation": "relu", "kernel_initializer": "he_normal", **_l2(settings)}
        blocks.append(layers.Conv2D(factor * width, size, strides, name=f"conv{index}", **arguments))
        if index < 3:
            blocks.append(layers.MaxPooling2D(name=f"pool{index}"))
    return _network("alexnet", blocks, 64 * width, settings)


def _network(name, blocks, units, settings):
    """Returns a network from images of 0 to 255 to logits, with two hidden dense layers and their dropout."""
    hidden = []
    for index in (1, 2):
        arguments = {"activation": "relu", "kernel_initializer": "he_normal", **_l2(settings)}
        hidden.append(layers.Dense(units, name=f"fc{index}", **arguments))
        hidden.append(layers.Dropout(settings.dropout, name=f"dropout{index}"))
    rescaling = layers.Rescaling(1 / 63, -1.9, name="rescaling")  # To about mean 0 and standard deviation 1.
    last = layers.Dense(10, name="fc3", **_l2(settings))
    return keras.Sequential([keras.Input((32, 32, 3)), rescaling, *blocks, layers.Flatten(), *hidden, last], name=name)


def _l2(settings):
    return {"kernel_regularizer": keras.regularizers.L2(settings.l2)}


def load(split, data_dir):
    """Returns the images of a split, uint8 of shape (n, 32, 32, 3), and their labels, shape (n,)."""
    images = tfds.load("cifar10", split=split, data_dir=data_dir, as_supervised=True)
    return tuple(part.numpy() for part in images.batch(100_000).get_single_element())


def augmented(images, labels, seed):
    """Returns a dataset of shuffled batches in which images are mirrored and shifted by up to 4 pixels at random.

    Three gathers augment a whole batch at once, so that 2 cores or a GPU do not wait for images.
    """

    def augment(batch, noise):
        images, labels = batch
        draws = tf.random.stateless_uniform((3, tf.shape(images)[0], 1), [noise, 0])
        rows = tf.cast(9 * draws[0], tf.int32) + tf.range(32)
        columns = tf.cast(9 * draws[1], tf.int32) + tf.where(draws[2] < 0.5, tf.range(32), tf.range(31, -1, -1))
        images = tf.pad(images, [[0, 0], [4, 4], [4, 4], [0, 0]], "REFLECT")
        images = tf.gather(tf.gather(images, rows, axis=1, batch_dims=1), columns, axis=2, batch_dims=1)
        return images, labels

    batches = tf.data.Dataset.from_tensor_slices((images, labels))
    batches = batches.shuffle(len(images), seed=seed).batch(BATCH_SIZE, drop_remainder=True)
    noise = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True)
    # One or two batches ahead are enough. More threads than cores are slower.
    return tf.data.Dataset.zip(batches, noise).map(augment, num_parallel_calls=2).prefetch(2)


def compile(model, learning_rate):
    """Compiles with Nesterov momentum and the cross-entropy of the logits."""
    model.compile(
        keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        # TensorFlow's own convolutions are faster on a CPU than those of XLA.
        jit_compile=False if keras.backend.backend() == "tensorflow" else "auto",
    )


def cosine(peak, epochs, warm_up=0.0):
    """Returns a callback that raises the learning rate to its peak in a share of the epochs, then lowers it to zero."""

    def learning_rate(epoch):
        progress = (epoch + 0.5) / epochs
        if progress < warm_up:
            return peak * progress / warm_up
        return peak * 0.5 * (1 + math.cos(math.pi * (progress - warm_up) / (1 - warm_up)))

    return keras.callbacks.LearningRateScheduler(learning_rate)


def dense_model(network, width, seed, settings, data, held_out, directory):
    """Returns the trained dense network, or loads it if it was trained before."""
    file = directory / "dense.keras"
    if not file.exists():
        keras.utils.set_random_seed(seed)
        model = {"vgg": vgg, "alexnet": alexnet}[network](width, settings)
        compile(model, settings.learning_rate)
        schedule = cosine(settings.learning_rate, settings.dense_epochs, warm_up=0.2)
        log = keras.callbacks.CSVLogger(directory / "dense.csv", append=True)
        model.fit(
            data,
            epochs=settings.dense_epochs,
            validation_data=held_out,
            validation_batch_size=500,
            shuffle=False,
            verbose=2,
            callbacks=[schedule, log, kp.PruningBackup(directory / "backup", seed=1000 * seed)],
        )
        model.save(file.with_name("partial.keras"))
        file.with_name("partial.keras").rename(file)
    model = keras.models.load_model(file, compile=False)
    compile(model, settings.learning_rate)
    return model


def measure(network, width, seed, settings, train_split, eval_split, max_drop, data_dir, output_dir):
    """Trains and prunes for one seed, and returns the measurements. A killed run is resumed."""
    started = time.time()
    directory = pathlib.Path(output_dir)
    directory.mkdir(parents=True, exist_ok=True)
    images, labels = load(train_split, data_dir)
    held_out_size = len(images) // 10
    held_out = images[-held_out_size:].astype("float32"), labels[-held_out_size:]
    data = augmented(images[:-held_out_size], labels[:-held_out_size], seed)

    model = dense_model(network, width, seed, settings, data, held_out, directory)
    scan = kp.sensitivity(model, held_out)
    criteria = scan.criteria(settings.sensitivity_drop)
    kp.prune(model, criteria)
    keras.utils.set_random_seed(1000 * seed + 100)
    with local_retraining(model, functools.partial(compile, learning_rate=settings.learning_rate)):
        rounds = kp.iterative_prune(
            model,
            settings.compressions,
            max_drop=max_drop,
            learning_rate_fraction=settings.retraining_fraction,
            directory=directory / "rounds",
            x=data,
            shuffle=False,
            epochs=settings.epochs,
            validation_data=held_out,
            validation_batch_size=500,
            callbacks=[cosine(settings.retraining_fraction * settings.learning_rate, settings.epochs)],
        )

    # All choices are made. The images of the evaluation split are read only here.
    images, labels = load(eval_split, data_dir)
    measured = []
    for index, one in enumerate(rounds):
        model = keras.models.load_model(directory / f"rounds/round_{index:02d}.keras")
        accuracy = model.evaluate(images.astype("float32"), labels, batch_size=500, verbose=0, return_dict=True)
        report = kp.report(model, held_out[0][:1000])
        measured.append(
            {
                "compression": report.compression,
                "held_out_accuracy": one.value,
                "eval_accuracy": accuracy["accuracy"],
                "activation": report.activation,
                "flop_density": report.flop_density,
                "layers": [row._asdict() for row in report.rows],
                "seconds": one.seconds,
            }
        )
    # Choose the sparsest network without a loss of accuracy on held-out images.
    chosen = max(i for i, one in enumerate(rounds) if one.value >= rounds[0].value - 0.002)
    model = kp.strip(keras.models.load_model(directory / f"rounds/round_{chosen:02d}.keras"))
    return {
        "network": network,
        "width": width,
        "seed": seed,
        "backend": keras.backend.backend(),
        "splits": [train_split, eval_split, len(images)],
        "settings": settings._asdict(),
        "sensitivity": {
            "reference": scan.reference,
            "monitor": scan.monitor,
            "curves": {
                name: [
                    {"strength": one.criterion.quality, "density": one.density, "value": one.value} for one in points
                ]
                for name, points in scan.curves.items()
            },
            "criteria": {name: repr(criterion) for name, criterion in criteria.items()},
        },
        "rounds": measured,
        "chosen": chosen,
        "files": export(model, directory, held_out[0][:100]),
        "seconds": time.time() - started,
    }


def export(model, directory, inputs):
    """Saves the plain model as .keras, sparse and, on TensorFlow, .tflite files, and returns their bytes."""
    files = [directory / "pruned.keras", directory / "pruned.kprune"]
    model.save(files[0])
    kp.save_sparse(model, files[1])
    if keras.backend.backend() == "tensorflow":
        files.append(directory / "pruned.tflite")
        print(kp.export_tflite(model, files[2], x=inputs))
    return {file.name: file.stat().st_size for file in files}
