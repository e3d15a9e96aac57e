"""Properties of any small model, criterion, schedule and optimizer."""

import pathlib
import pickle
import tempfile
import warnings

import keras
import numpy as np
import pytest
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


register = keras.saving.register_keras_serializable(package="test_model_properties")


@register
class Network(keras.Model):
    """Creates its weights at the first call."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.head = layers.Dense(5, "relu"), layers.Dense(2)

    def call(self, inputs):
        return self.head(ops.mean(self.hidden(inputs), axis=1))


@register
class BuiltNetwork(Network):
    """Creates its weights in `build`."""

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.head.build((input_shape[0], 5))


def functional(call, inputs=SHAPE, **kwargs):
    inputs = keras.Input(inputs, **kwargs)
    return keras.Model(inputs, layers.Dense(2)(layers.Flatten()(call(inputs))))


def tied():
    table, inputs = layers.ReversibleEmbedding(7, 5), keras.Input((6,), dtype="int32")
    return keras.Model(inputs, table(layers.Dense(5)(table(inputs)), reverse=True))


GRAPHS = {
    "Sequential": lambda: keras.Sequential([keras.Input(SHAPE), layers.Dense(5), layers.Flatten(), layers.Dense(2)]),
    "Functional": lambda: functional(lambda x: layers.Add()([layers.Dense(4)(x), x])),
    "nested": lambda: functional(keras.Sequential([keras.Input(SHAPE), layers.Dense(5), layers.Dropout(0.5)])),
    "wrappers": lambda: functional(kp.Prune(layers.Dense(5), kp.TargetSparsity(0.4))),
    "LSTM": lambda: functional(layers.LSTM(3, unroll=True)),
    "Bidirectional": lambda: functional(layers.Bidirectional(layers.SimpleRNN(3, unroll=True))),
    "attention": lambda: functional(lambda x: layers.MultiHeadAttention(2, 2)(x, x)),
    "tied": tied,
}
KINDS = {**GRAPHS, "subclassed": Network, "subclassed with build": BuiltNetwork}


def made(kind):
    """Returns a pruned model of a kind, with data to train it on."""
    model, x = KINDS[kind](), data()[0]
    if kind == "tied":
        x = np.random.default_rng(0).integers(7, size=(8, 6))
    y = np.zeros_like(array(model(x)))
    return ready(kp.prune(model, {".*": 0.6})), x, y


def ready(model):
    model.compile("adam", "mse", run_eagerly=TENSORFLOW, jit_compile=False)
    return model


def by_callback(model, x, y, *callbacks, schedule=None):
    callback = kp.PruningCallback(schedule or kp.OneShot(1), verbose=0)
    model.fit(x, y, epochs=3, verbose=0, callbacks=[callback, *callbacks])


def by_cuts(model, x, y):
    for strength in (0.5, 1.0):
        kp.cut(model, strength)
        model.train_on_batch(x, y)


def without_a_callback(model, x, y):
    kp.cut(model)
    model.fit(x, y, verbose=0)


def restored(model, x, y):
    stopping = keras.callbacks.EarlyStopping("loss", patience=0, mode="max", restore_best_weights=True)
    by_callback(model, x, y, stopping, schedule=kp.Iterative(3))


def through_keras(model, kind, folder):
    model.save(folder / "model.keras")
    return keras.models.load_model(folder / "model.keras")


def through_weights(model, kind, folder):
    model.save_weights(folder / "model.weights.h5")
    other, _, _ = made(kind)
    other.load_weights(folder / "model.weights.h5")
    return other


def plain(kind):
    """Returns a built model of a kind that is not pruned, except in its wrappers."""
    model = KINDS[kind]()
    model(made(kind)[1])
    return model


def through_plain_weights(model, kind, folder):
    model.save_weights(folder / "model.weights.h5")
    other = plain(kind)
    other.load_weights(folder / "model.weights.h5")
    return other


def through_h5(model, kind, folder):
    if kind not in GRAPHS or kind == "wrappers":
        return model  # Keras refuses subclassed models, and wrappers get new masks when they are loaded.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.save(folder / "model.h5")
    return keras.models.load_model(folder / "model.h5", compile=False)


def through_shards(model, kind, folder):
    model.save_weights(folder / "model.weights.json", max_shard_size=1)
    other, _, _ = made(kind)
    other.load_weights(folder / "model.weights.json")
    return other


def through_pickle(model, kind, folder):
    return pickle.loads(pickle.dumps(model))


def through_sparse_file(model, kind, folder):
    kp.save_sparse(model, folder / "model.kprune")
    return kp.load_sparse(folder / "model.kprune")


def through_arrays(model, kind, folder):
    np.savez(folder / "model.npz", *model.get_weights())
    other = kp.strip(plain(kind)) if kind == "wrappers" else made(kind)[0]  # Wrappers do not see what is set.
    with np.load(folder / "model.npz") as file:
        other.set_weights([file[name] for name in file.files])
    return other


def through_checkpoint(model, kind, folder):
    import tensorflow as tf

    path = tf.train.Checkpoint(model=model).save(str(folder / "checkpoint"))
    other, _, _ = made(kind)
    tf.train.Checkpoint(model=other).restore(path).expect_partial()
    return other


TRAININGS = [by_callback, by_cuts, without_a_callback, restored]
SAVINGS = [through_keras, through_weights, through_plain_weights, through_h5, through_shards, through_pickle]
SAVINGS += [through_sparse_file, through_arrays, *([through_checkpoint] if TENSORFLOW else [])]


def assert_sparsity_is_kept(kind, train, save):
    """Asserts that no step from training to fine-tuning restores connections without a warning."""
    model, x, y = made(kind)

    def fine_tuned(model):
        by_callback(ready(model), x, y)
        return model

    with tempfile.TemporaryDirectory() as folder:
        train(model, x, y)
        steps = [lambda one: save(one, kind, pathlib.Path(folder)), kp.strip, kp.prune, fine_tuned, kp.strip]
        for step in steps:
            before = kp.report(model).kept
            with warnings.catch_warnings(record=True) as told:
                warnings.simplefilter("always")
                model = step(model)
            said = any("less sparse" in str(one.message) for one in told)
            assert kp.report(model).kept <= before or said, (train, save, step)


chosen = given(kind=st.sampled_from(sorted(KINDS)), train=st.sampled_from(TRAININGS), save=st.sampled_from(SAVINGS))


@settings(some, max_examples=4)
@chosen
def test_sparsity_outlasts_training_files_and_fine_tuning(kind, train, save):
    assert_sparsity_is_kept(kind, train, save)


@pytest.mark.slow
@pytest.mark.parametrize("kind", sorted(KINDS))
def test_sparsity_outlasts_every_way_of_training_and_saving(kind):
    for train in TRAININGS:
        for save in SAVINGS:
            assert_sparsity_is_kept(kind, train, save)
