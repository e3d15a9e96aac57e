"""Tests of `reestimate_batch_norm`."""

import keras
import numpy as np
import pytest
from helpers import array, assert_same
from keras import layers

import keras_prune as kp
from keras_prune.layers.traversal import layers_in

X = np.random.default_rng(0).normal(2, 3, size=(300, 6)).astype("float32")
STEPS = np.random.default_rng(1).normal(2, 3, size=(40, 5, 6)).astype("float32")


def norms_in(model):
    return [one for one in layers_in(model) if isinstance(one, layers.BatchNormalization)]


def statistics(model):
    return [array(value) for norm in norms_in(model) for value in (norm.moving_mean, norm.moving_variance)]


def assert_statistics(norm, inputs):
    """Asserts that the statistics are those of inputs in one batch."""
    inputs = np.asarray(array(inputs), "float64").reshape(-1, norm.moving_mean.shape[0])
    np.testing.assert_allclose(array(norm.moving_mean), inputs.mean(axis=0), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(array(norm.moving_variance), inputs.var(axis=0), rtol=1e-4, atol=1e-5)


def sequential(**norm):
    return keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(5, "relu", name="before"),
            layers.Dropout(0.5, seed=1),
            layers.BatchNormalization(**norm),
            layers.GaussianNoise(1.0, seed=2),
            layers.Dense(3),
        ]
    )


def nested():
    inputs = keras.Input((6,))
    return keras.Model(inputs, layers.Dense(2)(sequential()(inputs, training=False)))


class Network(keras.Model):
    def __init__(self):
        super().__init__()
        self.blocks = [sequential()]

    def call(self, inputs, training=False):
        return self.blocks[0](inputs, training=training)


@pytest.mark.parametrize("make", [sequential, nested, Network])
@pytest.mark.parametrize("is_pruned", [True, False])
def test_statistics_are_those_of_the_data(make, is_pruned):
    model = make()
    model(X)
    if is_pruned:
        kp.cut(kp.prune(model, 0.6))
    assert kp.reestimate_batch_norm(model, X[:256]) == 1
    dense = next(layer for layer in layers_in(model) if layer.name == "before")
    assert_statistics(norms_in(model)[0], dense(X[:256]))


def test_only_statistics_change():
    model = sequential()
    model.add(layers.BatchNormalization(trainable=False))
    kp.cut(kp.prune(model, 0.6))
    model.compile("adam", "mse", metrics=["mae"])
    model.optimizer.build(model.trainable_variables)
    attributes = [sorted(vars(layer)) for layer in layers_in(model)]
    before = [array(variable) for variable in model.variables]
    assert kp.reestimate_batch_norm(model, X) == 1
    changed = {
        variable.path
        for variable, value in zip(model.variables, before, strict=True)
        if (array(variable) != value).any()
    }
    norm = norms_in(model)[0]
    assert changed == {norm.moving_mean.path, norm.moving_variance.path}
    assert norm.momentum == 0.99
    assert [sorted(vars(layer)) for layer in layers_in(model)] == attributes
    model.evaluate(X, X[:, :3], verbose=0)  # Compiled as before.


def test_random_layers_keep_their_seeds_in_inference():
    class Sampling(layers.Layer):
        """Draws in inference, too."""

        def __init__(self):
            super().__init__()
            self.seed_generator = keras.random.SeedGenerator(3)

        def call(self, inputs):
            return inputs + keras.random.normal(inputs.shape[1:], seed=self.seed_generator)

    model = keras.Sequential([keras.Input((6,)), Sampling(), layers.BatchNormalization()])
    before = array(model.layers[0].seed_generator.state)
    kp.reestimate_batch_norm(model, X)
    assert_same(model.layers[0].seed_generator.state, before)


def test_batches_count_by_their_samples():
    model = keras.Sequential([keras.Input((6,)), layers.BatchNormalization()])
    batches = [(X[:250], X[:250]), (X[250:299], X[250:299]), (X[299:], X[299:])]
    kp.reestimate_batch_norm(model, iter(batches))
    mean, variance = statistics(model)
    np.testing.assert_allclose(mean, X.mean(axis=0), rtol=1e-4)
    shares = [len(x) / 300 * x.var(axis=0) for x, _ in batches]
    np.testing.assert_allclose(variance, sum(shares), rtol=1e-4)
    kp.reestimate_batch_norm(model, iter(batches), steps=1)
    assert_statistics(norms_in(model)[0], X[:250])


def test_masked_time_steps_do_not_count():
    padded = STEPS.copy()
    padded[:20, 2:] = 0
    model = keras.Sequential([keras.Input((5, 6)), layers.Masking(), layers.BatchNormalization()])
    kp.reestimate_batch_norm(model, iter([padded[:10], padded[10:], np.zeros_like(padded)]))
    np.testing.assert_allclose(statistics(model)[0], padded[padded.any(axis=-1)].mean(axis=0), rtol=1e-4)


def test_every_call_of_a_layer_counts():
    norm = layers.BatchNormalization()
    model = keras.Sequential([keras.Input((5, 6)), layers.TimeDistributed(norm)])
    assert kp.reestimate_batch_norm(model, STEPS) == 1
    np.testing.assert_allclose(array(norm.moving_mean), STEPS.mean(axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(array(norm.moving_variance), STEPS.var(axis=0).mean(axis=0), rtol=1e-4)


def test_statistics_do_not_depend_on_the_old_ones():
    model, renormalizing = sequential(), sequential(renorm=True)
    renormalizing.set_weights(
        [*model.get_weights()[:6], *(np.full(5, np.nan) for _ in range(3)), *model.get_weights()[6:]]
    )
    norms_in(model)[0].moving_variance.assign(np.full(5, np.nan))
    for one in (model, renormalizing):
        kp.reestimate_batch_norm(one, X[:256])
    assert_same(statistics(renormalizing), statistics(model))
    norm = norms_in(renormalizing)[0]
    assert_same(norm.renorm_mean, norm.moving_mean)
    np.testing.assert_allclose(array(norm.renorm_stddev) ** 2 - norm.epsilon, array(norm.moving_variance), rtol=1e-4)
    assert norm.renorm


def test_half_precision_is_estimated_in_single(mixed_float16):
    model = sequential()
    kp.reestimate_batch_norm(model, X)
    inputs = np.asarray(array(model.layers[0](X)), "float32")
    np.testing.assert_allclose(statistics(model)[0], inputs.mean(axis=0), rtol=1e-3, atol=1e-3)


def test_model_is_restored_if_the_data_fails():
    def broken():
        yield X
        raise OSError("the disk is gone")

    model = sequential()
    before = statistics(model)
    with pytest.raises(OSError, match="the disk is gone"):
        kp.reestimate_batch_norm(model, broken())
    with pytest.raises(ValueError, match=r"hold NaN or infinity.*unchanged. Received: layer=.*, mean="):
        kp.reestimate_batch_norm(model, X * np.inf)
    assert_same(statistics(model), before)
    assert norms_in(model)[0].momentum == 0.99
    assert "call" not in vars(norms_in(model)[0])


def test_models_and_data_without_statistics_are_rejected():
    plain = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"no trainable BatchNormalization.*Received: model="):
        kp.reestimate_batch_norm(plain, X)
    model = sequential()
    with pytest.raises(ValueError, match=r"at least one input.*Received: x="):
        kp.reestimate_batch_norm(model, X[:0])
    model.trainable = False
    with pytest.raises(ValueError, match=r"no trainable BatchNormalization.*Received: model="):
        kp.reestimate_batch_norm(model, X)
