"""Tests of the cuts, the output and the logs of `PruningCallback`."""

import csv
import re
import warnings

import keras
import numpy as np
import pytest
from helpers import JAX, TENSORFLOW, TORCH, array, assert_same, assert_zeros, density, kept, masks
from keras import layers, ops, optimizers

import keras_prune as kp
from keras_prune.rules.schedules import default_schedule

X = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
Y = np.random.default_rng(1).normal(size=(64, 3)).astype("float32")
STEPS = 4  # For each epoch: 64 samples in batches of 16.


def pruned_model(criterion=None, optimizer="adam", regularizer=None, **compiling):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(16, "relu", kernel_regularizer=regularizer, name="hidden"),
            layers.Dropout(0.5, seed=3, name="drop"),
            layers.Dense(3, kernel_regularizer=regularizer, name="head"),
        ]
    )
    kp.prune(model, criterion or kp.TargetSparsity(0.7))
    # A few steps take TensorFlow less time than compiling them would.
    model.compile(optimizer, "mse", **{"jit_compile": JAX, "run_eagerly": TENSORFLOW} | compiling)
    return model


def fit(model, schedule, *callbacks, epochs=3, verbose=0, **kwargs):
    first = [kp.PruningCallback(schedule, verbose=verbose)]
    return model.fit(
        X, Y, batch_size=16, epochs=epochs, shuffle=False, verbose=0, callbacks=[*first, *callbacks], **kwargs
    )


def assert_zero_where_cut(model):
    """Asserts that each weight was cut, and is zero where its mask is and nowhere else."""
    assert_zeros(model)
    for weight in kp.layers.pruned_weights(model):
        assert weight.kept == np.count_nonzero(array(weight.variable)) < weight.size


class AfterEveryBatch(keras.callbacks.Callback):
    """Counts stored weights that are not zero where they are cut."""

    wrong, seen = 0, 0

    def on_train_batch_end(self, batch, logs=None):
        if JAX:
            self.model.jax_state_sync()
        for weight in kp.layers.pruned_weights(self.model):
            pruned = ~array(weight.mask)
            self.wrong += np.count_nonzero(array(weight.variable)[pruned])
            self.seen += np.count_nonzero(pruned)


class StopAfter(keras.callbacks.Callback):
    def __init__(self, epochs):
        super().__init__()
        self.epochs = epochs

    def on_epoch_end(self, epoch, logs=None):
        self.model.stop_training = epoch + 1 == self.epochs


