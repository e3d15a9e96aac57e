"""A custom training loop needs one call per epoch or step, on each backend."""

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
def test_one_call_before_every_epoch_prunes_as_the_callback(make):
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


def test_one_call_before_every_step_keeps_zeros():
    schedule = kp.Polynomial(start=0, end=6, frequency=2, unit="step")
    model, optimizer = pruned_model(), optimizers.Adam(0.01)
    optimizer.build(model.trainable_variables)
    now = 0
    for _ in range(3):
        for x, y in batches():
            kp.cut(model, schedule(now), optimizer)
            step(model, optimizer, x, y)
            now += 1
            # Of Adam's momentum nothing is left that could move a stored weight.
            assert_zeros(model)
    assert kept(model) == [32, 12]


def test_a_strength_of_none_only_applies_masks():
    model = pruned_model()
    kp.cut(model, 0.5)
    before = kept(model)
    refill(model)
    assert kp.cut(model, None) == []
    assert kept(model) == before
    assert_zeros(model)


def test_a_single_layer_is_cut():
    model = pruned_model()
    kp.cut(model.get_layer("hidden"))
    assert kept(model) == [32, 48]
    assert model.layers[1].pruning.current_rate == 0.4  # Which dropout follows, the model alone knows.


def test_the_optimizer_of_a_compiled_model_is_found():
    model = pruned_model()
    model.compile("adam", "mse")
    model.fit(X, Y, verbose=0)
    kp.cut(model)
    mask = array(kp.layers.pruned_weights(model)[0].mask)
    slots = [slot for slot in model.optimizer.variables if tuple(slot.shape) == mask.shape]
    assert slots
    assert not any(array(slot)[~mask].any() for slot in slots)


def test_a_model_with_nothing_to_prune_is_refused():
    with pytest.raises(ValueError, match=r"no trainable weights.*keras_prune.prune\(model.*Received: model="):
        kp.cut(keras.Sequential([keras.Input((3,)), layers.Dense(2)]))


def test_a_weight_that_is_not_finite_stops_the_whole_cut():
    model = pruned_model()
    kernel = model.get_layer("head").kernel
    kernel.assign(ops.full(kernel.shape, np.nan))
    with pytest.raises(ValueError, match=r"NaN or infinity.*Received: layer=head"):
        kp.cut(model)
    assert density(model) == 1


def test_an_optimizer_that_cannot_be_rebuilt_stops_the_cut():
    class Own(optimizers.SGD):
        def __init__(self, rate):
            super().__init__(rate, momentum=0.9)

    model, optimizer = pruned_model(), Own(0.1)
    optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"made from its get_config\(\).*of class Own"):
        kp.cut(model, 1.0, optimizer)
    assert density(model) == 1
