"""The loop leaves the sparsest model within the budget, and survives being killed."""

import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import textwrap

import keras
import numpy as np
import pytest
from helpers import array, arrays, assert_same, masks
from keras import layers, ops

import keras_prune as kp
from keras_prune.layers import pruned_weights
from keras_prune.training import iterative_prune as iterative

pytestmark = pytest.mark.filterwarnings("error:Skipping variable loading")

X = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
Y = np.argmax(X[:, :3], axis=1)
FIT = {"x": X, "y": Y, "batch_size": 16, "validation_data": (X, Y)}
TOTAL = 8 * 16 + 16 * 3


def compiled(model, learning_rate=0.1, optimizer=keras.optimizers.SGD):
    model.compile(
        optimizer(learning_rate),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
        run_eagerly=keras.backend.backend() != "jax",  # Quicker than tracing so small a model.
    )
    return model


def small_model(**kwargs):
    hidden = layers.Dense(16, "relu", name="hidden")
    return compiled(keras.Sequential([keras.Input((8,)), hidden, layers.Dense(3, name="head")]), **kwargs)


def kept(model):
    return {weight.layer.name: weight.kept for weight in pruned_weights(model)}


def twins(number, **kwargs):
    """Returns models with the same weights."""
    models = [small_model(**kwargs) for _ in range(number)]
    for model in models:
        model.set_weights(models[0].get_weights())
    return models


class Watch(keras.callbacks.Callback):
    """Notes, for every call of `fit`, what `look` says of the model when the first epoch begins and when it ends."""

    def __init__(self, look=lambda model: None):
        super().__init__()
        self.look = look
        self.fits = []

    def on_epoch_begin(self, epoch, logs=None):
        self.before = self.look(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.fits.append((self.before, self.look(self.model)))


class KilledError(Exception):
    pass


class KillIn(keras.callbacks.Callback):
    """Ends the run in the middle of its `number`th call of `fit`."""

    def __init__(self, number):
        super().__init__()
        self.left = number

    def on_train_batch_end(self, batch, logs=None):
        if batch == 1:
            self.left -= 1
        if self.left == 0:
            raise KilledError


@pytest.fixture
def measured(monkeypatch):
    """Makes the validation data say what the test wants."""

    def give(*accuracies):
        scripted = iter(accuracies)
        monkeypatch.setattr(iterative, "evaluate", lambda *args, **kwargs: next(scripted))

    return give


def test_every_round_reaches_the_compression_that_was_asked_for():
    model = small_model()
    rounds = kp.iterative_prune(model, compressions=[2, 3.3, 8], max_drop=1.0, **FIT)
    assert [one.compression for one in rounds] == [1, *(TOTAL / round(TOTAL / c) for c in (2, 3.3, 8))]
    assert all(one.within_budget for one in rounds)
    assert sum(kept(model).values()) == round(TOTAL / 8)
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] == pytest.approx(rounds[-1].value)


def test_a_plain_sparse_model_starts_at_its_compression():
    model = small_model()
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    rounds = kp.iterative_prune(kp.strip(model), compressions=[4], max_drop=1.0, **FIT)
    assert [one.compression for one in rounds] == [2, 4]
    assert rounds[1].quality > 0.1


def test_the_model_is_pruned_in_place_and_stays_compiled():
    model = small_model(optimizer=keras.optimizers.Adam)
    inner = list(model.layers)
    kp.iterative_prune(model, compressions=[4], max_drop=1.0, alternate=True, **FIT)
    assert all(one is other for one, other in zip(model.layers, inner, strict=True))
    assert all(layer.trainable for layer in model.layers)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert not int(array(model.optimizer.iterations))
    assert float(array(model.optimizer.learning_rate)) == pytest.approx(0.1)


