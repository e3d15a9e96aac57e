"""Tests of the rounds, the budget and killed runs of `iterative_prune`."""

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
NAN = float("nan")


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
    """Records, for each epoch, what `look` returns for the model at its start and end."""

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
    """Stops the run in the middle of its `number`th call of `fit`."""

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
    """Replaces measured values by given ones."""

    measure = iterative._measure

    def give(*accuracies):
        scripted = iter(accuracies)
        monkeypatch.setattr(
            iterative, "_measure", lambda *args, steps=None: measure(*args, steps) if steps else next(scripted)
        )

    return give


def test_every_round_reaches_its_compression():
    model = small_model()
    rounds = kp.iterative_prune(model, rounds=[2, 3.3, 8], max_drop=1.0, **FIT)
    assert [one.compression for one in rounds] == [1, *(TOTAL / round(TOTAL / c) for c in (2, 3.3, 8))]
    assert all(one.within_budget for one in rounds)
    assert sum(kept(model).values()) == round(TOTAL / 8)
    assert model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"] == pytest.approx(rounds[-1].value)


def test_plain_sparse_model_starts_at_its_compression():
    model = small_model()
    kp.cut(kp.prune(model, kp.TargetSparsity(0.5)))
    rounds = kp.iterative_prune(kp.strip(model), rounds=[4], max_drop=1.0, **FIT)
    assert [one.compression for one in rounds] == [2, 4]


def test_model_is_pruned_in_place_and_stays_compiled():
    model = small_model(optimizer=keras.optimizers.Adam)
    inner = list(model.layers)
    kp.iterative_prune(model, rounds=[4], max_drop=1.0, **FIT)
    assert all(one is other for one, other in zip(model.layers, inner, strict=True))
    assert all(layer.trainable for layer in model.layers)
    assert isinstance(model.optimizer, keras.optimizers.Adam)
    assert not int(array(model.optimizer.iterations))
    assert float(array(model.optimizer.learning_rate)) == pytest.approx(0.1)


def test_model_ends_as_the_sparsest_within_the_budget(measured):
    measured(0.9, 0.85, 0.91, 0.79, 0.79)
    model = small_model()
    watch = Watch(lambda model: (arrays(model.get_weights()), masks(model)))
    rounds = kp.iterative_prune(model, rounds=[2, 4, 8, 16], max_drop=0.1, callbacks=[watch], **FIT)
    assert [one.within_budget for one in rounds] == [True, True, True, False]
    assert [one.value for one in rounds] == [0.9, 0.85, 0.91, 0.79]
    assert sum(kept(model).values()) == TOTAL / 4
    assert_same((model.get_weights(), masks(model)), watch.fits[1][1])


def test_round_out_of_budget_is_retrained_once_more(measured):
    measured(0.9, 0.5, 0.9, 0.5, 0.8, 1.0)
    watch = Watch(lambda model: sum(kept(model).values()))
    model = small_model()
    rounds = kp.iterative_prune(model, rounds=[2, 4, 8], callbacks=[watch], **FIT)
    assert [(one.value, one.within_budget) for one in rounds] == [(0.9, True), (0.9, True), (0.8, False)]
    # Two fits in each of the two rounds, one cut in each, and no third round.
    assert watch.fits == [(TOTAL / 2,) * 2] * 2 + [(TOTAL / 4,) * 2] * 2
    assert sum(kept(model).values()) == TOTAL / 2


def test_nan_is_out_of_the_budget(measured):
    measured(0.9, math.nan, math.nan)
    model = small_model()
    rounds = kp.iterative_prune(model, rounds=[2, 4], max_drop=1.0, **FIT)
    assert [one.within_budget for one in rounds] == [True, False]
    assert sum(kept(model).values()) == TOTAL


