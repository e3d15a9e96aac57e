"""Section `training` of `gpu.py`, which measures the time of a training step, pruned over plain."""

import math
import time

import gpu_events
import keras
import numpy as np
from absl import app, flags
from keras import layers

import keras_prune as kp
from keras_prune import networks

FLAGS = flags.FLAGS
flags.DEFINE_bool("small", False, "Few rounds and steps.")
flags.DEFINE_enum("device", "gpu", ["cpu", "gpu"], "Device to run on.")
flags.DEFINE_float("until", math.inf, "Unix time at which no new network is started.")
BATCH = 128
ROUNDS = 17  # Of three turns each: plain, pruned, pruned with the callback.


def resnet(blocks=(3, 3, 3), filters=16):
    """Returns a ResNet-20 for 32 x 32 images."""
    inputs = x = keras.Input((32, 32, 3))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Conv2D(filters, 3, padding="same", use_bias=False)(x)))
    for stage, count in enumerate(blocks):
        for block in range(count):
            strides, width = 2 if stage and not block else 1, filters * 2**stage
            shortcut = x
            x = layers.Conv2D(width, 3, strides, "same", use_bias=False)(x)
            x = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.BatchNormalization()(layers.Conv2D(width, 3, padding="same", use_bias=False)(x))
            if shortcut.shape[-1] != width:
                shortcut = layers.Conv2D(width, 1, strides, use_bias=False)(shortcut)
            x = layers.ReLU()(layers.add([x, shortcut]))
    return keras.Model(inputs, layers.Dense(10)(layers.GlobalAveragePooling2D()(x)))


# Network, input shape and steps of a turn.
NETWORKS = {
    "LeNet-300-100": (networks.lenet_300_100, (28, 28, 1), 100),
    "LeNet-5": (networks.lenet_5, (28, 28, 1), 100),
    "ResNet-20": (resnet, (32, 32, 3), 20),
}
SMALL_NETWORKS = {
    "LeNet-300-100": (networks.lenet_300_100, (28, 28, 1), 2),
    "ResNet-8": (lambda: resnet((1, 1, 1), 4), (32, 32, 3), 1),
}


def main(_):
    gpu_events.emit("machine", machine=gpu_events.machine(FLAGS.device) | {"backend": keras.backend.backend()})
    for name, (build, shape, steps) in (SMALL_NETWORKS if FLAGS.small else NETWORKS).items():
        entry = {"network": name, "batch": BATCH, "steps": steps}
        if time.time() > FLAGS.until:
            gpu_events.emit("entry", entry=entry | {"reason": "no time was left"})
            continue
        try:
            entry |= measure(build, shape, steps)
        except Exception as error:
            entry["reason"] = gpu_events.reason(error)
        gpu_events.emit("entry", entry=entry)


def measure(build, shape, steps):
    """Returns the milliseconds of a step of each model, and the ratios over the plain model."""
    random = np.random.default_rng(0)
    x = random.standard_normal((BATCH * steps, *shape), dtype="float32")
    y = random.integers(10, size=BATCH * steps)
    models = {}
    for kind in ("plain", "pruned", "callback"):
        keras.utils.set_random_seed(0)
        models[kind] = build() if kind == "plain" else kp.prune(build(), kp.TargetSparsity(0.9))
        models[kind].compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    cuts = {kind: [kp.PruningCallback(kp.OneShot(start=0), verbose=0)] for kind in ("pruned", "callback")}
    fit = {"batch_size": BATCH, "shuffle": False, "verbose": 0}
    times = {kind: [] for kind in models}
    for number in range(4 if FLAGS.small else ROUNDS):
        for kind, model in models.items():
            # Both models are pruned in the first round. After that, only one of them has the callback.
            callbacks = cuts.get(kind, []) if number == 0 or kind == "callback" else []
            started = time.perf_counter()
            model.fit(x, y, callbacks=callbacks, initial_epoch=number, epochs=number + 1, **fit)
            times[kind].append(1e3 * (time.perf_counter() - started) / steps)
        if number > 4 and time.time() > FLAGS.until:
            break
    # The first two rounds compile, because pruning may change the compiled function.
    times = {kind: np.array(values[2:]) for kind, values in times.items()}
    found = {f"{kind}_ms": float(np.median(values)) for kind, values in times.items()}
    for kind in ("pruned", "callback"):
        found[f"{kind}_ratio"] = interval(times[kind] / times["plain"])
    zeros = [keras.ops.convert_to_numpy(w.value) for w in models["pruned"].weights if is_kernel(w)]
    found["zeros"] = sum(int((value == 0).sum()) for value in zeros) / sum(value.size for value in zeros)
    return found | {"rounds": len(times["plain"]), "sparsity": float(kp.report(models["pruned"]).sparsity)}


def is_kernel(weight):
    """Returns whether a weight holds connections."""
    return len(weight.shape) >= 2


def interval(ratios):
    """Returns the median and, from order statistics, its interval at about 95%."""
    ordered = np.sort(ratios)
    rank = max(0, math.floor((len(ordered) - 1.96 * math.sqrt(len(ordered))) / 2))
    return [float(np.median(ordered)), float(ordered[rank]), float(ordered[-1 - rank])]


if __name__ == "__main__":
    app.run(main)
