r"""Prunes a network that several workers train together with TensorFlow, and resumes if one of them is killed.

Start it on each machine, with the addresses of all workers in TF_CONFIG. To try two workers on this machine:

    WORKERS='{"cluster": {"worker": ["localhost:12300", "localhost:12301"]}'
    TF_CONFIG="$WORKERS, \"task\": {\"type\": \"worker\", \"index\": 0}}" python examples/several_workers.py &
    TF_CONFIG="$WORKERS, \"task\": {\"type\": \"worker\", \"index\": 1}}" python examples/several_workers.py

Kill one of them, end the others, and start all again. The run resumes after the last epoch that all have saved, and
ends with the same weights as a run that was not killed. Without TF_CONFIG there is one worker.
"""

import pathlib

import _quiet  # noqa: F401
import keras
import numpy as np
import tensorflow as tf
from absl import app, flags
from sklearn.datasets import load_digits

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_integer("epochs", 12, "Epochs of the whole run.", lower_bound=1)
flags.DEFINE_integer("batch_size", 60, "Images of a step, over all workers.", lower_bound=1)
flags.DEFINE_bool("fit", False, "Train with `fit`, which Keras 3.15 cannot do with several workers, pruned or not.")
flags.DEFINE_string("backup_dir", "output/several_workers/backup", "Folder for the backups of all workers.")
flags.DEFINE_string("output_dir", "output/several_workers", "Folder for the models of all workers.")


def build():
    """Returns a compiled model with pruning enabled."""
    hidden = [keras.layers.Dense(64, "relu", name="fc1"), keras.layers.Dropout(0.3), keras.layers.Dense(10, name="fc2")]
    model = kp.prune(keras.Sequential([keras.Input((64,)), *hidden]), kp.TargetSparsity(0.9))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-3), loss, jit_compile=False)
    return model


def batches(x, y, epoch):
    """Returns the batches of an epoch, in an order that only depends on the epoch."""
    order = np.random.default_rng(epoch).permutation(len(x))
    data = tf.data.Dataset.from_tensor_slices((x[order], y[order])).batch(FLAGS.batch_size, drop_remainder=True)
    options = tf.data.Options()
    options.experimental_distribute.auto_shard_policy = tf.data.experimental.AutoShardPolicy.DATA
    return data.with_options(options)


def train(model, x, y, schedule):
    """Trains in a custom loop, which runs on any number of workers."""
    strategy = model.distribute_strategy
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="sum")

    @tf.function
    def step(x, y):
        def replica_step(x, y):
            with tf.GradientTape() as tape:
                # The strategy adds up the gradients of all workers.
                value = loss(y, model(x, training=True)) / FLAGS.batch_size
            gradients = tape.gradient(value, model.trainable_variables)
            model.optimizer.apply(gradients, model.trainable_variables)

        strategy.run(replica_step, args=(x, y))

    for epoch in kp.PruningBackup(FLAGS.backup_dir).epochs(model, FLAGS.epochs):
        kp.cut(model, schedule(epoch))
        for one in strategy.experimental_distribute_dataset(batches(x, y, epoch)):
            step(*one)
        print(f"epoch {epoch + 1} of {FLAGS.epochs}: {kp.report(model).compression:.1f}x", flush=True)


def main(_):
    strategy = tf.distribute.MultiWorkerMirroredStrategy()
    with strategy.scope():
        keras.utils.set_random_seed(0)
        model = build()
    digits = load_digits()
    x, y = digits.data.astype("float32") / 16, digits.target
    schedule = kp.Polynomial(start=2, end=8)
    if FLAGS.fit:
        callbacks = [kp.PruningCallback(schedule), kp.PruningBackup(FLAGS.backup_dir)]
        model.fit(batches(x, y, 0), epochs=FLAGS.epochs, verbose=2, callbacks=callbacks)
    else:
        train(model, x, y, schedule)
    accuracy = np.mean(np.argmax(model(x), -1) == y)
    worker = strategy.cluster_resolver.task_id or 0
    output = pathlib.Path(FLAGS.output_dir) / f"worker_{worker}.keras"
    output.parent.mkdir(parents=True, exist_ok=True)
    model.save(output)
    print(f"{output}: {kp.report(model).compression:.1f}x, accuracy {accuracy:.2%}", flush=True)
    # Worker 0 coordinates the others, and must not end before they have saved.
    strategy.reduce("SUM", tf.ones(()), axis=None)


if __name__ == "__main__":
    app.run(main)