def test_compression_keeps_the_proportion_of_own_qualities():
    model = kp.prune(small_model(), {"hidden": kp.StdThreshold(1.0), "head": kp.StdThreshold(0.5)})
    scaled = np.concatenate(
        [
            (np.abs(kernel) / (quality * np.std(kernel))).ravel()
            for kernel, quality in (
                (array(model.get_layer("hidden").kernel), 1.0),
                (array(model.get_layer("head").kernel), 0.5),
            )
        ]
    )
    largest = np.argsort(-scaled)[: TOTAL // 4]
    watch = Watch(kept)
    kp.iterative_prune(model, [4], max_drop=1.0, callbacks=[watch], **FIT)
    assert watch.fits[0][0] == {"hidden": np.sum(largest < 128), "head": np.sum(largest >= 128)}
    assert [weight.criterion for weight in pruned_weights(model)] == [kp.StdThreshold(1.0), kp.StdThreshold(0.5)]


def test_compression_is_split_by_the_budget_of_the_model():
    model = kp.prune(small_model(), kp.budgets.GlobalMagnitude(20))
    magnitudes = np.abs(np.concatenate([array(layer.kernel).ravel() for layer in model.layers]))
    largest = np.argsort(-magnitudes)[: TOTAL // 4]
    watch = Watch(kept)
    kp.iterative_prune(model, [4], max_drop=1.0, callbacks=[watch], **FIT)
    assert watch.fits[0][0] == {"hidden": np.sum(largest < 128), "head": np.sum(largest >= 128)}
    assert {weight.criterion for weight in pruned_weights(model)} == {kp.budgets.GlobalMagnitude(20)}


def test_criterion_rounds_use_the_criterion_for_all_layers():
    model = kp.prune(small_model(), {"hidden": kp.StdThreshold(1.0), "head": kp.TargetSparsity(0.5)})
    watch = Watch(kept)
    rounds = [kp.TargetSparsity(0.25), kp.TargetSparsity(0.75)]
    kp.iterative_prune(model, rounds, max_drop=1.0, callbacks=[watch], **FIT)
    assert [before for before, _ in watch.fits] == [{"hidden": 96, "head": 36}, {"hidden": 32, "head": 12}]
    assert [weight.criterion for weight in pruned_weights(model)] == [kp.StdThreshold(1.0), kp.TargetSparsity(0.5)]


def test_less_is_better_for_losses(measured, capsys):
    measured(0.5, 0.55, 0.7, 0.7)
    rounds = kp.iterative_prune(small_model(), [2, 4], max_drop=0.1, monitor="loss", **FIT)
    assert [one.within_budget for one in rounds] == [True, True, False]
    assert capsys.readouterr().out.startswith(
        "Budget: loss at most 0.1 worse (less is better). Learning rate: 0.01 (0.1x"
    )


def test_mode_overrides_the_direction_of_the_metric(measured):
    measured(0.5, 0.4, 0.7, 0.7)
    rounds = kp.iterative_prune(small_model(), [2, 4], mode="min", **FIT)
    assert [one.within_budget for one in rounds] == [True, True, False]


def test_rounds_can_be_converted_to_json(measured):
    measured(0.9, 0.8, 0.8)
    rounds = kp.iterative_prune(small_model(), [2], **FIT)
    assert json.loads(json.dumps([one.to_dict() for one in rounds]))[1]["compression"] == 2
    assert repr(rounds[1]) == "<Round compression=2, value=0.8, within_budget=False>"


def test_layers_without_masks_are_left_alone():
    model = kp.prune(small_model(), {"hidden": kp.StdThreshold()})
    rounds = kp.iterative_prune(model, rounds=[4, 8], max_drop=1.0, **FIT)
    assert kept(model) == {"hidden": 16}
    assert rounds[-1].compression == 8
    assert np.count_nonzero(array(model.get_layer("head").kernel)) == 48


@pytest.mark.parametrize("fraction", [0.1, 1])
def test_every_retraining_starts_at_the_same_learning_rate(fraction):
    class Lower(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.optimizer.learning_rate = 1e-3

    watch = Watch(lambda model: float(ops.convert_to_numpy(model.optimizer.learning_rate)))
    arguments = {"learning_rate_fraction": fraction, "callbacks": [watch, Lower()], "max_drop": 1.0}
    kp.iterative_prune(small_model(learning_rate=0.2), rounds=[2, 4], **arguments, **FIT)
    assert [before for before, _ in watch.fits] == [pytest.approx(0.2 * fraction)] * 2


def test_learning_rate_schedules_cannot_be_scaled():
    schedule = keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    model = small_model(learning_rate=schedule)
    with pytest.raises(ValueError, match=r"schedule cannot be scaled.*learning_rate_fraction=0.1"):
        kp.iterative_prune(model, rounds=[2], **FIT)
    kp.iterative_prune(model, rounds=[2], learning_rate_fraction=1, max_drop=1.0, **FIT)
    assert isinstance(model.optimizer._learning_rate, keras.optimizers.schedules.ExponentialDecay)
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(schedule))
    with pytest.raises(ValueError, match="schedule cannot be scaled"):
        kp.iterative_prune(compiled(small_model(), optimizer=lambda rate: scaled), rounds=[2], **FIT)


def test_retraining_has_the_penalty_of_regularize():
    losses = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            losses.append(len(self.model.losses))

    model = small_model()
    kp.regularize(model, l2=1e-3)
    kp.iterative_prune(model, rounds=[2], max_drop=1.0, callbacks=Seen(), epochs=np.int64(1), **FIT)
    assert losses == [2]


def model_with_noise(start=None):
    """A model with seeds that are not saved with it, of a dropout that follows no layer, and of noise."""
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


RUN = {"rounds": [2, 4], "max_drop": 1.0, **FIT}


def without_seconds(rounds):
    return [one._replace(seconds=0) for one in rounds]


@pytest.mark.parametrize("number", [1, 2])
def test_killed_run_ends_as_an_unbroken_one(tmp_path, capsys, number):
    whole = model_with_noise()
    start = whole.get_weights()
    keras.utils.set_random_seed(7)
    whole_rounds = kp.iterative_prune(whole, **RUN)
    whole_lines = capsys.readouterr().out
    killed, model, watch = model_with_noise(start), model_with_noise(start), Watch()
    keras.utils.set_random_seed(7)
    with pytest.raises(KilledError):
        kp.iterative_prune(killed, directory=tmp_path, callbacks=[KillIn(number)], **RUN)
    assert len(json.loads((tmp_path / "rounds.json").read_text())["rounds"]) == number
    capsys.readouterr()
    keras.utils.set_random_seed(1000 + number)  # As in a new process, the seed of the run is only in the directory.
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
    keras.utils.set_random_seed(int(sys.argv[3]))
    x = np.random.default_rng(0).normal(size=(32, 8)).astype("float32")
    y = np.argmax(x[:, :3], axis=1)
    first = [keras.Input((8,)), keras.layers.Dropout(0.2), keras.layers.Dense(16, "relu")]
    model = keras.Sequential([*first, keras.layers.Dropout(0.5), keras.layers.Dense(3)])
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=weight.shape) for weight in model.get_weights()])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    kp.iterative_prune(
        model, rounds=[2, 3], max_drop=1.0, directory=directory, x=x, y=y, validation_data=(x, y),
        callbacks=[Kill()] if kill else None,
    )
    np.savez(os.path.join(directory, "best.npz"), *model.get_weights())
