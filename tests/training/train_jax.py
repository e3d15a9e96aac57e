"""Prunes a model on JAX devices of one process or two: `train_jax.py WAY OUTPUT [INDEX PORT]`.

WAY is `single`, or a mesh of batch by model devices: `4x1` is DataParallel, `2x2` splits kernels among the devices of
each process, and `1x4` among the processes. It writes `OUTPUT.npz` with masks and weights, and `OUTPUT.kprune`.
"""

import sys

import jax
import keras
import numpy as np

import keras_prune as kp
from keras_prune.rules.chunks import on_host

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 4)).astype("float32")


class AboveMean(kp.Criterion):
    """A custom criterion, which gets the whole weight."""

    def select(self, weight, mask, strength):
        threshold = keras.ops.mean(keras.ops.abs(weight)) / 4
        return keras.ops.logical_and(mask, keras.ops.abs(weight) > threshold), threshold


# Applied in turn, each to the connections that are left.
CRITERIA = {
    "own": AboveMean(),
    "std": kp.StdThreshold(0.4),
    "target": kp.TargetSparsity(0.5),
    "blocks": kp.TargetSparsity(0.6, pattern=kp.Blocks((4, 1))),
    "random": kp.RandomSparsity(0.7),
    "global": kp.budgets.GlobalMagnitude(4),
    "common": kp.budgets.CommonQuality(6),
    "kernel": kp.budgets.ErdosRenyiKernel(8),
    "global blocks": kp.budgets.GlobalMagnitude(10, pattern=kp.Blocks((2, 1))),
    "one": kp.StdThreshold(30.0),  # Nothing is left, so that the largest is kept.
}


def distribute(way):
    """Splits kernels and batches among the devices. Returns among how many devices a batch is split."""
    batch, model = map(int, way.split("x"))
    if model == 1:
        keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
        return batch
    mesh = keras.distribution.DeviceMesh((batch, model), ["batch", "model"], keras.distribution.list_devices())
    layout = keras.distribution.LayoutMap(mesh)
    layout[".*hidden.*kernel"] = (None, "model")
    layout[".*hidden.*bias"] = ("model",)
    layout[".*head.*kernel"] = ("model", None)
    layout[".*moving_.*"] = ("model",)
    keras.distribution.set_distribution(
        keras.distribution.ModelParallel(layout_map=layout, batch_dim_name="batch", auto_shard_dataset=False)
    )
    return batch


def make(criterion):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((8,)),
            keras.layers.Dense(16, "relu", name="hidden"),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.Dropout(0.1),
            keras.layers.Dense(4, name="head"),
            keras.layers.Dense(4, name="whole"),
        ],
        name="small",
    )
    model = kp.prune(model, criterion)
    model.compile(keras.optimizers.Adam(0.01), "mse", jit_compile=True)
    return model


class Masks(keras.callbacks.Callback):
    """Records the masks at each epoch."""

    def __init__(self, results):
        super().__init__()
        self.results = results

    def on_epoch_end(self, epoch, logs=None):
        for weight in kp.layers.pruned_weights(self.model):
            self.results[f"fit/{epoch}/{weight.layer.name}"] = on_host(weight.mask.value)


def fit(results, feeders):
    """Trains while the schedule cuts, with batches of 32 rows of which this process feeds its part."""
    model = make(kp.StdThreshold(1.0))
    callbacks = [kp.PruningCallback(kp.Iterative(rounds=3), verbose=0), Masks(results)]
    x, y = (np.concatenate(np.split(one, 2 * feeders)[jax.process_index() % feeders :: feeders]) for one in (X, Y))
    model.fit(x, y, batch_size=len(x) // 2, epochs=4, shuffle=False, verbose=0, callbacks=callbacks)
    for weight in model.trainable_weights:
        results[f"fit/weight/{weight.path}"] = on_host(weight.value)


def cut(results, output):
    """Prunes weights that are the same everywhere with all criteria, and writes the results."""
    model, random = make(kp.StdThreshold(0.4)), np.random.default_rng(2)
    for weight in kp.layers.pruned_weights(model):
        value = random.normal(size=weight.variable.shape).astype("float32")
        # Equal magnitudes where rows are split, so that the order of the shards is that of the entries.
        weight.variable.assign(np.round(value, 1) if weight.layer.name == "head" else value)
        is_alike = weight.mask.value.sharding.is_equivalent_to(weight.variable.value.sharding, 2)
        results[f"same layout/{weight.layer.name}"] = is_alike
    for name, criterion in CRITERIA.items():
        kp.prune(model, criterion)
        kp.cut(model)
        for weight in kp.layers.pruned_weights(model):
            results[f"cut/{name}/{weight.layer.name}"] = on_host(weight.mask.value)
            results[f"cut/{name}/{weight.layer.name}/threshold"] = np.float32(weight.threshold.value)
        report = kp.report(model)
        results[f"cut/{name}/report"] = str(report)
        results[f"cut/{name}/counts"] = np.concatenate(
            [[*one.edges, one.smallest, *one.counts] for one in report.summaries]
        )
    kp.save_sparse(model, f"{output}.kprune")
    results["dead"] = str(kp.dead_neurons(model))
    model = kp.strip(model)
    kp.prune(model, 0.5)  # The zeros count, where their shards are.
    results["again"] = kp.report(model).compression


def refuse(results, output):
    """Calls functions that cannot work if no process can read a whole weight."""
    model = make(kp.StdThreshold(0.4))
    calls = {
        "save": lambda: model.save(f"{output}.keras"),
        "backup": lambda: next(kp.PruningBackup(f"{output}_backup").epochs(model, 2)),
        "rounds": lambda: kp.iterative_prune(model, []),  # There is another error for no rounds.
    }
    for name, call in calls.items():
        try:
            call()
        except ValueError as error:
            if "OrbaxCheckpoint" in str(error):
                results[f"refused/{name}"] = str(error)


def estimate(results):
    """Estimates statistics of inputs that every process has."""
    model = make(kp.TargetSparsity(0.5))
    kp.cut(model)
    kp.reestimate_batch_norm(model, X)
    results["statistics/mean/threshold"] = on_host(model.layers[1].moving_mean.value)


if __name__ == "__main__":
    way, output, *process = sys.argv[1:]
    if process:
        index, port = process
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        keras.distribution.initialize(f"localhost:{port}", 2, int(index))
    feeders = min(1 if way == "single" else distribute(way), jax.process_count())
    results = {}
    fit(results, feeders)
    cut(results, output)
    estimate(results)
    refuse(results, output)
    np.savez(f"{output}.npz", **results)
