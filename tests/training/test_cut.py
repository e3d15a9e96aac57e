"""Custom training loops prune with one call an epoch or step, on each backend."""

import keras
import numpy as np
import pytest
from helpers import array, assert_zeros, density, kept, refill
from keras import layers, ops, optimizers

import keras_prune as kp

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(32, 3)).astype("float32")
BATCHES = 4


def pruned_model():
    model = keras.Sequential(
        [keras.Input((8,)), layers.Dense(16, "relu", name="hidden"), layers.Dropout(0.4), layers.Dense(3, name="head")]
    )
    return kp.prune(model, kp.TargetSparsity(0.75))


def loss_of(outputs, targets):
    return ops.mean((outputs - ops.convert_to_tensor(targets)) ** 2)


def tensorflow_step(model, optimizer, x, y):
    import tensorflow as tf

    with tf.GradientTape() as tape:
        loss = loss_of(model(x, training=True), y)
    optimizer.apply(tape.gradient(loss, model.trainable_weights), model.trainable_weights)


def torch_step(model, optimizer, x, y):
    import torch

    model.zero_grad()
    loss_of(model(x, training=True), y).backward()
    with torch.no_grad():
        optimizer.apply([weight.value.grad for weight in model.trainable_weights], model.trainable_weights)


def jax_step(model, optimizer, x, y):
    import jax

    def compute(trainable, non_trainable):
        outputs, non_trainable = model.stateless_call(trainable, non_trainable, x, training=True)
        return loss_of(outputs, y), non_trainable

    state = [
        [variable.value for variable in variables]
        for variables in (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    ]
    (_, non_trainable), gradients = jax.value_and_grad(compute, has_aux=True)(*state[:2])
    trainable, optimizing = optimizer.stateless_apply(state[2], gradients, state[0])
    kinds = (model.trainable_variables, model.non_trainable_variables, optimizer.variables)
    for variables, values in zip(kinds, (trainable, non_trainable, optimizing), strict=True):
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


def step(*arguments):
    {"tensorflow": tensorflow_step, "torch": torch_step, "jax": jax_step}[keras.backend.backend()](*arguments)


def batches():
    return zip(np.split(X, BATCHES), np.split(Y, BATCHES), strict=True)


@pytest.mark.parametrize("make", [lambda: optimizers.Adam(0.01), lambda: optimizers.Muon(0.01)])
def test_cut_before_every_epoch_prunes_like_the_callback(make):
    schedule = kp.Iterative(rounds=2, epochs_per_round=2)
    model, optimizer = pruned_model(), make()
    optimizer.build(model.trainable_variables)
    densities, cuts = [], []
    for epoch in range(5):
        cuts.append(len(kp.cut(model, schedule(epoch), optimizer)))
        densities.append(density(model.get_layer("hidden")))
        assert_zeros(model)
        for x, y in batches():
            step(model, optimizer, x, y)
    assert cuts == [2, 0, 2, 0, 0]
    assert densities == [0.625, 0.625, 0.25, 0.25, 0.25]
    assert model.layers[1].pruning.current_rate == pytest.approx(0.4 * 0.25**0.5)


def test_cut_before_every_step_keeps_zeros():
    schedule = kp.Polynomial(start=0, end=6, frequency=2, unit="step")
    model, optimizer = pruned_model(), optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    now = 0
    for _ in range(3):
        for x, y in batches():
            kp.cut(model, schedule(now), optimizer)
            step(model, optimizer, x, y)
            now += 1
            # Adam has no momentum left that could move a pruned weight.
            assert_zeros(model)
    assert kept(model) == [32, 12]


def test_cut_without_strength_only_applies_masks():
    model = pruned_model()
    kp.cut(model, 0.5)
    before = kept(model)
    refill(model)
    assert kp.cut(model, None) == []
    assert kept(model) == before
    assert_zeros(model)


def test_cut_takes_a_single_layer():
    model = pruned_model()
    kp.cut(model.get_layer("hidden"))
    assert kept(model) == [32, 48]
    assert model.layers[1].pruning.current_rate == 0.4  # Only the model knows which dropout follows.


def test_cut_finds_the_optimizer_of_a_compiled_model():
    model = pruned_model()
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    kp.cut(model)
    mask = array(kp.layers.pruned_weights(model)[0].mask)
    slots = [slot for slot in model.optimizer.variables if tuple(slot.shape) == mask.shape]
    assert slots
    assert not any(array(slot)[~mask].any() for slot in slots)
