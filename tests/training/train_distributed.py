"""Trains a pruned model on one device or several: `train_distributed.py WAY OUTPUT`.

It writes an `.npz` file with the weights, and the masks that every replica has at every epoch.
"""

import os
import pathlib
import socket
import sys
import tempfile

import keras
import numpy as np

import keras_prune as kp
from keras_prune._processes import gather, process_index

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")


def make():
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.BatchNormalization(momentum=0.9, synchronized=os.environ["KERAS_BACKEND"] == "tensorflow"),
            keras.layers.Dense(4, name="head"),
        ]
    )
    model = kp.prune(model, kp.StdThreshold(1.0))
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=os.environ["KERAS_BACKEND"] == "jax")
    return model


def replicas(variable):
    """The values of a variable on every device that has one."""
    value = variable.value
    if hasattr(value, "values"):  # Mirrored by TensorFlow.
        return [part.numpy() for part in value.values]
    if hasattr(value, "addressable_shards") and value.is_fully_replicated:
        return [np.asarray(shard.data) for shard in value.addressable_shards]
    return [keras.ops.convert_to_numpy(value)]


class Masks(keras.callbacks.Callback):
    """Records the masks of each replica at each epoch."""

    def __init__(self):
        super().__init__()
        self.kept = {}

    def on_epoch_end(self, epoch, logs=None):
        for weight in kp.layers.pruned_weights(self.model):
            self.kept[f"mask/{epoch}/{weight.layer.name}"] = np.stack(replicas(weight.mask))


def train(model, masks):
    callbacks = [kp.PruningCallback(kp.Iterative(rounds=3), verbose=0), masks]
    model.fit(X, Y, batch_size=32, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)


def on_tensorflow(way, masks):
    import tensorflow as tf

    if way == "mirrored":
        cpu = tf.config.list_physical_devices("CPU")[0]
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
        strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    elif way == "workers":
        strategy = tf.distribute.MultiWorkerMirroredStrategy()
    elif way == "parameter_server":
        strategy = tf.distribute.ParameterServerStrategy(cluster_in_this_process())
    else:
        strategy = tf.distribute.get_strategy()
    with strategy.scope():
        model = make()
    {"workers": train_by_hand, "parameter_server": train_with_coordinator}.get(way, train)(model, masks)
    if way == "workers":
        masks.kept["gathered"] = gather(np.array([process_index(model), 2**40]), model)
        try:
            train(model, Masks())
        except RuntimeError as error:
            masks.kept["error of fit"] = str(error)
    return model


def train_step(model):
    """Returns the step of a custom loop on one replica."""
    import tensorflow as tf

    def step(x, y):
        with tf.GradientTape() as tape:
            loss = tf.reduce_sum((model(x, training=True) - y) ** 2) / (32 * 4)  # Summed over all replicas later.
        model.optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)

    return step


def train_by_hand(model, masks):
    """Trains in a custom loop, because `fit` fails under a MultiWorkerMirroredStrategy, pruned or not."""
    import tensorflow as tf

    strategy = model.distribute_strategy
    masks.set_model(model)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(32)
    with strategy.scope():
        model.optimizer.build(model.trainable_variables)
    replica_step = train_step(model)

    @tf.function
    def step(x, y):
        strategy.run(replica_step, args=(x, y))

    for epoch in range(4):
        kp.cut(model, kp.Iterative(rounds=3)(epoch))
        for x, y in strategy.experimental_distribute_dataset(data):
            step(x, y)
        masks.on_epoch_end(epoch)


def cluster_in_this_process():
    """Starts two workers and a parameter server as threads, and returns how a coordinator finds them."""
    import tensorflow as tf

    sockets = [socket.create_server(("localhost", 0)) for _ in range(3)]
    addresses = [f"localhost:{one.getsockname()[1]}" for one in sockets]
    for one in sockets:
        one.close()
    cluster = tf.train.ClusterSpec({"worker": addresses[:2], "ps": addresses[2:]})
    for job, index in (("worker", 0), ("worker", 1), ("ps", 0)):
        tf.distribute.Server(cluster, job_name=job, task_index=index, protocol="grpc")
    return tf.distribute.cluster_resolver.SimpleClusterResolver(cluster, rpc_layer="grpc")


def train_with_coordinator(model, masks):
    """Trains with a ClusterCoordinator, each step on one of the workers, and backs up as a user does."""
    import tensorflow as tf

    strategy = model.distribute_strategy
    coordinator = tf.distribute.coordinator.ClusterCoordinator(strategy)
    masks.set_model(model)
    replica_step = train_step(model)

    @tf.function
    def step(x, y):
        strategy.run(replica_step, args=(x, y))

    with tempfile.TemporaryDirectory() as folder:
        for epoch in kp.PruningBackup(folder).epochs(model, 4):
            kp.cut(model, kp.Iterative(rounds=3)(epoch))
            for start in (0, 32):
                coordinator.schedule(step, args=(tf.constant(X[start:][:32]), tf.constant(Y[start:][:32])))
                coordinator.join()  # The next step starts from its weights, as those of a single process do.
            masks.on_epoch_end(epoch)
        assert [file.name for file in pathlib.Path(folder).iterdir()] == ["after_epoch_4.weights.h5"]


def on_jax(way, masks):
    if way == "data":
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
    elif way == "model":
        mesh = keras.distribution.DeviceMesh((2, 2), ["batch", "model"], keras.distribution.list_devices())
        layout = keras.distribution.LayoutMap(mesh)
        layout[".*hidden.*kernel"] = (None, "model")
        layout[".*hidden.*bias"] = ("model",)
        layout[".*hidden.*pruning/mask_0"] = (None, "model")
        keras.distribution.set_distribution(
            keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
        )
    model = make()
    train(model, masks)
    return model


if __name__ == "__main__":
    way, output = sys.argv[1:]
    masks = Masks()
    model = {"tensorflow": on_tensorflow, "jax": on_jax}[keras.backend.backend()](way, masks)
    weights = {
        f"weight/{i}": keras.ops.convert_to_numpy(variable.value)
        for i, variable in enumerate(model.trainable_variables)
    }
    np.savez(output, **masks.kept, **weights)