def test_the_model_ends_as_the_sparsest_within_the_budget(measured):
    measured(0.9, 0.85, 0.91, 0.79, 0.79)
    model = small_model()
    watch = Watch(lambda model: (arrays(model.get_weights()), masks(model)))
    rounds = kp.iterative_prune(model, compressions=[2, 4, 8, 16], max_drop=0.1, callbacks=[watch], **FIT)
    assert [one.within_budget for one in rounds] == [True, True, True, False]
    assert [one.value for one in rounds] == [0.9, 0.85, 0.91, 0.79]
    assert sum(kept(model).values()) == TOTAL / 4
    assert_same((model.get_weights(), masks(model)), watch.fits[1][1])


def test_a_round_that_breaks_the_budget_is_retrained_once_more_and_may_win_it_back(measured):
    measured(0.9, 0.5, 0.9, 0.5, 0.8, 1.0)
    watch = Watch(lambda model: sum(kept(model).values()))
    model = small_model()
    rounds = kp.iterative_prune(model, compressions=[2, 4, 8], callbacks=[watch], **FIT)
    assert [(one.value, one.within_budget) for one in rounds] == [(0.9, True), (0.9, True), (0.8, False)]
    # Two fits in each of the two rounds, one cut in each, and no third round.
    assert watch.fits == [(TOTAL / 2,) * 2] * 2 + [(TOTAL / 4,) * 2] * 2
    assert sum(kept(model).values()) == TOTAL / 2


def test_a_value_that_is_no_number_breaks_the_budget(measured):
    measured(0.9, math.nan, math.nan)
    model = small_model()
    rounds = kp.iterative_prune(model, compressions=[2, 4], max_drop=1.0, **FIT)
    assert [one.within_budget for one in rounds] == [True, False]
    assert sum(kept(model).values()) == TOTAL


def test_qualities_multiply_those_of_the_layers_and_leave_them():
    model = kp.prune(small_model(), {"hidden": kp.StdThreshold(1.0), "head": kp.StdThreshold(0.5)})
    expected = {}
    for name, quality in (("hidden", 0.8), ("head", 0.4)):
        kernel = array(model.get_layer(name).kernel)
        expected[name] = np.sum(np.abs(kernel) >= quality * np.std(kernel))
    watch = Watch(kept)
    rounds = kp.iterative_prune(model, qualities=[0.8, 1.1], max_drop=1.0, callbacks=[watch], **FIT)
    assert [one.quality for one in rounds] == [0.0, 0.8, 1.1]
    assert watch.fits[0][0] == expected
    assert rounds[2].compression > rounds[1].compression > 1
    assert [weight.criterion.quality for weight in pruned_weights(model)] == [1.0, 0.5]


def test_layers_that_were_left_alone_stay_so():
    model = kp.prune(small_model(), {"hidden": kp.StdThreshold()})
    rounds = kp.iterative_prune(model, compressions=[4, 8], max_drop=1.0, **FIT)
    assert kept(model) == {"hidden": 16}
    assert rounds[-1].compression == 8
    assert np.count_nonzero(array(model.get_layer("head").kernel)) == 48


@pytest.mark.parametrize("fraction", [0.1, 1])
def test_every_retraining_starts_at_the_same_fraction_of_the_learning_rate(fraction):
    class Lower(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 1e-3

    watch = Watch(lambda model: float(ops.convert_to_numpy(model.optimizer.learning_rate)))
    arguments = {"learning_rate_fraction": fraction, "callbacks": [watch, Lower()], "max_drop": 1.0}
    kp.iterative_prune(small_model(learning_rate=0.2), compressions=[2, 4], **arguments, **FIT)
    assert [before for before, _ in watch.fits] == [pytest.approx(0.2 * fraction)] * 2


def test_a_learning_rate_schedule_is_refused_unless_it_is_to_stay():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = small_model(learning_rate=schedule)
    with pytest.raises(ValueError, match=r"schedule cannot be scaled.*learning_rate_fraction=0.1"):
        kp.iterative_prune(model, compressions=[2], **FIT)
    kp.iterative_prune(model, compressions=[2], learning_rate_fraction=1, max_drop=1.0, **FIT)
    assert isinstance(model.optimizer._learning_rate, keras.optimizers.schedules.ExponentialDecay)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="schedule cannot be scaled"):
        kp.iterative_prune(compiled(small_model(), optimizer=lambda rate: scaled), compressions=[2], **FIT)


