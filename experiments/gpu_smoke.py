"""Section `smoke` of `gpu.py`, which prunes, trains, saves, loads and strips models on the device."""

import math
import os
import tempfile
import time

import gpu_events
import keras
import numpy as np
from absl import app, flags
from keras import layers

import keras_prune as kp

FLAGS = flags.FLAGS
flags.DEFINE_bool("small", False, "No effect. The other sections have this flag.")
flags.DEFINE_enum("device", "gpu", ["cpu", "gpu"], "Device to run on.")
flags.DEFINE_float("until", math.inf, "Unix time at which no new check is started.")
SPARSITY = 0.9


def main(_):
    gpu_events.emit("machine", machine=gpu_events.machine(FLAGS.device) | {"backend": keras.backend.backend()})
    checks = {"dense": (dense, "float32"), "convolutional": (convolutional, "float32"), "lstm": (lstm, "float32")}
    checks["dense, mixed_bfloat16"] = dense, "mixed_bfloat16"
    for name, (build, policy) in checks.items():
        if time.time() > FLAGS.until:
            gpu_events.emit("entry", entry={"check": name, "passed": None, "reason": "no time was left"})
            continue
        keras.config.set_dtype_policy(policy)
        entry = {"check": name}
        try:
            entry |= {"passed": True} | check(build, tolerance(policy))
        except Exception as error:
            entry |= {"passed": False, "reason": gpu_events.reason(error)}
        gpu_events.emit("entry", entry=entry)


def dense():
    hidden = [layers.Dense(128, "relu"), layers.Dense(64, "relu"), layers.Dense(10, dtype="float32")]
    return keras.Sequential([keras.Input((64,)), *hidden])


def convolutional():
    hidden = [layers.Conv2D(8, 3, activation="relu"), layers.MaxPooling2D(), layers.Conv2D(16, 3, activation="relu")]
    return keras.Sequential([keras.Input((16, 16, 3)), *hidden, layers.Flatten(), layers.Dense(10)])


def lstm():
    return keras.Sequential([keras.Input((12, 16)), layers.LSTM(32, name="lstm"), layers.Dense(10)])


def tolerance(policy):
    """Returns the allowed difference of outputs. A GPU may choose another algorithm, with TF32, for a product."""
    if FLAGS.device == "cpu":
        return 1e-5
    return 2e-2 if "bfloat16" in policy else 2e-3


def check(build, tolerance):
    """Returns the results for one network, and raises an error if a check fails."""
    keras.utils.set_random_seed(0)
    model = kp.prune(build(), kp.TargetSparsity(SPARSITY))
    random = np.random.default_rng(0)
    x = random.standard_normal((256, *model.input_shape[1:]), dtype="float32")
    y = random.integers(10, size=256)
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    # The cut is at epoch 1, and the epochs after it retrain.
    cut = kp.PruningCallback(kp.OneShot(start=1), verbose=0)
    model.fit(x, y, batch_size=32, epochs=4, callbacks=[cut], verbose=0)

    sparsity, zeros = float(kp.report(model).sparsity), zero_share(model)
    expect(abs(sparsity - SPARSITY) < 0.02, f"the report gives a sparsity of {sparsity:.3f}")
    expect(abs(zeros - sparsity) < 1e-6, f"{zeros:.4f} of the stored weights are zero, the report says {sparsity:.4f}")
    masks = [weight.mask for weight in kp.layers.pruned_weights(model)]
    expect(masks, "no weight of the model has a mask")
    for variable in [*masks, *kernels(model)]:
        expect(on_device(variable), f"{variable.path} is on {place(variable)}")

    outputs = predict(model, x)
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "model.keras")
        model.save(path)
        loaded = keras.models.load_model(path)
    found = {"loaded": difference(predict(loaded, x), outputs)}
    expect(found["loaded"] < tolerance, f"the outputs of a loaded model differ by {found['loaded']:.1e}")
    expect(zero_share(loaded) == zeros, "a loaded model has other zeros")
    loaded.fit(x, y, batch_size=32, epochs=1, verbose=0)
    expect(zero_share(loaded) == zeros, "a loaded model loses zeros when it is trained")
    stripped = kp.strip(model)
    found["stripped"] = difference(predict(stripped, x), outputs)
    expect(found["stripped"] < tolerance, f"the outputs of a stripped model differ by {found['stripped']:.1e}")
    expect(zero_share(stripped) == zeros, "a stripped model has other zeros")
    expect(not kp.layers.pruned_weights(stripped), "a stripped model has masks")
    found |= {"sparsity": sparsity, "masks_on": place(masks[0])}
    return found | (cudnn(stripped, x, outputs) if build is lstm else {})


def cudnn(model, x, outputs):
    """Returns whether Keras runs the LSTM in cuDNN, and the difference of the outputs from a run without it."""
    found = {}
    for use in (True, False):
        config = model.get_config()
        for entry in config["layers"]:
            if entry["config"].get("name") == "lstm":
                entry["config"]["use_cudnn"] = use
        other = type(model).from_config(config)
        other.set_weights(model.get_weights())
        try:
            apart = difference(predict(other, x), outputs)
        except ValueError:  # Keras refuses `use_cudnn=True` where there is no cuDNN.
            expect(FLAGS.device == "cpu", "there is no cuDNN")
            found["cudnn_used"] = False
            continue
        expect(apart < 5e-3, f"the outputs with use_cudnn={use} differ by {apart:.1e}")
        found |= {"cudnn_used": runs_cudnn(other, x)} if use else {"cudnn_difference": apart}
    return found


def runs_cudnn(model, x):
    """Returns whether a model with `use_cudnn=True` runs cuDNN. On PyTorch, Keras may silently not use it."""
    if keras.backend.backend() != "torch":
        return True
    import torch

    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        predict(model, x)
    return any("cudnn_rnn" in event.key for event in profile.key_averages())


def kernels(model):
    """Returns the weights that hold connections."""
    return [weight for weight in model.weights if len(weight.shape) >= 2]


def zero_share(model):
    """Returns the share of zeros among the connections, as they are stored."""
    values = [keras.ops.convert_to_numpy(weight.value) for weight in kernels(model)]
    return sum(int((value == 0).sum()) for value in values) / sum(value.size for value in values)


def place(variable):
    """Returns the device of a variable as its backend names it."""
    value = variable.value
    if keras.backend.backend() == "jax":
        return ",".join(sorted(device.platform for device in value.devices()))
    return str(value.device)


def on_device(variable):
    """Returns whether a variable is on the device of the run."""
    names = ("gpu", "cuda") if FLAGS.device == "gpu" else ("cpu",)
    return any(name in place(variable).lower() for name in names)


def predict(model, x):
    """Returns float32 outputs, always computed in the same way."""
    return keras.ops.convert_to_numpy(model(x, training=False)).astype("float32")


def difference(outputs, expected):
    """Returns the largest difference, relative to the largest output."""
    return float(np.abs(outputs - expected).max() / np.abs(expected).max())


def expect(condition, message):
    """Raises an error with the message if a condition does not hold."""
    if not condition:
        raise AssertionError(message)


if __name__ == "__main__":
    app.run(main)
