import json

import keras
import numpy as np
import pytest
from helpers import TENSORFLOW, criteria

import keras_prune as kp


def pruned(run, *arguments):
    """Runs the tool and returns the values that it prints."""
    return json.loads(run("prune", *arguments, "--json"))


def test_prune_prints_its_result(folder, run):
    text = run("prune", "dense.keras", "pruned.keras", "--sparsity=0.75", "--block_size=4,1")
    assert "60 of 240 connections: 4.0x" in text
    assert text.splitlines()[-1] == "pruned 180 of 240 connections; wrote pruned.keras, with masks for further training"
    model = keras.models.load_model("pruned.keras")
    assert set(criteria(model).values()) == {kp.TargetSparsity(0.75, kp.Blocks((4, 1)))}


@pytest.mark.parametrize(
    ("flags", "kept"),
    [
        (["--compression=8"], 30),
        (["--compression=8", "--budget=uniform"], 30),
        (["--compression=4", "--budget=global_magnitude", "--block_size=2,1"], 60),
        (["--compression=3", "--budget=erdos_renyi_kernel", "--layer_names=fc1"], 64 + 48),
        (["--sparsity=0.5", "--layer_names=fc2"], 192 + 24),
        (["--sparsity=0.5", "--n_of_m=2,4"], 120),
        (["--quality=100", "--block_size=4,1"], 8),
    ],
)
def test_prune_follows_the_flags(folder, run, flags, kept):
    values = pruned(run, "dense.keras", "out.keras", *flags)
    assert values["kept"] == pytest.approx(kept, abs=1 if "--comp" in flags[0] else 0)
    assert kp.report(keras.models.load_model("out.keras")).kept == values["kept"]


def test_prune_strips_a_model(folder, run):
    run("prune", "dense.keras", "pruned.keras", "--sparsity=0.75")
    values = pruned(run, "--strip", "pruned.keras", "plain.keras")
    assert (values["pruned"], values["kept"]) == (0, 60)
    plain, model = (keras.models.load_model(name) for name in ("plain.keras", "pruned.keras"))
    assert not kp.layers.pruned_weights(plain)
    x = np.random.default_rng(0).normal(size=(5, 16)).astype("float32")
    np.testing.assert_array_equal(plain.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("strip", [[], ["--strip"]])
def test_prune_reports_what_compression_counts(folder, run, strip):
    model = keras.models.load_model("dense.keras")
    model.get_layer("fc1").trainable = False
    model.save("frozen.keras")
    lines = run("prune", "frozen.keras", "out.keras", "--compression=3", *strip).splitlines()
    assert "--compression counts only pruned layers: 16 of 48, 3.0x" in lines
    assert [line for line in lines if line.startswith("left out: fc1 - ")]
    assert "--compression counts" not in run("prune", "dense.keras", "out.keras", "--compression=3", *strip)


def test_prune_keeps_the_pattern_of_a_pruned_model(folder, run):
    run("prune", "dense.keras", "half.keras", "--sparsity=0.5", "--block_size=4,1")
    values = pruned(run, "half.keras", "quarter.keras", "--compression=4")
    model = keras.models.load_model("quarter.keras")
    assert {criterion.pattern for criterion in criteria(model).values()} == {kp.Blocks((4, 1))}
    assert values["kept"] == kp.report(model).kept == pytest.approx(60, abs=4)


@pytest.mark.parametrize("flag", ["--sparsity=0.5", "--sparsity=0.95", "--quality=1", "--compression=16"])
@pytest.mark.parametrize("strip", [[], ["--strip"]])
def test_prune_counts_zeros_as_pruned(folder, run, flag, strip):
    run("prune", "dense.keras", "pruned.keras", "--sparsity=0.875")
    run("prune", "pruned.keras", "plain.keras", "--strip")
    values = pruned(run, "plain.keras", "again.keras", flag, *strip)
    expected = pruned(run, "pruned.keras", "expected.keras", flag)
    assert values["pruned"] == 30 - values["kept"]
    assert (values["pruned"], values["kept"]) == (expected["pruned"], expected["kept"])
    inspected = json.loads(run("report", "again.keras", "--json"))
    assert (values["kept"], values["compression"]) == (inspected["kept"], inspected["compression"])


@pytest.mark.parametrize(("strip", "kept"), [([], 8), (["--strip"], 0)])
def test_prune_reports_the_written_model(folder, run, strip, kept):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(4, kernel_initializer="zeros")]).save("zeros.keras")
    values = pruned(run, "zeros.keras", "out.keras", "--sparsity=0.5", *strip)
    assert (values["pruned"], values["kept"]) == (8, kept)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--sparsity=90"], "Received: sparsity=90"),
        ([], "one of --sparsity, --compression, --quality and --rounds, or --strip alone. Received: none of"),
        (["--quality=1", "--sparsity=0.5"], "Received: --sparsity and --quality"),
        (["--quality=1", "--block_size=4,x"], "Received: --block_size=4,x"),
        (["--quality=1", "--n_of_m=2:4"], "Received: --n_of_m=2:4"),
        (["--quality=1", "--n_of_m=4,2"], "Received: kept=4, of=2"),
        (["--quality=1", "--n_of_m=2,4", "--block_size=4,1"], "Received: both"),
        (["--quality=1", "--layer_names=conv"], "does not match any prunable layer"),
        (["--compression=300"], "can be compressed 120.0x at most"),
        (["--rounds=2"], "--rounds needs training data, --data=train.npz. Received: no --data"),
        (["--sparsity=0.5", "--epochs=2"], "Only --rounds trains the model. Received: --epochs without --rounds"),
        (["--rounds=2", "--data=train.npz"], "Expected a compiled model"),
        (["--sparsity=0.5", "--html=page.htm"], "Received: filepath='page.htm'"),
    ],
)
def test_prune_rejects_invalid_flags(folder, run, flags, message):
    assert message in run("prune", "dense.keras", "out.keras", *flags, status=2)
    assert [file.name for file in folder.iterdir()] == ["dense.keras"]