IMAGES = {"x": X[..., None], "y": Y, "batch_size": 16, "validation_data": (X[..., None], Y)}


def convolutional_model():
    inner = [keras.Input((8, 1)), layers.Conv1D(4, 3, name="conv"), layers.Conv1D(3, 3, name="unpruned_conv")]
    return compiled(keras.Sequential([*inner, layers.Flatten(), layers.Dense(3, name="head")]))


def kernels(model):
    return [np.copy(array(model.get_layer(name).kernel)) for name in ("conv", "unpruned_conv", "head")]


def test_alternate_retraining_holds_convolutions_fixed_then_the_dense_layers():
    watch = Watch(kernels)
    model = kp.prune(convolutional_model(), {"conv|head": kp.StdThreshold()})
    kp.iterative_prune(model, compressions=[2], alternate=True, max_drop=1.0, callbacks=[watch], **IMAGES)
    moved = [[not np.array_equal(a, b) for a, b in zip(*both, strict=True)] for both in watch.fits]
    assert moved == [[False, False, True], [True, True, False]]
    # Each half begins with the cut of the layers that it retrains.
    zeros = [[np.count_nonzero(kernel == 0) for kernel in before] for before, _ in watch.fits]
    assert zeros[0][0] == 0 < zeros[0][2]
    assert zeros[1][0] > 0 < zeros[1][2]
    assert 12 + 36 - sum(zeros[1]) == sum(kept(model).values())


class UnregisteredLoss(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.mean((ops.one_hot(ops.cast(ops.reshape(y_true, (-1,)), "int32"), 3) - y_pred) ** 2, axis=-1)


def test_alternate_retraining_takes_a_loss_that_is_not_registered():
    model = convolutional_model()
    model.compile("sgd", UnregisteredLoss(), metrics=["accuracy"])
    kp.iterative_prune(model, compressions=[2], alternate=True, max_drop=1.0, **IMAGES)
    assert isinstance(model.loss, UnregisteredLoss)
    assert kp.report(model).compression >= 2


def test_alternate_retraining_takes_a_half_in_which_nothing_is_pruned():
    model = kp.prune(convolutional_model(), {"head": kp.StdThreshold()})
    kp.iterative_prune(model, compressions=[2], alternate=True, max_drop=1.0, **IMAGES)
    assert [weight.density <= 0.5 for weight in pruned_weights(model)] == [True]


def test_the_fraction_applies_in_both_halves_of_alternate_retraining():
    watch = Watch(lambda model: float(ops.convert_to_numpy(model.optimizer.learning_rate)))
    arguments = {"learning_rate_fraction": 0.5, "alternate": True, "callbacks": [watch], "max_drop": 1.0}
    kp.iterative_prune(convolutional_model(), compressions=[2], **arguments, **IMAGES)
    assert [before for before, _ in watch.fits] == [pytest.approx(0.05)] * 2


def test_what_comes_back_from_alternate_retraining_trains_on_as_a_whole():
    model = convolutional_model()
    kp.iterative_prune(model, compressions=[2], alternate=True, max_drop=1.0, **IMAGES)
    assert all(layer.trainable for layer in model.layers)
    before = kernels(model)
    model.fit(X[..., None], Y, verbose=0)
    assert not any(np.array_equal(a, b) for a, b in zip(before, kernels(model), strict=True))
    assert all(np.array_equal(a == 0, b == 0) for a, b in zip(before, kernels(model), strict=True))


def test_a_half_of_alternate_retraining_without_layers_is_left_out():
    watch = Watch()
    kp.iterative_prune(small_model(), compressions=[2], alternate=True, max_drop=1.0, callbacks=[watch], **FIT)
    assert len(watch.fits) == 1


def test_alternate_retraining_leaves_frozen_what_is_frozen_inside_a_layer():
    @keras.saving.register_keras_serializable(package="test_iterative")
    class Two(layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.fixed, self.free = layers.Dense(6, trainable=False), layers.Dense(6)

        def build(self, shape):
            self.fixed.build(shape)
            self.free.build((*shape[:-1], 6))

        def call(self, x):
            return self.free(self.fixed(x))

    model = compiled(keras.Sequential([keras.Input((8,)), Two(name="two"), layers.Dense(3)]))
    inner = model.get_layer("two")
    before = np.copy(array(inner.fixed.kernel))
    kp.iterative_prune(model, compressions=[1.5], max_drop=1.0, alternate=True, **FIT)
    assert not inner.fixed.trainable
    assert inner.free.trainable
    np.testing.assert_array_equal(array(inner.fixed.kernel), before)
    assert len(pruned_weights(model)) == 2


def test_retraining_has_the_penalty_that_regularize_gave():
    losses = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(len(self.model.losses))

    model = small_model()
    kp.regularize(model, l2=1e-3)
    kp.iterative_prune(model, compressions=[2], max_drop=1.0, callbacks=Seen(), epochs=np.int64(1), **FIT)
    assert losses == [2]


def model_with_noise(start=None):
    """A model with seeds that are not saved with it: of a dropout that is tied to no layer, and of noise."""
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dropout(0.2),
            layers.Dense(16, "relu", name="hidden"),
            layers.Dropout(0.5),
            layers.GaussianNoise(0.1),
            layers.Dense(3, name="head"),
        ]
    )
    if start is not None:
        model.set_weights(start)
    return compiled(model, optimizer=keras.optimizers.Adam, learning_rate=0.05)


