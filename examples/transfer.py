"""Prunes a new head on a frozen pretrained network, and then the whole model.

    python examples/transfer.py                            # MobileNetV2 on flowers; downloads weights and images
    python examples/transfer.py --dataset=cifar10 --image_size=96 --alpha=0.35 --train_split='train[:80%]'
    python examples/transfer.py --weights=none             # with random weights, without a download of weights

Three things matter. `kp.prune` does not prune frozen layers, so it is called twice, for the head, and for the backbone
once it is unfrozen. The head keeps its masks. The backbone is always called with `training=False`, so that its batch
norms keep their pretrained statistics. The unfrozen network is fine-tuned at a small learning rate before its first
cut, and after every cut.
"""

import pathlib

import _quiet  # noqa: F401
import keras
import tensorflow as tf
import tensorflow_datasets as tfds
from absl import app, flags
from keras import layers

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_string("dataset", "tf_flowers", "A TensorFlow dataset of images with labels.")
flags.DEFINE_string("train_split", "train[:80%]", "Images to train on.")
flags.DEFINE_string("held_out_split", "train[80%:90%]", "Images to validate on during training.")
flags.DEFINE_string("eval_split", "train[90%:]", "Images to evaluate on, at the end.")
flags.DEFINE_string("data_dir", None, "Directory of TensorFlow Datasets. Defaults to TFDS_DATA_DIR.")
flags.DEFINE_enum("weights", "imagenet", ["imagenet", "none"], "Weights of MobileNetV2. With none, they are random.")
flags.DEFINE_float("alpha", 1.0, "Width of MobileNetV2. Pretrained: 0.35, 0.5, 0.75, 1.0, 1.3 and 1.4.")
flags.DEFINE_integer("image_size", 160, "Pixels of a side. Pretrained: 96, 128, 160, 192 and 224.", lower_bound=32)
flags.DEFINE_integer("batch_size", 32, "Images per training step.", lower_bound=1)
flags.DEFINE_integer("head_epochs", 4, "Epochs of the head. It is pruned before the last one.", lower_bound=1)
flags.DEFINE_integer("tuning_epochs", 2, "Epochs of the whole network before its first cut.", lower_bound=0)
flags.DEFINE_integer("rounds", 4, "Number of cuts of the whole network.", lower_bound=1)
flags.DEFINE_integer("epochs", 2, "Epochs after each cut.", lower_bound=1)
flags.DEFINE_float("quality", 1.0, "Quality of the last cut: threshold = quality x standard deviation.")
flags.DEFINE_float("learning_rate", 1e-3, "Learning rate of the head. The unfrozen network has a tenth of it.")
flags.DEFINE_integer("seed", 0, "Seed of initial weights, order of images and dropout.")
flags.DEFINE_string("output_dir", "output/transfer", "Folder for the pruned model.")


def batches(split, training=False):
    """Returns the batches of a split, images from 0 to 255. For training, the order is random and half are mirrored."""

    def resize(image, label):
        image = tf.image.resize(image, (FLAGS.image_size, FLAGS.image_size))
        return tf.image.random_flip_left_right(image) if training else image, label

    images = tfds.load(FLAGS.dataset, split=split, data_dir=FLAGS.data_dir, as_supervised=True)
    if training:
        images = images.shuffle(2_000, seed=FLAGS.seed)
    return images.map(resize, num_parallel_calls=tf.data.AUTOTUNE).batch(FLAGS.batch_size).prefetch(tf.data.AUTOTUNE)


def build(classes):
    """Returns a new classifier on a frozen pretrained backbone."""
    inputs = keras.Input((FLAGS.image_size, FLAGS.image_size, 3))
    backbone = keras.applications.MobileNetV2(
        inputs.shape[1:], FLAGS.alpha, include_top=False, weights=None if FLAGS.weights == "none" else FLAGS.weights
    )
    backbone.trainable = False
    outputs = backbone(layers.Rescaling(1 / 127.5, -1)(inputs), training=False)
    outputs = layers.Dropout(0.2)(layers.GlobalAveragePooling2D()(outputs))
    return keras.Model(inputs, layers.Dense(classes, name="head")(outputs)), backbone.name


def train(model, learning_rate, schedule, epochs, data, held_out):
    """Trains and prunes on a schedule."""
    model.compile(
        keras.optimizers.Adam(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    callbacks = [kp.PruningCallback(schedule)]
    model.fit(data, epochs=epochs, validation_data=held_out, shuffle=False, verbose=2, callbacks=callbacks)


def criterion(layer):
    """Leaves depthwise convolutions dense, which have the fewest weights and lose the most accuracy."""
    return None if isinstance(layer, layers.DepthwiseConv2D) else kp.StdThreshold(FLAGS.quality)


def main(_):
    keras.utils.set_random_seed(FLAGS.seed)
    data, held_out = batches(FLAGS.train_split, training=True), batches(FLAGS.held_out_split)
    classes = tfds.builder(FLAGS.dataset, data_dir=FLAGS.data_dir).info.features["label"].num_classes
    model, backbone = build(classes)

    kp.prune(model, criterion)
    train(model, FLAGS.learning_rate, kp.OneShot(start=FLAGS.head_epochs - 1), FLAGS.head_epochs, data, held_out)

    model.get_layer(backbone).trainable = True
    kp.prune(model, criterion)
    schedule = kp.Iterative(FLAGS.rounds, FLAGS.epochs, start=FLAGS.tuning_epochs)
    epochs = FLAGS.tuning_epochs + FLAGS.rounds * FLAGS.epochs
    train(model, 0.1 * FLAGS.learning_rate, schedule, epochs, data, held_out)

    accuracy = model.evaluate(batches(FLAGS.eval_split), verbose=0, return_dict=True)["accuracy"]
    print(kp.report(model))
    print(f"accuracy: {accuracy:.2%}")
    output_dir = pathlib.Path(FLAGS.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    kp.strip(model)
    model.save(output_dir / "pruned.keras")
    kp.save_sparse(model, output_dir / "pruned.kprune")


if __name__ == "__main__":
    app.run(main)
