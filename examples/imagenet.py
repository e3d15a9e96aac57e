"""Prunes VGG-16 or AlexNet on ImageNet by the paper's recipe (Han et al. 2015, sections 4.2 and 4.3).

    python examples/imagenet.py --network=vgg16                          # from the weights of keras.applications
    python examples/imagenet.py --network=alexnet --distribution=mirrored       # trained from scratch, on all GPUs
    KERAS_BACKEND=jax python examples/imagenet.py --network=vgg16 --distribution=data_parallel

A scan of the network's sensitivity gives every layer its own threshold. Each of five rounds prunes and retrains the
dense layers while the convolutions are fixed, and then the reverse. Retraining uses a hundredth of the learning rate,
and dropout follows the connections. To resume a stopped run, start it again. Prepare ImageNet for TensorFlow Datasets
first (`imagenet2012`, a manual download). All choices are made on the last hundredth of the training images. The
validation images are read once, at the end.
"""

import contextlib
import json
import pathlib

import _quiet  # noqa: F401
import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags
from local_pruning import local_retraining

import keras_prune as kp
from keras_prune import networks

COMPRESSIONS = {"vgg16": ["2", "4", "7", "10", "13"], "alexnet": ["2", "3.5", "5.5", "7.5", "9"]}

FLAGS = flags.FLAGS
flags.DEFINE_enum("network", "vgg16", list(COMPRESSIONS), "Network of the paper to prune.")
flags.DEFINE_string("weights", "imagenet", "Weights of VGG-16: imagenet, a .weights.h5 file, or none (random).")
flags.DEFINE_integer("image_size", None, "Pixels of a side. Defaults to the network's, 224 or 227.", lower_bound=32)
flags.DEFINE_integer("dense_epochs", None, "Epochs before the first cut. Defaults to 0 for VGG-16, 80 for AlexNet.")
flags.DEFINE_integer("epochs", 10, "Epochs of each phase of a round.", lower_bound=1)
flags.DEFINE_list("compressions", None, "Compression of each round. Defaults to five, up to 13x or 9x as in the paper.")
flags.DEFINE_float("max_drop", 0.002, "How much held-out accuracy the rounds may lose.", lower_bound=0)
flags.DEFINE_float("sensitivity_drop", 0.01, "Accuracy that pruning one layer may cost in the scan.", lower_bound=0)
flags.DEFINE_integer("scan_batches", 20, "Held-out batches for the scan.", lower_bound=1)
flags.DEFINE_float("learning_rate", 0.01, "Learning rate, divided by 100 for retraining.", lower_bound=0)
# Ten times the 5e-4 of Caffe, where the momentum multiplies the decay by ten. In Keras, it does not.
flags.DEFINE_float("weight_decay", 5e-3, "Each step shrinks the weights by this factor times the learning rate.")
flags.DEFINE_integer("batch_size", 256, "Images per training step, over all devices.", lower_bound=1)
flags.DEFINE_enum("dtype_policy", "mixed_float16", ["mixed_float16", "mixed_bfloat16", "float32"], "Precision.")
flags.DEFINE_enum("distribution", "none", ["none", "mirrored", "data_parallel"], "mirrored: tf.distribute; data_"
                  "parallel: keras.distribution, for JAX.")  # fmt: skip