RUN = {"compressions": [2, 4], "max_drop": 1.0, "seed": 7, **FIT}


def without_seconds(rounds):
    return [one._replace(seconds=0) for one in rounds]


@pytest.mark.parametrize("number", [1, 2])
def test_a_killed_run_ends_as_one_that_was_never_killed(tmp_path, capsys, number):
    whole = model_with_noise()
    start = whole.get_weights()
    whole_rounds = kp.iterative_prune(whole, **RUN)
    whole_lines = capsys.readouterr().out
    with pytest.raises(KilledError):
        kp.iterative_prune(model_with_noise(start), directory=tmp_path, callbacks=[KillIn(number)], **RUN)
    assert len(json.loads((tmp_path / "rounds.json").read_text())["rounds"]) == number
    # As in a new process: the same weights, but other seeds.
    keras.utils.set_random_seed(1000 + number)
    capsys.readouterr()
    watch = Watch()
    model = model_with_noise(start)
    rounds = kp.iterative_prune(model, directory=tmp_path, callbacks=[watch], **RUN)
    assert len(watch.fits) == 3 - number
    assert without_seconds(rounds) == without_seconds(whole_rounds)
    assert capsys.readouterr().out == whole_lines
    assert_same((model.get_weights(), masks(model)), (whole.get_weights(), masks(whole)))


KILLED_RUN = """
    import json, os, signal, sys
    import keras, numpy as np
    import keras_prune as kp

    class Kill(keras.callbacks.Callback):
        fits = 0
        def on_train_begin(self, logs=None):
            self.fits += 1
        def on_train_batch_end(self, batch, logs=None):
            if self.fits == 2:
                os.kill(os.getpid(), signal.SIGKILL)

    directory, kill = sys.argv[1], sys.argv[2] == "kill"
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    y = np.argmax(x[:, :3], axis=1)
    first = [keras.Input((8,)), keras.layers.Dropout(0.2), keras.layers.Dense(16, "relu")]
    model = keras.Sequential([*first, keras.layers.Dropout(0.5), keras.layers.Dense(3)])
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    kp.iterative_prune(
        model, compressions=[2, 3], max_drop=1.0, seed=3, directory=directory, x=x, y=y, validation_data=(x, y),
        callbacks=[Kill()] if kill else None,
    )
    np.savez(os.path.join(directory, "best.npz"), *model.get_weights())
"""