def test_prune_rejects_layer_names_for_pruned_models(folder, run):
    run("prune", "dense.keras", "pruned.keras", "--sparsity=0.5")
    error = run("prune", "pruned.keras", "out.keras", "--sparsity=0.9", "--layer_names=fc1", status=2)
    assert error.endswith("Received: --layer_names=fc1")


def test_prune_asks_for_a_pattern_if_there_are_several(folder, run):
    model = keras.models.load_model("dense.keras")
    mixed = {"fc1": kp.TargetSparsity(0.5), "fc2": kp.TargetSparsity(0.5, kp.Blocks((4, 1)))}
    kp.prune(model, mixed).save("mixed.keras")
    assert "Add --block_size or --n_of_m" in run("prune", "mixed.keras", "out.keras", "--sparsity=0.9", status=2)
    assert pruned(run, "mixed.keras", "out.keras", "--sparsity=0.75", "--block_size=4,1")["kept"] == 60


@pytest.fixture
def trained(folder):
    """The current folder, with a compiled model in `compiled.keras` and training data in `train.npz`."""
    model = keras.models.load_model("dense.keras")
    model.compile("sgd", "mse", metrics=["mae"], run_eagerly=TENSORFLOW)
    model.save("compiled.keras")
    rng = np.random.default_rng(0)
    np.savez("train.npz", x=rng.normal(size=(40, 16)).astype("float32"), y=rng.normal(size=(40, 4)).astype("float32"))
    return folder


ROUNDS = ["compiled.keras", "out.keras", "--rounds=2,4", "--data=train.npz", "--monitor=mae", "--max_drop=9"]
ROUNDS += ["--batch_size=36"]  # One whole batch, since each shape is compiled.


def test_prune_retrains_in_rounds(trained, run):
    values = pruned(run, *ROUNDS, "--block_size=2,1", "--budget=uniform")
    assert [round(one["compression"]) for one in values["rounds"]] == [1, 2, 4]
    assert (values["pruned"], values["kept"]) == (180, 60)
    model = keras.models.load_model("out.keras")
    assert model.compiled
    assert set(criteria(model).values()) == {kp.budgets.Uniform(4, kp.Blocks((2, 1)))}


def test_prune_holds_out_validation_data(trained, run, monkeypatch):
    called = {}
    monkeypatch.setattr(kp, "iterative_prune", lambda *_, **given: called.update(given) or [], raising=False)
    run("prune", *ROUNDS, "--validation_split=0.25", "--epochs=3")
    (x, y), (x_held, y_held) = (called["x"], called["y"]), called["validation_data"]
    data = np.load("train.npz")
    assert (len(x), len(y), len(x_held), called["epochs"]) == (30, 30, 10, 3)
    for whole, parts in ((data["x"], [x, x_held]), (data["y"], [y, y_held])):
        np.testing.assert_array_equal(np.sort(np.concatenate(parts), 0), np.sort(whole, 0))
    run("prune", *ROUNDS, "--validation_data=train.npz")
    assert len(called["x"]) == len(called["validation_data"][0]) == 40


def test_prune_writes_a_page_with_the_rounds(trained, run, monkeypatch):
    pytest.importorskip("matplotlib")
    rounds = [kp.results.Round(1.0, 0.5, True, 0.0), kp.results.Round(2.0, 0.6, True, 1.0)]
    monkeypatch.setattr(kp, "iterative_prune", lambda *_, **__: rounds, raising=False)
    assert run("prune", *ROUNDS, "--html=page.html").endswith("wrote page.html\n")
    assert "<h2>Rounds</h2>" in (trained / "page.html").read_text()


def test_prune_continues_rounds_of_a_directory(trained, run):
    first = pruned(run, *ROUNDS, "--rounds=2", "--directory=rounds")
    assert pruned(run, *ROUNDS, "--rounds=2", "--directory=rounds")["rounds"] == first["rounds"]
    assert (trained / "rounds/round_01.keras").exists()


def test_prune_rejects_a_split_without_samples(trained, run):
    error = run("prune", *ROUNDS, "--validation_split=0.001", status=2)
    assert error.endswith("Received: --validation_split=0.001 of 40 samples")