OPTIMIZERS = {
    "sgd with momentum": lambda: optimizers.SGD(0.05, momentum=0.9),
    "adam": lambda: optimizers.Adam(0.01),
    "adamw": lambda: optimizers.AdamW(0.01, weight_decay=0.1),
    "rmsprop": lambda: optimizers.RMSprop(0.01, momentum=0.9),
    "ftrl": lambda: optimizers.Ftrl(0.1, l1_regularization_strength=0.001),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("regularizer", ["l1", "l2"])
def test_pruned_weights_stay_zero_after_every_step(optimizer, regularizer):
    model, probe = pruned_model(None, OPTIMIZERS[optimizer](), regularizer, run_eagerly=False), AfterEveryBatch()
    fit(model, kp.Polynomial(1, 9, frequency=3, unit="step"), probe)
    assert probe.seen > 0
    assert probe.wrong == 0


def test_zeros_outlast_saving_and_further_training(tmp_path):
    model = pruned_model()
    fit(model, kp.OneShot(start=1))
    before = masks(model)
    expected = model.predict(X, verbose=0)
    model.evaluate(X, Y, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(X, verbose=0), expected)
    loaded.fit(X, Y, epochs=2, verbose=0)  # Without the callback.
    for again in (model, loaded):
        assert_zero_where_cut(again)
        assert_same(masks(again), before)


RESUMED = {
    "rounds of epochs": (kp.Iterative(rounds=3), kp.StdThreshold(1.2), {}),
    "steps": (kp.Polynomial(3, 14, frequency=3, unit="step"), kp.StdThreshold(0.9), {}),
    # Three batches make a step: epochs of four end in the middle of one.
    "accumulated steps": (kp.Polynomial(1, 5, unit="step"), kp.StdThreshold(0.9), {"accumulate": 3}),
}


@pytest.mark.filterwarnings("ignore:The schedule ends at")
@pytest.mark.parametrize("name", RESUMED)
def test_resumed_run_ends_as_an_unbroken_one(name, tmp_path):
    schedule, criterion, options = RESUMED[name]

    def start():
        keras.utils.set_random_seed(5)
        return pruned_model(criterion, optimizers.Adam(0.01, gradient_accumulation_steps=options.get("accumulate")))

    whole = start()
    fit(whole, schedule, epochs=4)
    for stop in (1, 2, 3):
        stopped = start()
        fit(stopped, schedule, StopAfter(stop), epochs=4)
        stopped.save(tmp_path / "model.keras")
        resumed = keras.models.load_model(tmp_path / "model.keras")
        fit(resumed, schedule, epochs=4, initial_epoch=stop)
        for variable, expected in zip(resumed.variables, whole.variables, strict=True):
            np.testing.assert_array_equal(array(variable), array(expected), err_msg=f"{variable.path}, stop={stop}")


def test_cut_that_would_empty_a_layer_keeps_a_connection(capsys):
    model = pruned_model({"hidden": kp.StdThreshold(100.0), "head": kp.TargetSparsity(0.99)})
    fit(model, kp.OneShot(), epochs=1, verbose=1)
    assert kept(model) == [1, 1]
    assert "Only one connection or block is left in hidden/kernel, head/kernel." in capsys.readouterr().out.splitlines()


def test_budget_that_leaves_one_connection_says_so(capsys):
    model = pruned_model(kp.budgets.GlobalMagnitude(3))
    model.get_layer("head").kernel.assign(1e-6 * array(model.get_layer("head").kernel))
    fit(model, kp.OneShot(), epochs=1, verbose=1)
    assert kept(model) == [58, 1]
    assert "Only one connection or block is left in head/kernel" in capsys.readouterr().out


def test_budget_out_of_reach_is_refused_before_training():
    model = pruned_model(kp.budgets.GlobalMagnitude(1000))
    with pytest.raises(ValueError, match=r"can be compressed 88.0x at most.*Received: compression=1000"):
        fit(model, kp.OneShot(start=2))
    assert int(model.optimizer.iterations) == 0


def test_callback_prints_a_line_for_each_cut(capsys):
    fit(pruned_model(kp.TargetSparsity(0.75)), kp.Iterative(rounds=2), epochs=2, verbose=1)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(":")[0] for line in lines] == ["Epoch 1", "Epoch 2"]
    assert lines[1].endswith("at strength 1.00; 44 of 176 left (75.00% sparse, 4.0x); dropout 0.25.")


def test_fit_prints_short_lines_with_many_layers(capsys):
    model = keras.Sequential([keras.Input((8,))])
    for index in range(20):
        model.add(keras.layers.Dense(8, name=f"a_layer_with_a_long_name_{index}"))
        model.add(keras.layers.Dropout(0.02 * (index + 1)))
    kp.prune(model, kp.StdThreshold(100.0))
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=True)
    callback = kp.PruningCallback(kp.OneShot())
    model.fit(np.ones((4, 8)), np.ones((4, 8)), verbose=2, validation_split=0.5, callbacks=[callback])
    lines = capsys.readouterr().out.splitlines()
    assert any("dropout 0.00 to 0.05." in line for line in lines)
    assert any(line.endswith(" and others.") for line in lines)
    assert max(map(len, lines)) <= 120


def test_callback_prints_its_default_schedule(capsys):
    model = pruned_model(kp.TargetSparsity(0.75))
    callback = kp.PruningCallback()
    for epochs, when in ((3, "2 cuts in epochs 2 to 3 of 3."), (1, "1 cut in epoch 1 of 1.")):
        model.fit(X, Y, epochs=epochs, verbose=0, callbacks=[callback])
        schedule = default_schedule(epochs)
        assert capsys.readouterr().out.splitlines()[0] == f"PruningCallback: {schedule}, {when}"
    assert_zero_where_cut(model)


def test_silent_callback_prints_nothing(capsys):
    fit(pruned_model(), None, epochs=2, verbose=0)
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_callback_rejects_weights_that_are_not_finite(value):
    model = pruned_model()
    kernel = model.get_layer("head").kernel
    kernel.assign(np.full(kernel.shape, value))
    with pytest.raises(ValueError, match=r"diverged.*Received: layer=head, weight=kernel"):
        fit(model, kp.OneShot())
    assert density(model) == 1