flags.DEFINE_integer("seed", 0, "Seed of initial weights, order of images and dropout.")
flags.DEFINE_string("train_split", "train[:99%]", "Images to train on.")
flags.DEFINE_string("held_out_split", "train[99%:]", "Images to make all choices on.")
flags.DEFINE_string("eval_split", "validation", "Images to evaluate on, at the end.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_string("output_dir", "output/imagenet", "Folder for rounds and results.")


def image_size():
    """Returns the number of pixels on a side of the network's input."""
    return FLAGS.image_size or {"vgg16": 224, "alexnet": 227}[FLAGS.network]


def batches(split, training=False):
    """Returns the batches of a split, with random crops, half of them mirrored, for training, or else center crops."""
    size = image_size()

    def crop(encoded, label):
        # As in Krizhevsky et al. (2012), the shorter side is scaled to 256 pixels for crops of 224 x 224.
        image = tf.io.decode_jpeg(encoded, channels=3)
        shape = tf.cast(tf.shape(image)[:2], tf.float32)
        shorter = size * 8 // 7
        image = tf.image.resize(image, tf.cast(tf.math.ceil(shape * shorter / tf.reduce_min(shape)), tf.int32))
        if training:
            image = tf.image.random_flip_left_right(tf.image.random_crop(image, (size, size, 3)))
        else:
            image = tf.image.resize_with_crop_or_pad(image, size, size)
        # As keras.applications.vgg16.preprocess_input, which does not take TensorFlow's tensors on other backends.
        return image[..., ::-1] - [103.939, 116.779, 123.68], label

    images = tfds.load(
        "imagenet2012",
        split=split,
        data_dir=FLAGS.data_dir,
        as_supervised=True,
        shuffle_files=training,
        decoders={"image": tfds.decode.SkipDecoding()},  # Decoded in parallel, in `crop`.
    )
    if training:
        images = images.shuffle(10_000, seed=FLAGS.seed)
    images = images.map(crop, num_parallel_calls=tf.data.AUTOTUNE)
    return images.batch(FLAGS.batch_size, drop_remainder=training).prefetch(tf.data.AUTOTUNE)


def distribution():
    """Returns the context in which models are created and trained."""
    if FLAGS.distribution == "mirrored":
        return tf.distribute.MirroredStrategy().scope()
    if FLAGS.distribution == "data_parallel":
        return keras.distribution.DataParallel().scope()
    return contextlib.nullcontext()


def build():
    """Returns the network with the paper's dropout. Its logits are float32, whatever the precision of other layers."""
    shape = (image_size(), image_size(), 3)
    if FLAGS.network == "alexnet":
        model = networks.alexnet(input_shape=shape)
    else:
        weights = None if FLAGS.weights == "none" else FLAGS.weights
        pretrained = keras.applications.VGG16(weights=weights, input_shape=shape, classifier_activation=None)
        model = keras.Sequential([keras.Input(shape)], name="vgg16")
        for layer in pretrained.layers[1:]:
            model.add(layer)
            if layer.name in ("fc1", "fc2"):
                model.add(keras.layers.Dropout(0.5, name=f"dropout_{layer.name}"))
    model.add(keras.layers.Activation("linear", dtype="float32", name="logits"))
    return model


def compile(model):
    """Compiles with the optimizer with which both networks were trained."""
    model.compile(
        keras.optimizers.SGD(FLAGS.learning_rate, momentum=0.9, weight_decay=FLAGS.weight_decay),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(5, name="top_5_accuracy")],
    )


def train_dense(model, train, held_out, directory):
    """Trains or resumes the dense network. Every quarter divides the learning rate by ten."""
    epochs = FLAGS.dense_epochs if FLAGS.dense_epochs is not None else {"vgg16": 0, "alexnet": 80}[FLAGS.network]
    compile(model)
    if epochs:
        steps = keras.callbacks.LearningRateScheduler(
            lambda epoch: FLAGS.learning_rate * 0.1 ** (4 * epoch // epochs), verbose=1
        )
        backup = kp.PruningBackup(directory / "dense", seed=FLAGS.seed)
        model.fit(train, epochs=epochs, validation_data=held_out, verbose=2, shuffle=False, callbacks=[steps, backup])


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    keras.mixed_precision.set_global_policy(FLAGS.dtype_policy)
    directory = pathlib.Path(FLAGS.output_dir) / FLAGS.network
    train, held_out = batches(FLAGS.train_split, training=True), batches(FLAGS.held_out_split)
    with distribution():
        model = build()
        train_dense(model, train, held_out, directory)
        compile(model)  # Retraining scales the learning rate that the optimizer has.
        scan = kp.sensitivity(model, held_out.take(FLAGS.scan_batches))
        criteria = scan.criteria(FLAGS.sensitivity_drop)
        kp.prune(model, criteria)
        with local_retraining(model, compile):
            rounds = kp.iterative_prune(
                model,
                [float(compression) for compression in FLAGS.compressions or COMPRESSIONS[FLAGS.network]],
                max_drop=FLAGS.max_drop,
                learning_rate_fraction=0.01,
                directory=directory / "rounds",
                x=train,
                shuffle=False,
                epochs=FLAGS.epochs,
                validation_data=held_out,
                verbose=2,
            )
        evaluation = batches(FLAGS.eval_split)
        dense = keras.models.load_model(directory / "rounds/round_00.keras")
        accuracies = {
            name: one.evaluate(evaluation, verbose=0, return_dict=True)
            for name, one in (("dense", dense), ("pruned", model))
        }
    report = kp.report(model, held_out.take(1))
    kp.strip(model)
    model.save(directory / "pruned.keras")
    kp.save_sparse(model, directory / "pruned.kprune")
    results = {
        "rounds": [one.to_dict() for one in rounds],
        "criteria": {name: repr(criterion) for name, criterion in criteria.items()},
        "compression": report.compression,
        "layers": [row._asdict() for row in report.rows],
        **{f"{name}_{key}": value for name, values in accuracies.items() for key, value in values.items()},
    }
    (directory / "report.json").write_text(json.dumps(results, indent=1))
    (directory / "report.txt").write_text(f"{report}\n", encoding="utf-8")
    print(report)
    for name, values in accuracies.items():
        print(f"{name}: top-1 {values['accuracy']:.2%}, top-5 {values['top_5_accuracy']:.2%}")


if __name__ == "__main__":
    app.run(main)
