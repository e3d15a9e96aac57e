"""Ways to train: whatever optimizer, precision, step or other callback, what is cut stays cut, in files too."""

import keras
import numpy as np
import pytest
from keras import layers, ops, optimizers

import keras_prune as kp

JAX, TENSORFLOW, TORCH = (keras.backend.backend() == name for name in ("jax", "tensorflow", "torch"))
X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")


def array(variable):
    return ops.convert_to_numpy(variable.value)


def pruned_model(optimizer="adam", **compiling):
    inputs = keras.Input((8,))
    hidden = layers.Dropout(0.5, seed=3)(layers.Dense(16, "relu", name="hidden")(inputs))
    model = kp.prune(keras.Model(inputs, layers.Dense(3, name="head")(hidden)), kp.TargetSparsity(0.75))
    # A few steps take TensorFlow less time than compiling them would.
    model.compile(optimizer, "mse", **{"jit_compile": JAX, "run_eagerly": TENSORFLOW} | compiling)
    return model


def fit(model, *callbacks, schedule=None, epochs=3, **kwargs):
    """Trains with the callback behind all others, where it sees what they did last."""
    callbacks = [*callbacks, kp.PruningCallback(schedule or kp.OneShot(at=1), verbose=0)]
    return model.fit(X, Y, batch_size=16, epochs=epochs, verbose=0, callbacks=callbacks, **kwargs)


def assert_zero_where_cut(model, density=0.25):
    for layer in kp.graph.pruned_layers(model):
        assert layer.density == density
        for weight in layer.pruned_weights:
            assert not array(weight.variable)[~array(weight.mask)].any()
            assert np.isfinite(array(weight.variable)).all()


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
def test_no_optimizer_that_keras_ships_brings_a_connection_back(name, tmp_path):
    model = pruned_model(OPTIMIZERS[name]())
    fit(model, keras.callbacks.ModelCheckpoint(tmp_path / "{epoch}.keras"))
    assert_zero_where_cut(model)
    # Written before the callback of this library had its turn.
    assert_zero_where_cut(keras.models.load_model(tmp_path / "3.keras"))


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
def test_however_steps_are_run_what_is_cut_stays_cut(name, unit):
    if TORCH and name in ("compiled by XLA", "several steps at once"):
        pytest.skip("Keras runs one step at a time on PyTorch, and not through XLA")
    settings = dict(WAYS[name])
    model = pruned_model(settings.pop("optimizer", lambda: "adam")(), **settings)
    fit(model, schedule=kp.OneShot(at=1 if unit == "epoch" else 3, unit=unit))
    assert_zero_where_cut(model)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_keeps_exact_zeros(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = pruned_model()
    finally:
        keras.config.set_dtype_policy("float32")
    fit(model)
    assert_zero_where_cut(model)
    assert model.get_layer("hidden").layer.kernel.dtype == "float32"


def restored_early(**kwargs):
    """EarlyStopping that finds the first epoch the best one, as if pruning had done nothing but harm."""
    return keras.callbacks.EarlyStopping("epoch", mode="min", patience=9, restore_best_weights=True, **kwargs)


class EpochAsMetric(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["epoch"] = epoch


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("name", ["Adam", "Muon"])
def test_weights_restored_from_a_denser_time_are_told_of_in_either_order(first, name):
    model = pruned_model(OPTIMIZERS[name]())
    callbacks = [EpochAsMetric(), restored_early()]
    own = kp.PruningCallback(kp.Iterative(rounds=2), verbose=0)
    callbacks.insert(0 if first else 2, own)
    message = r"restored from a time with more connections: 110 of 176 are left now, where there were 44\."
    with pytest.warns(UserWarning, match=message) as warnings:
        model.fit(X, Y, epochs=4, verbose=0, callbacks=callbacks)
    assert sum("were restored" in str(warning.message) for warning in warnings) == 1
    assert model.get_layer("hidden").density > 0.25
    for layer in kp.graph.pruned_layers(model):
        for weight in layer.pruned_weights:
            assert not array(weight.variable)[~array(weight.mask)].any()


@pytest.mark.filterwarnings("error:Weights were restored")
def test_weights_restored_from_a_time_as_sparse_are_not_told_of():
    model = pruned_model()
    fit(model, EpochAsMetric(), restored_early(start_from_epoch=1))
    assert_zero_where_cut(model)


class Interrupted(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise InterruptedError


@pytest.mark.parametrize("first", [True, False])
def test_a_run_that_is_backed_up_and_restored_ends_with_the_same_masks(first, tmp_path):
    def run(directory, *more):
        keras.utils.set_random_seed(0)
        model = pruned_model(optimizers.SGD(0.05, momentum=0.9))
        callbacks = [keras.callbacks.BackupAndRestore(directory)]
        own = kp.PruningCallback(kp.Iterative(rounds=3, epochs_per_round=2), verbose=0)
        callbacks.insert(0 if first else 1, own)
        model.fit(X, Y, epochs=6, shuffle=False, verbose=0, callbacks=[*callbacks, *more])
        return [array(weight.mask) for layer in kp.graph.pruned_layers(model) for weight in layer.pruned_weights]

    expected = run(tmp_path / "whole")
    with pytest.raises(InterruptedError):
        run(tmp_path / "backup", Interrupted(3))
    for mask, other in zip(expected, run(tmp_path / "backup"), strict=True):
        np.testing.assert_array_equal(mask, other)


class Adversaries(keras.Model):
    """Two optimizers and a step that never calls the model as a whole, as in a GAN."""

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


@pytest.mark.skipif(JAX, reason="a step of its own is stateless on JAX, and takes the one optimizer of compile")
@pytest.mark.parametrize("unit", ["epoch", "step"])
def test_a_step_with_optimizers_of_its_own_brings_no_connection_back(unit, tmp_path):
    model = Adversaries()
    model(X)
    model = kp.prune(model, kp.TargetSparsity(0.75))
    model.compile(optimizers.Adam(0.01), optimizers.SGD(0.01, momentum=0.9))
    fit(model, schedule=kp.OneShot(at=1 if unit == "epoch" else 6, unit=unit))
    assert_zero_where_cut(model)
    assert not any(
        array(slot)[~array(model.generator.layers[0].pruned_weights[0].mask)].any()
        for slot in model.generator_optimizer.variables
        if slot.shape == (8, 8)
    )


class JaxStep(keras.Model):
    """A step of its own on JAX: the loss is doubled."""

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
def test_a_step_of_its_own_on_jax_brings_no_connection_back():
    inputs = keras.Input((8,))
    model = kp.prune(JaxStep(inputs, layers.Dense(3, name="head")(inputs)), kp.TargetSparsity(0.75))
    assert isinstance(model, JaxStep)
    model.compile("adam", "mse")
    fit(model)
    assert_zero_where_cut(model)


def test_layers_frozen_after_prune_are_not_cut():
    model = pruned_model()
    model.get_layer("hidden").trainable = False
    model.compile("adam", "mse", jit_compile=JAX, run_eagerly=TENSORFLOW)
    fit(model)
    assert model.get_layer("hidden").density == 1
    assert model.get_layer("head").density == 0.25
    model.trainable = False
    with pytest.raises(ValueError, match=r"no Prune layer in the model that is not frozen.*Received: model="):
        fit(model)