def test_callback_rejects_runs_behind_the_last_cut():
    model = pruned_model()
    with pytest.raises(ValueError, match=r"does not prune in this run.*Received: schedule="):
        fit(model, kp.OneShot(start=1), epochs=4, initial_epoch=2)
    assert int(model.optimizer.iterations) == 0


def test_cut_below_every_weight_does_not_warn():
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The (schedule|run)")
        fit(pruned_model(kp.StdThreshold(1e-6)), kp.OneShot(), epochs=1)


def batches(count):
    for _ in range(count):
        yield X[:16], Y[:16]


def fit_generator(model, schedule, count):
    model.fit(batches(count), epochs=1, verbose=0, callbacks=[kp.PruningCallback(schedule, verbose=0)])
    return model


UNKNOWN_LENGTH = pytest.mark.filterwarnings("ignore:Your input ran out of data", "ignore:`shuffle=True` was passed")


@UNKNOWN_LENGTH
def test_generator_of_unknown_length_is_pruned_by_step():
    model = fit_generator(pruned_model(), kp.OneShot(start=1, unit="step"), count=3)
    assert_zero_where_cut(model)


SHORTFALL = r"The schedule ends at \w+ {}, but this run ends after \w+ {}.*is {}% sparse, and.* ask for 70.00%"