@pytest.mark.slow
def test_a_process_that_was_killed_goes_on_to_the_end_of_one_that_was_not(tmp_path):
    def run(name, kill):
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, "-c", textwrap.dedent(KILLED_RUN), str(tmp_path / name), "kill" if kill else "go on"]
        root = str(pathlib.Path(kp.__file__).parents[1])
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=False).returncode

    assert run("killed", kill=True) == -signal.SIGKILL
    assert not (tmp_path / "killed/best.npz").exists()
    assert run("killed", kill=False) == run("whole", kill=False) == 0
    best, whole = (np.load(tmp_path / name / "best.npz") for name in ("killed", "whole"))
    assert_same([best[name] for name in best], [whole[name] for name in whole])


def test_a_finished_run_is_restored_without_training(tmp_path):
    arguments = {"compressions": [2, 4], "max_drop": 1.0, "directory": tmp_path / "new/folder", **FIT}
    model, again = twins(2, optimizer=keras.optimizers.Adam, learning_rate=0.01)
    rounds = kp.iterative_prune(model, **arguments)
    watch = Watch()
    rounds_again = kp.iterative_prune(again, callbacks=[watch], **arguments)
    assert watch.fits == []
    assert rounds_again == rounds
    assert_same((again.get_weights(), masks(again)), (model.get_weights(), masks(model)))
    files = sorted(file.name for file in (tmp_path / "new/folder").iterdir())
    assert files == ["round_00.keras", "round_01.keras", "round_02.keras", "rounds.json"]
    kept_model = keras.models.load_model(tmp_path / "new/folder/round_02.keras")
    assert_same((kept_model.get_weights(), masks(kept_model)), (model.get_weights(), masks(model)))


def test_a_run_that_ended_out_of_its_budget_is_restored_as_it_ended(tmp_path, measured):
    arguments = {"compressions": [2, 4, 8], "directory": tmp_path, **FIT}
    model, again = twins(2)
    measured(0.9, 0.9, 0.1, 0.1)
    rounds = kp.iterative_prune(model, **arguments)
    measured()
    rounds_again = kp.iterative_prune(again, **arguments)
    assert rounds_again == rounds
    assert [one.within_budget for one in rounds] == [True, True, False]
    assert_same((again.get_weights(), masks(again)), (model.get_weights(), masks(model)))


def test_a_run_that_died_while_it_wrote_a_file_goes_on(tmp_path, monkeypatch):
    arguments = {"compressions": [2, 4], "max_drop": 1.0, "alternate": True, "seed": 1, **FIT}
    whole, killed, model = twins(3, optimizer=keras.optimizers.Adam, learning_rate=0.01)
    kp.iterative_prune(whole, **arguments)
    save = keras.Sequential.save

    def half_of_it(self, file, *args, **kwargs):
        save(self, file, *args, **kwargs)
        if "round_01" in file.name:
            file.write_bytes(file.read_bytes()[:100])
            raise KilledError

    monkeypatch.setattr(keras.Sequential, "save", half_of_it)
    with pytest.raises(KilledError):
        kp.iterative_prune(killed, directory=tmp_path, **arguments)
    monkeypatch.undo()
    assert not (tmp_path / "round_01.keras").exists()
    kp.iterative_prune(model, directory=tmp_path, **arguments)
    assert_same((model.get_weights(), masks(model)), (whole.get_weights(), masks(whole)))


