"""Properties of any small model, criterion, schedule and optimizer."""

import tempfile

import keras
import numpy as np
from helpers import JAX, TENSORFLOW, TORCH, array, assert_same, assert_zeros, criteria, masks
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from keras import layers, ops

import keras_prune as kp

SHAPE = (6, 4)
some = settings(max_examples=5, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))


HIDDEN = {
    "Dense": lambda size: layers.Dense(size, "relu", kernel_regularizer="l2"),
    "Conv1D": lambda size: layers.Conv1D(size, 3, padding="same", activation="relu"),
    "SeparableConv1D": lambda size: layers.SeparableConv1D(size, 3, padding="same"),
    "LSTM": lambda size: layers.LSTM(size, return_sequences=True, unroll=True),
    "BatchNormalization": lambda size: layers.BatchNormalization(),
    "Dropout": lambda size: layers.Dropout(0.3),
    "nested": lambda size: keras.Sequential([layers.Dense(size, "relu"), layers.Dropout(0.2)]),
}
sparsities = st.floats(0.05, 0.95)
rules = st.one_of(
    st.builds(kp.StdThreshold, st.floats(0.1, 2.0)),
    st.builds(kp.TargetSparsity, sparsities),
    st.builds(kp.RandomSparsity, sparsities, seed=st.integers(0, 9)),
    st.builds(lambda sparsity: kp.TargetSparsity(sparsity, pattern=kp.Blocks((4, 1))), sparsities),
)
schedules = st.one_of(
    st.builds(kp.OneShot, st.integers(0, 1)),
    st.builds(kp.Iterative, st.integers(1, 3)),
    st.builds(kp.Polynomial, st.just(0), st.integers(2, 5), st.just(1), st.just(3.0), st.just("step")),
)
optimizers = st.sampled_from(["sgd", "adam", "rmsprop", "lion", "muon", "ftrl", "adagrad"])


@st.composite
def models(draw):
    keras.utils.set_random_seed(draw(st.integers(0, 99)))
    kinds = draw(st.lists(st.sampled_from(sorted(HIDDEN)), min_size=1, max_size=3))
    hidden = [HIDDEN[kind](draw(st.sampled_from([3, 5]))) for kind in kinds]
    return keras.Sequential([keras.Input(SHAPE), *hidden, layers.Flatten(), layers.Dense(2, name="head")])


def data(count=8):
    random = np.random.default_rng(count)
    return random.normal(size=(count, *SHAPE)).astype("float32"), random.normal(size=(count, 2)).astype("float32")


class Watch(keras.callbacks.Callback):
    """Asserts after every step that masks only shrink, and after every epoch that pruned weights are exactly zero."""

    def on_train_begin(self, logs=None):
        self.masks = masks(self.model)
        assert all(mask.all() for mask in self.masks)

    def on_train_batch_end(self, batch, logs=None):
        if JAX:
            self.model.jax_state_sync()
        present = masks(self.model)
        assert all((new <= old).all() for new, old in zip(present, self.masks, strict=True))
        assert all(mask.any() for mask in present)
        self.masks = present

    def on_epoch_end(self, epoch, logs=None):
        assert_zeros(self.model)


@some
@given(model=models(), criterion=rules, schedule=schedules, optimizer=optimizers)
def test_masks_only_shrink_and_pruned_weights_stay_zero(model, criterion, schedule, optimizer):
    model = kp.prune(model, criterion)
    model.compile(optimizer, "mse", run_eagerly=TENSORFLOW, jit_compile=JAX)
    callbacks = [kp.PruningCallback(schedule, verbose=0), Watch()]
    model.fit(*data(), batch_size=4, epochs=3, verbose=0, callbacks=callbacks)
    if type(criterion) is kp.TargetSparsity and criterion.pattern == kp.Pattern():
        for mask in masks(model):
            assert mask.sum() == max(1, mask.size - np.floor(mask.size * criterion.sparsity + 0.5))


def gradients(model, x, y):
    """Returns the gradient of the loss with respect to every trainable variable."""
    if TENSORFLOW:
        import tensorflow as tf

        with tf.GradientTape() as tape:
            loss = ops.mean((model(x, training=False) - y) ** 2) + sum(model.losses)
        return [array(one) for one in tape.gradient(loss, model.trainable_weights)]
    if TORCH:
        model.zero_grad()
        (ops.mean((model(x, training=False) - ops.convert_to_tensor(y)) ** 2) + sum(model.losses)).backward()
        return [array(variable.value.grad) for variable in model.trainable_weights]
    import jax

    def loss_of(trainable):
        others = [variable.value for variable in model.non_trainable_variables]
        outputs, _, losses = model.stateless_call(trainable, others, x, training=False, return_losses=True)
        return ops.mean((outputs - y) ** 2) + sum(losses)

    slopes = jax.jit(jax.grad(loss_of))([variable.value for variable in model.trainable_variables])
    return [array(one) for one in slopes]


@some
@given(model=models())
def test_masks_of_ones_keep_outputs_and_gradients(model):
    x, y = data()
    outputs, slopes = model(x, training=False), gradients(model, x, y)
    kp.prune(model)
    assert_same(model(x, training=False), outputs)
    for new, old in zip(gradients(model, x, y), slopes, strict=True):
        np.testing.assert_allclose(new, old, rtol=1e-5, atol=1e-7)


@some
@given(model=models(), criterion=rules, strength=st.floats(0.1, 1.0))
def test_saving_and_stripping_keep_outputs_and_zeros(model, criterion, strength):
    x, _ = data()
    model = kp.prune(model, criterion)
    kp.cut(model, strength)
    expected = model.predict(x, verbose=0)
    with tempfile.TemporaryDirectory() as directory:
        model.save(f"{directory}/model.keras")
        loaded = keras.models.load_model(f"{directory}/model.keras")
        kp.save_sparse(loaded, f"{directory}/model.kprune")
        sparse = kp.load_sparse(f"{directory}/model.kprune")
    assert_same(masks(loaded), masks(model))
    assert criteria(loaded) == criteria(model)
    kept = kp.report(loaded).kept
    for one in (loaded, kp.strip(loaded), sparse):
        np.testing.assert_array_equal(one.predict(x, verbose=0), expected)
    assert kp.report(loaded).kept <= kept