def warnings_of(fit_model):
    """Returns the messages of a run about its schedule."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        fit_model()
    return [str(one.message) for one in caught if "schedule" in str(one.message)]


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        (kp.Iterative(rounds=5), SHORTFALL.format(4, 1, "27.84")),
        (kp.OneShot(start=4), SHORTFALL.format(4, 1, "0.00")),
        (kp.Polynomial(0, 16, unit="step"), SHORTFALL.format(16, 7, r"\d\d.\d\d")),
        (kp.Polynomial(0, 19, unit="step"), "before the last step of this run, 19, .*not retrained"),
    ],
)
def test_callback_warns_once_of_a_run_that_falls_short(schedule, message):
    (warning,) = warnings_of(lambda: fit(pruned_model(), schedule, StopAfter(2), epochs=5))
    assert re.search(message, warning)


def test_callback_is_silent_if_the_sparsity_is_reached():
    model = pruned_model()
    kp.cut(model)
    assert warnings_of(lambda: fit(model, kp.Iterative(rounds=5), StopAfter(2), epochs=5)) == []


@UNKNOWN_LENGTH
def test_callback_warns_if_a_generator_ends_too_early():
    message = SHORTFALL.format(50, 2, "0.00")
    with pytest.warns(UserWarning, match=message):
        fit_generator(pruned_model(), kp.OneShot(start=50, unit="step"), count=3)


def test_step_is_an_update_if_a_scaled_loss_overflows():
    optimizer = optimizers.LossScaleOptimizer(optimizers.SGD(), initial_scale=3e38)
    model = pruned_model(optimizer=optimizer, loss_weights=10.0)
    schedule, probe = kp.OneShot(start=4, unit="step"), DensityAtEveryStep()
    fit(model, schedule, probe, epochs=4)
    skipped = 4 * STEPS - int(array(model.optimizer.inner_optimizer.iterations))
    assert 0 < skipped < 12
    assert probe.densities.index(min(probe.densities)) == 4 + skipped


class DensityAtEveryStep(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        self.densities = []

    def on_train_batch_end(self, batch, logs=None):
        if JAX:
            self.model.jax_state_sync()
        self.densities.append(density(self.model.get_layer("hidden")))


def test_cut_by_step_comes_before_the_step_of_its_index():
    probe = DensityAtEveryStep()
    fit(pruned_model(kp.TargetSparsity(0.75)), kp.OneShot(start=5, unit="step"), probe, epochs=2)
    assert probe.densities == [1.0] * 5 + [0.25] * 3


def test_step_is_an_update_with_gradient_accumulation():
    probe = DensityAtEveryStep()
    model = pruned_model(kp.TargetSparsity(0.75), optimizers.Adam(gradient_accumulation_steps=3))
    fit(model, kp.OneShot(start=2, unit="step"), probe, epochs=2)
    assert probe.densities == [1.0] * 6 + [0.25] * 2


@pytest.mark.skipif(TORCH, reason="Keras runs one step at a time on PyTorch")
@pytest.mark.parametrize(("at", "densities"), [(5, [1.0, 1.0, 1.0, 0.25]), (7, [1.0, 1.0, 1.0, 1.0])])
def test_cut_waits_for_steps_that_are_executed_together(at, densities):
    probe = DensityAtEveryStep()
    model = pruned_model(kp.TargetSparsity(0.75), steps_per_execution=2, run_eagerly=False)
    fit(model, kp.OneShot(start=at, unit="step"), probe, epochs=2)
    assert probe.densities == densities
    assert density(model.get_layer("hidden")) == 0.25


def test_callback_logs_sparsity_alone_by_default(tmp_path):
    logger = keras.callbacks.CSVLogger(tmp_path / "log.csv")
    model = pruned_model()
    history = fit(model, kp.OneShot(start=1), logger, epochs=2).history
    assert sorted(history) == ["loss", "sparsity"]
    assert history["sparsity"] == [0, pytest.approx(1 - density(model))]
    with open(tmp_path / "log.csv") as file:
        assert [float(row["sparsity"]) for row in csv.DictReader(file)] == pytest.approx(history["sparsity"])


def test_callback_logs_layers_by_path():
    inputs = keras.Input((5, 8))
    towers = [
        keras.Sequential(
            [keras.Input((5, 8)), layers.Dense(8, name="same"), layers.Dropout(0.5, name="drop")], name=name
        )
        for name in ("left", "right")
    ]
    hidden = layers.Bidirectional(layers.GRU(2, unroll=True, name="gru"), name="both")(towers[1](towers[0](inputs)))
    model = kp.prune(keras.Model(inputs, hidden), {"same": 0.75, "both": kp.StdThreshold(0.5)})
    model.compile("sgd", "mse")
    callback = kp.PruningCallback(kp.OneShot(), log_layers=True, verbose=0)
    logs = model.fit(np.ones((4, 5, 8)), np.ones((4, 4)), epochs=1, verbose=0, callbacks=[callback]).history
    cells = [f"both/{way}_gru/gru_cell" for way in ("forward", "backward")]
    assert sorted(name for name in logs if "/" in name) == sorted(
        [f"{kind}/{tower}/same" for kind in ("sparsity", "threshold") for tower in ("left", "right")]
        + [f"dropout/{tower}/drop" for tower in ("left", "right")]
        + [f"sparsity/{cell}" for cell in cells]
        + [f"threshold/{cell}/{weight}" for cell in cells for weight in ("kernel", "recurrent_kernel")]
    )
    assert logs["sparsity/left/same"] == [0.75]
    assert logs["dropout/right/drop"] == pytest.approx([0.25])
    (weight,) = kp.layers.pruned_weights(towers[0])
    assert logs["threshold/left/same"] == pytest.approx([float(array(weight.threshold))])


class ShareOfZeros(layers.Layer):
    """Measures the share that the dropout before it keeps, inside the compiled training step."""

    def build(self, input_shape):
        self.share = self.add_weight(shape=(), initializer="zeros", trainable=False, name="share")

    def call(self, inputs, training=False):
        if training:
            self.share.assign(ops.mean(ops.cast(ops.equal(inputs, 0), "float32")))
        return inputs


class ShareAtEpochEnd(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        logs["share"] = float(self.model.get_layer("probe").share)


@pytest.mark.parametrize(("adjust", "rate"), [(True, 0.15), (False, 0.5)])
def test_dropout_rate_takes_effect_in_the_compiled_step(adjust, rate):
    model = keras.Sequential(
        [
            keras.Input((8,)),
            layers.Dense(1500, bias_initializer="ones", name="fc"),
            layers.Dropout(0.5, seed=1, name="drop"),
            ShareOfZeros(name="probe"),
            layers.Dense(3, name="head"),
        ]
    )
    model = kp.prune(model, {"fc": kp.TargetSparsity(0.91)})
    model.compile(optimizers.SGD(0.0), "mse", jit_compile=JAX)
    callback = kp.PruningCallback(kp.OneShot(start=1), adjust_dropout=adjust, log_layers=True, verbose=0)
    history = model.fit(X, Y, epochs=2, verbose=0, callbacks=[callback, ShareAtEpochEnd()]).history
    assert history["share"] == pytest.approx([0.5, rate], abs=0.02)
    assert history["dropout/drop"] == pytest.approx([0.5, rate], abs=1e-6)