def test_a_directory_with_another_run_is_refused(tmp_path):
    arguments = {"compressions": [2], "max_drop": 1.0, "seed": 1, "directory": tmp_path, **FIT}
    model, same, again = twins(3)
    kp.iterative_prune(model, **arguments)
    others = [
        {"compressions": [3]},
        {"compressions": None, "qualities": [2]},
        {"max_drop": 0.5},
        {"seed": None},
        {"alternate": True},
        {"learning_rate_fraction": 0.2},
        {"epochs": 2},
        {"batch_size": 8},
        {"model": small_model()},
        {"model": model},  # It has been pruned.
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"another start or other settings; .* Received: directory="):
            kp.iterative_prune(**{"model": same} | arguments | other)
    kp.prune(same, {"hidden": kp.StdThreshold(), "head": kp.StdThreshold(0.5)})
    with pytest.raises(ValueError, match="another start or other settings"):
        kp.iterative_prune(same, **arguments)
    assert len(kp.iterative_prune(again, **arguments)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, r"either as compressions.*or as qualities.*Received: compressions=None, qualities=None"),
        ({"compressions": [2], "qualities": [1]}, r"either as compressions.*Received: compressions=\[2\]"),
        ({"compressions": []}, r"needs a compression above 1, in increasing order"),
        ({"compressions": [1, 2]}, r"needs a compression above 1"),
        ({"compressions": [4, 2]}, r"in increasing order.*Received: compressions=\[4, 2\]"),
        ({"qualities": [0]}, r"or a quality above 0. Received: compressions=None, qualities=\[0\]"),
        ({"compressions": [2], "monitor": "precision"}, r"monitor must be a metric .*Received: monitor='precision'"),
        ({"compressions": [2], "monitor": "loss"}, r"of which more is better.*Received: monitor='loss'"),
        ({"compressions": [2], "learning_rate_fraction": 0}, r"must be above 0.*learning_rate_fraction=0"),
        ({"compressions": [2], "validation_data": None}, r"pass validation_data. Received: model="),
        ({"compressions": [2], "callbacks": [kp.PruningBackup("unused")]}, r"one round into the next: pass directory"),
        ({"compressions": [1000]}, r"compressed 88.0x at most. Received: compression=1000"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        kp.iterative_prune(small_model(), **FIT | arguments)


def test_models_that_cannot_be_retrained_are_refused():
    uncompiled = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"call model.compile\(...\) .*compiled=False"):
        kp.iterative_prune(uncompiled, compressions=[2], **FIT)
    with pytest.raises(ValueError, match="Expected a Keras 3 model"):
        kp.iterative_prune("model.keras", compressions=[2], **FIT)
    without_thresholds = kp.prune(small_model(), kp.TargetSparsity(0.5))
    for strength in ({"compressions": [2]}, {"qualities": [1]}):
        with pytest.raises(ValueError, match=r"StdThreshold.*layer 'hidden' with criterion=TargetSparsity"):
            kp.iterative_prune(without_thresholds, **strength, **FIT)


class Interrupt(keras.callbacks.Callback):
    """Interrupts the second call of `fit`, as Ctrl-C does."""

    calls = 0

    def on_train_begin(self, logs=None):
        self.calls += 1

    def on_epoch_end(self, epoch, logs=None):
        if self.calls == 2:
            raise KeyboardInterrupt


def test_interrupted_round_restores_the_model():
    interrupted, one_round = twins(2)
    kp.iterative_prune(one_round, compressions=[2], max_drop=1, seed=0, **FIT)
    with pytest.raises(KeyboardInterrupt):
        kp.iterative_prune(interrupted, compressions=[2, 4], max_drop=1, seed=0, callbacks=[Interrupt()], **FIT)
    assert_same(interrupted.get_weights(), one_round.get_weights())
    assert_same(masks(interrupted), masks(one_round))
    assert float(array(interrupted.optimizer.learning_rate)) == pytest.approx(0.1)


class OwnRate(keras.optimizers.SGD):
    """An optimizer whose constructor needs an argument that its config does not have."""

    def __init__(self, rate, **kwargs):
        super().__init__(learning_rate=rate, **{key: value for key, value in kwargs.items() if key == "name"})


def test_an_optimizer_that_cannot_be_made_anew_stops_before_a_cut():
    model = small_model(optimizer=OwnRate)
    with pytest.raises(ValueError, match="get_config"):
        kp.iterative_prune(model, compressions=[2], max_drop=1, **FIT)
    assert all(weight.density == 1 for weight in pruned_weights(model))