"""


@pytest.mark.slow
def test_killed_process_ends_as_an_unbroken_one(tmp_path):
    def run(name, kill, seed=3):
        (tmp_path / name).mkdir(exist_ok=True)
        command = [sys.executable, "-c", textwrap.dedent(KILLED_RUN), str(tmp_path / name)]
        command += ["kill" if kill else "resume", str(seed)]
        root = str(pathlib.Path(kp.__file__).parents[1])
        return subprocess.run(command, env={**os.environ, "PYTHONPATH": root}, check=False).returncode

    assert run("killed", kill=True) == -signal.SIGKILL
    assert not (tmp_path / "killed/best.npz").exists()
    assert run("killed", kill=False, seed=4) == run("whole", kill=False) == 0
    best, whole = (np.load(tmp_path / name / "best.npz") for name in ("killed", "whole"))
    assert_same([best[name] for name in best], [whole[name] for name in whole])


def test_finished_run_is_restored_without_training(tmp_path):
    arguments = {"rounds": [2, 4], "max_drop": 1.0, "directory": tmp_path / "new/folder", **FIT}
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


def test_run_that_ended_out_of_budget_is_restored(tmp_path, measured):
    arguments = {"rounds": [2, 4, 8], "directory": tmp_path, **FIT}
    model, again = twins(2)
    measured(0.9, 0.9, 0.1, 0.1)
    rounds = kp.iterative_prune(model, **arguments)
    measured()
    rounds_again = kp.iterative_prune(again, **arguments)
    assert rounds_again == rounds
    assert [one.within_budget for one in rounds] == [True, True, False]
    assert_same((again.get_weights(), masks(again)), (model.get_weights(), masks(model)))


def test_run_killed_while_saving_can_resume(tmp_path, monkeypatch):
    arguments = {"rounds": [2, 4], "max_drop": 1.0, **FIT}
    whole, killed, model = twins(3, optimizer=keras.optimizers.Adam, learning_rate=0.01)
    keras.utils.set_random_seed(7)
    kp.iterative_prune(whole, **arguments)
    keras.utils.set_random_seed(7)
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


def test_directory_with_another_run_is_rejected(tmp_path):
    arguments = {"rounds": [2], "max_drop": 1.0, "directory": tmp_path, **FIT}
    model, same, again = twins(3)
    kp.iterative_prune(model, **arguments)
    others = [
        {"rounds": [3]},
        {"rounds": [kp.StdThreshold(2.0)]},
        {"max_drop": 0.5},
        {"mode": "max"},
        {"learning_rate_fraction": 0.2},
        {"epochs": 2},
        {"batch_size": 8},
        {"model": small_model()},
        {"model": model},  # It has been pruned.
    ]
    for other in others:
        with pytest.raises(ValueError, match=r"another start or other settings.*Received: directory="):
            kp.iterative_prune(**{"model": same} | arguments | other)
    kp.prune(same, {"hidden": kp.StdThreshold(), "head": kp.StdThreshold(0.5)})
    with pytest.raises(ValueError, match="another start or other settings"):
        kp.iterative_prune(same, **arguments)
    assert len(kp.iterative_prune(again, **arguments)) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rounds": []}, r"a compression above 1, in increasing order"),
        ({"rounds": [1, 2]}, r"a compression above 1"),
        ({"rounds": 8}, r"Received: rounds=8"),
        ({"rounds": [4, 2]}, r"in increasing order.*Received: rounds=\[4, 2\]"),
        ({"rounds": ["4"]}, r"or a criterion such as StdThreshold.*Received: rounds=\['4'\]"),
        ({"rounds": [2], "monitor": "precision"}, r"does not measure 'precision'.*Received: monitor='precision'"),
        ({"rounds": [2], "mode": "up"}, r"Received: mode='up'"),
        *(({"rounds": [2], "max_drop": drop}, rf"at least 0. Received: max_drop={drop}") for drop in (-1, NAN, None)),
        *(({"rounds": [2], "epochs": epochs}, rf"at least 1. Received: epochs={epochs}") for epochs in (0, None)),
        *(
            ({"rounds": [2], "learning_rate_fraction": value}, rf"number above 0.*learning_rate_fraction={value}")
            for value in (0, NAN, float("inf"))
        ),
        ({"rounds": [2], "callbacks": [kp.PruningCallback()]}, r"prunes the model itself.*Received: callbacks="),
        ({"rounds": [2], "validation_data": None}, r"pass x and validation_data. Received: model="),
        (
            {"rounds": [2], "callbacks": [kp.PruningBackup("unused")]},
            r"skip the rounds after the first. Pass `directory`",
        ),
        ({"rounds": [1000]}, r"compressed 88.0x at most. Received: compression=1000"),
    ],
)
def test_invalid_arguments_are_rejected(arguments, message):
    with pytest.raises(ValueError, match=message):
        kp.iterative_prune(small_model(), **FIT | arguments)


def test_models_that_cannot_be_retrained_are_rejected():
    uncompiled = keras.Sequential([keras.Input((8,)), layers.Dense(3)])
    with pytest.raises(ValueError, match=r"Call model.compile\(...\).*compiled=False"):
        kp.iterative_prune(uncompiled, rounds=[2], **FIT)
    without_thresholds = kp.prune(small_model(), kp.TargetSparsity(0.5))
    with pytest.raises(ValueError, match=r"StdThreshold.*layer 'hidden' with criterion=TargetSparsity"):
        kp.iterative_prune(without_thresholds, rounds=[2], **FIT)
    blocks = {"hidden": kp.StdThreshold(pattern=kp.Blocks((2, 1))), "head": kp.StdThreshold()}
    with pytest.raises(ValueError, match=r"one pattern for all layers.*Received: patterns="):
        kp.iterative_prune(kp.prune(small_model(), blocks), rounds=[2], **FIT)


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
    keras.utils.set_random_seed(7)
    kp.iterative_prune(one_round, rounds=[2], max_drop=1, **FIT)
    keras.utils.set_random_seed(7)
    with pytest.raises(KeyboardInterrupt):
        kp.iterative_prune(interrupted, rounds=[2, 4], max_drop=1, callbacks=[Interrupt()], **FIT)
    assert_same(interrupted.get_weights(), one_round.get_weights())
    assert_same(masks(interrupted), masks(one_round))
    assert float(array(interrupted.optimizer.learning_rate)) == pytest.approx(0.1)


class OwnRate(keras.optimizers.SGD):
    """An optimizer whose constructor needs an argument that its config does not have."""

    def __init__(self, rate, **kwargs):
        super().__init__(learning_rate=rate, **{key: value for key, value in kwargs.items() if key == "name"})


def test_optimizer_without_config_is_rejected_before_a_cut():
    model = small_model(optimizer=OwnRate)
    with pytest.raises(ValueError, match="get_config"):
        kp.iterative_prune(model, rounds=[2], max_drop=1, **FIT)
    assert all(weight.density == 1 for weight in pruned_weights(model))
