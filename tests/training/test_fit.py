"""Pruned weights stay zero with any optimizer, precision, training step or other callback, and in files."""

import importlib.util
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import keras
import pytest
from helpers import JAX, TENSORFLOW, TORCH, array, assert_same, assert_zeros, density, masks
from keras import layers, ops, optimizers
from small_model import X, Y, fit, pruned_model

import keras_prune as kp
from keras_prune.models.rebuild import rebuild


def multi_optimizer():
    return optimizers.MultiOptimizer(
        optimizers.OptimizerMap(optimizers.Adam(), {".*head.*": optimizers.SGD(0.01, momentum=0.9)})
    )


OPTIMIZERS = {
    name: cls
    for name, cls in vars(optimizers).items()
    if isinstance(cls, type)
    and issubclass(cls, optimizers.Optimizer)
    and name not in ("Optimizer", "LossScaleOptimizer", "MultiOptimizer")
} | {"MultiOptimizer": multi_optimizer, "LossScaleOptimizer": lambda: optimizers.LossScaleOptimizer(optimizers.Adam())}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_pruned_weights_stay_zero_with_any_optimizer(name, tmp_path):
    model = pruned_model(OPTIMIZERS[name]())
    fit(model, keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    assert_zeros(model, 0.25)
    # Written before the callback of this library had its turn.
    assert_zeros(keras.models.load_model(tmp_path / "3.keras"), 0.25)


WAYS = {
    "in graphs": {"jit_compile": False, "run_eagerly": False},
    "eagerly": {"run_eagerly": True},
    "compiled by XLA": {"jit_compile": True, "run_eagerly": False},
    "several steps at once": {"steps_per_execution": 3, "run_eagerly": False},
    "clipped": {"optimizer": lambda: optimizers.Adam(clipnorm=0.1)},
    "accumulated": {"optimizer": lambda: optimizers.Adam(gradient_accumulation_steps=2)},
    "averaged": {"optimizer": lambda: optimizers.Adam(use_ema=True, ema_overwrite_frequency=3)},
}


@pytest.mark.parametrize("name", WAYS)
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_pruned_weights_stay_zero_however_steps_are_run(name, unit):
    if TORCH and name in ("compiled by XLA", "several steps at once"):
        pytest.skip("Keras runs one step at a time on PyTorch, and not through XLA")
    settings = dict(WAYS[name])
    model = pruned_model(settings.pop("optimizer", lambda: "adam")(), **settings)
    fit(model, schedule=kp.OneShot(start=1 if unit == "epoch" else 3, unit=unit))
    assert_zeros(model, 0.25)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_exact_zeros(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = pruned_model()
    finally:
        keras.config.set_dtype_policy("float32")
    fit(model, schedule=kp.OneShot(start=6, unit="step"))
    assert_zeros(model, 0.25)
    assert model.get_layer("hidden").kernel.dtype == "float32"


class Interrupted(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


@pytest.mark.parametrize("first", [True, False])
def test_run_restored_from_a_backup_ends_with_same_masks(first, tmp_path):
    def run(directory, *more):
        keras.utils.set_random_seed(0)
        model = pruned_model(optimizers.SGD(0.05, momentum=0.9))
        callbacks = [keras.callbacks.BackupAndRestore(directory)]
        own = kp.PruningCallback(kp.Iterative(rounds=3, epochs_per_round=2), verbose=0)
        callbacks.insert(0 if first else 1, own)
        model.fit(X, Y, epochs=6, shuffle=False, verbose=0, callbacks=[*callbacks, *more])
        return masks(model)

    expected = run(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        run(tmp_path / "backup", Interrupted(3))
    assert_same(run(tmp_path / "backup"), expected)


class Adversaries(keras.Model):
    """Two optimizers, as in a GAN."""

    def __init__(self):
        super().__init__()
        self.generator = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="generator_dense")])
        self.critic = keras.Sequential([keras.Input((8,)), layers.Dense(3, name="critic_dense")])

    def compile(self, generator_optimizer, critic_optimizer):
        super().compile(run_eagerly=TENSORFLOW, jit_compile=False)
        self.generator_optimizer, self.critic_optimizer = generator_optimizer, critic_optimizer

    def call(self, inputs):
        return self.critic(self.generator(inputs))

    def train_step(self, data):
        x, y = data
        for part, optimizer in ((self.generator, self.generator_optimizer), (self.critic, self.critic_optimizer)):
            if TENSORFLOW:
                import tensorflow as tf

                with tf.GradientTape() as tape:
                    loss = ops.mean((self(x, training=True) - y) ** 2)
                gradients = tape.gradient(loss, part.trainable_weights)
                optimizer.apply(gradients, part.trainable_weights)
            else:
                import torch

                self.zero_grad()
                loss = ops.mean((self(x, training=True) - y) ** 2)
                loss.backward()
                with torch.no_grad():
                    optimizer.apply([weight.value.grad for weight in part.trainable_weights], part.trainable_weights)
        return {"loss": loss}


@pytest.mark.skipif(JAX, reason="an own step is stateless on JAX, and takes the one optimizer of compile")
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_own_step_with_own_optimizers_keeps_zeros(unit):
    model = Adversaries()
    model(X)
    model = kp.prune(model, kp.TargetSparsity(0.75))
    model.compile(optimizers.Adam(0.01), optimizers.SGD(0.01, momentum=0.9))
    fit(model, schedule=kp.OneShot(start=1 if unit == "epoch" else 6, unit=unit))
    assert_zeros(model, 0.25)
    assert not any(
        array(slot)[~array(model.generator.layers[0].pruning.mask_0)].any()
        for slot in model.generator_optimizer.variables
        if slot.shape == (8, 8)
    )


class JaxStep(keras.Model):
    """Doubles the loss in its own step."""

    def compute_loss_and_updates(self, trainable, non_trainable, x, y):
        outputs, non_trainable = self.stateless_call(trainable, non_trainable, x, training=True)
        return 2 * ops.mean((outputs - y) ** 2), non_trainable

    def train_step(self, state, data):
        import jax

        trainable, non_trainable, optimizer, metrics = state
        gradient = jax.value_and_grad(self.compute_loss_and_updates, has_aux=True)
        (loss, non_trainable), gradients = gradient(trainable, non_trainable, *data)
        trainable, optimizer = self.optimizer.stateless_apply(optimizer, gradients, trainable)
        return {"loss": loss}, (trainable, non_trainable, optimizer, metrics)


@pytest.mark.skipif(not JAX, reason="the step of the other backends is tested above")
def test_own_step_on_jax_keeps_zeros():
    inputs = keras.Input((8,))
    model = kp.prune(JaxStep(inputs, layers.Dense(3, name="head")(inputs)), kp.TargetSparsity(0.75))
    assert isinstance(model, JaxStep)
    model.compile("adam", "mse")
    fit(model)
    assert_zeros(model, 0.25)


def test_layers_frozen_after_prune_are_not_cut():
    model = pruned_model()
    model.get_layer("hidden").trainable = False
    model.compile("adam", "mse", jit_compile=JAX, run_eagerly=TENSORFLOW)
    fit(model)
    assert density(model.get_layer("hidden")) == 1
    assert density(model.get_layer("head")) == 0.25
    model.trainable = False
    with pytest.raises(ValueError, match=r"no trainable weights with pruning enabled.*Received: model="):
        fit(model)


def frozen_base():
    """Returns a pruned model whose base was frozen when the model was made."""
    base = keras.Sequential([keras.Input((8,)), layers.Dense(8, name="hidden")], name="base")
    base.trainable = False
    return kp.prune(keras.Sequential([keras.Input((8,)), base, layers.Dense(3, name="head")]))


def saved_and_loaded(model, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def saved_sparse_and_loaded(model, folder):
    kp.save_sparse(model, folder / "model.kprune")
    return kp.load_sparse(folder / "model.kprune")


UNFROZEN = {
    "pruned": lambda model, _: model,
    "stripped": lambda model, _: kp.strip(model),
    "loaded": saved_and_loaded,
    "loaded sparse": saved_sparse_and_loaded,
    "rebuilt": lambda model, _: rebuild(kp.strip(model), lambda layer, copy_of: copy_of(layer)),
}


@pytest.mark.parametrize("name", UNFROZEN)
def test_frozen_base_trains_once_it_is_unfrozen(name, tmp_path):
    model = UNFROZEN[name](frozen_base(), tmp_path)
    base = model.get_layer("base")
    base.trainable = True
    model.compile(keras.optimizers.SGD(1.0), "mse", run_eagerly=not JAX)
    before = array(base.layers[0].kernel)
    model.fit(X, Y, verbose=0)
    assert (array(base.layers[0].kernel) != before).all()


def test_prune_between_two_fits_keeps_learning_rate_and_slots():
    decay = optimizers.schedules.ExponentialDecay(0.1, decay_steps=8, decay_rate=0.5)
    model = pruned_model(optimizers.SGD(decay, momentum=0.9))
    fit(model)
    before = [array(variable) for variable in model.optimizer.variables]
    kp.prune(model, kp.TargetSparsity(0.875))
    assert_same(model.optimizer.variables, before)
    fit(model)
    assert_zeros(model, 0.125)
    assert float(array(model.optimizer.learning_rate)) == pytest.approx(0.1 * 0.5**3)  # 24 updates of 4 batches each.


def test_threads_compute_as_one_does():
    model = pruned_model()
    kp.cut(model)
    expected = array(model(X))
    with ThreadPoolExecutor(4) as threads:
        for outputs in threads.map(lambda _: array(model(X)), range(40)):
            assert_same(outputs, expected)


@pytest.mark.skipif(not TORCH, reason="a compiler of PyTorch")
def test_model_compiled_by_pytorch_follows_a_cut():
    import torch

    model = pruned_model()
    compiled = torch.compile(model, backend="aot_eager")
    for criterion in (0.5, 0.75):
        kp.cut(kp.prune(model, criterion))
        torch.testing.assert_close(compiled(torch.tensor(X)), model(X))


NNX = """
import keras
import numpy as np
from flax import nnx
from small_model import X, fit, pruned_model

import keras_prune as kp

assert keras.config.is_nnx_enabled()
model = pruned_model()
fit(model)
model.save("model.keras")
loaded = keras.models.load_model("model.keras", compile=False)  # NNX cannot split a compiled model, pruned or not.
merged = nnx.merge(*nnx.split(loaded))
np.testing.assert_array_equal(merged(X), model(X))
print([weight.kept for weight in kp.layers.pruned_weights(merged)], isinstance(model, nnx.Module))
"""


@pytest.mark.skipif(not (JAX and importlib.util.find_spec("flax")), reason="NNX is a part of Flax, which runs on JAX")
def test_layers_that_are_nnx_modules_keep_masks(tmp_path):
    environment = {**os.environ, "KERAS_NNX_ENABLED": "true", "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", NNX]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout.splitlines()[-1:] == ["[32, 12] True"], done.stderr


@pytest.mark.parametrize("save", [saved_and_loaded, saved_sparse_and_loaded])
def test_layers_frozen_one_by_one_train_once_they_are_unfrozen(save, tmp_path):
    model = pruned_model()
    for layer in model.layers:
        layer.trainable = False
    loaded = save(model, tmp_path)
    loaded.get_layer("head").trainable = True
    assert len(loaded.trainable_variables) == 2
