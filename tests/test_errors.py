"""Errors of public functions say what is wrong, what is expected, and what was received."""

import importlib.util

import keras
import numpy as np
import pytest
from helpers import JAX, TENSORFLOW, TORCH
from keras import layers, ops

import keras_prune as kp
from keras_prune import budgets, results
from keras_prune.rules.budgets import Candidate
from keras_prune.sparse.sparse_dense import SparseDense

HALF = kp.TargetSparsity(0.5)
ONES = np.ones((2, 2), "float32")
DATA = np.ones((4, 8), "float32"), np.ones((4, 3), "float32")
NAN = float("nan")
SPARSE = {"units": 3, "connections": 4}


def model(*inner, inputs=8):
    """Returns a small model, by default with the layers "hidden", "drop" and "head"."""
    inner = inner or (layers.Dense(4, name="hidden"), layers.Dropout(0.5, name="drop"), layers.Dense(3, name="head"))
    return keras.Sequential([keras.Input((inputs,)), *inner])


def keras_2_model():
    module = {"__module__": "tf_keras.src.engine.sequential", "layers": []}
    return type("Sequential", (), module)()


def compiled():
    made = model()
    made.compile("sgd", "mse", metrics=["accuracy"], run_eagerly=not JAX)
    return made


class NoBatches(keras.utils.PyDataset):
    """A dataset without batches."""

    def __len__(self):
        return 0

    def __getitem__(self, index):
        raise IndexError


def build(layer, shape=(2, 5, 8)):
    kp.Prune(layer).build(shape)


def shares(compression, frozen=False):
    """Asks for the budget of weights with 400 and 100 connections."""
    candidates = [Candidate(np.ones((20, n)), np.ones((20, n), "bool"), frozen and n == 20) for n in (20, 5)]
    return budgets.Uniform(compression).shares(candidates)


def not_finite():
    """Returns a pruned model with NaN in its head."""
    pruned = kp.prune(model(), HALF)
    pruned.layers[-1].kernel.assign(ops.full((4, 3), NAN))
    return pruned


def cut_not_finite():
    pruned = not_finite()
    try:
        kp.cut(pruned)
    finally:
        assert kp.report(pruned).sparsity == 0  # No layer was cut.


def cut_with_an_optimizer_that_cannot_be_rebuilt():
    class Own(keras.optimizers.SGD):
        def __init__(self, rate):
            super().__init__(rate, momentum=0.9)

    pruned, optimizer = kp.prune(model(), HALF), Own(0.1)
    optimizer.build(pruned.trainable_variables)
    try:
        kp.cut(pruned, 1.0, optimizer)
    finally:
        assert kp.report(pruned).sparsity == 0


class Taken(layers.Dense):
    pruning = "mine"


# Name of the test, call, regular expression that its message matches.
ERRORS = [
    # Schedules.
    *(
        (f"schedule-{name}-{number}", call, f"Received: {name}=")
        for number, (name, call) in enumerate(
            [
                ("start", lambda: kp.OneShot(start=-1)),
                ("start", lambda: kp.OneShot(start=1.5)),
                ("unit", lambda: kp.OneShot(unit="batch")),
                ("rounds", lambda: kp.Iterative(rounds=0)),
                ("rounds", lambda: kp.Iterative(rounds=True)),
                ("epochs_per_round", lambda: kp.Iterative(rounds=2, epochs_per_round=0)),
                ("start", lambda: kp.Iterative(rounds=2, start=-1)),
                ("power", lambda: kp.Iterative(rounds=2, power=0)),
                ("power", lambda: kp.Iterative(rounds=2, power="3")),
                ("power", lambda: kp.Polynomial(0, 5, power=NAN)),
                ("end", lambda: kp.Polynomial(start=5, end=5)),
                ("frequency", lambda: kp.Polynomial(start=0, end=5, frequency=0)),
            ]
        )
    ),
    *(
        (f"schedule-times-{times}", lambda times=times: kp.Schedule(times), "increasing integers.*Received: times=")
        for times in ([], [2, 1], [1, 1], [4, 0, 2], [-1, 2], [0.5], [True, 2], "abc", None, 3)
    ),
    # Criteria and patterns.
    *(
        (
            f"criterion-strength-{value}",
            lambda value=value: HALF(ONES, strength=value),
            "`strength` must be a number above 0.*: strength=",
        )
        for value in (0.0, -0.1, 1.1, NAN, "0", None, True)
    ),
    *(
        (f"criterion-of-{number}", lambda value=value: HALF(value), f"{message}.*Received: ")
        for number, (value, message) in enumerate(
            [
                (np.array([[NAN, 1]]), "needs finite weights"),
                (np.array([[float("inf"), 1]]), "needs finite weights"),
                (None, "array of numbers"),
                ("kernel", "array of numbers"),
                ([[1.0, 2.0]], "array of numbers"),
                (np.zeros((0, 3)), "at least one entry"),
                (np.ones(()), "one axis"),
            ]
        )
    ),
    *(
        (
            f"criterion-mask-{number}",
            lambda mask=mask: HALF(ONES, mask),
            r"boolean array of the shape \(2, 2\).*: mask=",
        )
        for number, mask in enumerate(["mask", ONES, np.ones((3, 2), "bool")])
    ),
    ("criterion-seed", lambda: kp.RandomSparsity(0.5, seed="a"), "Received: seed='a'"),
    *(
        (f"quality-{value}", lambda value=value: kp.StdThreshold(value), "finite number above 0.*Received: quality=")
        for value in (0, -1.0, NAN, float("inf"), "1", None, True, [0.5])
    ),
    *(
        (f"sparsity-{value}", lambda value=value: kp.TargetSparsity(value), "at least 0 and below 1.*: sparsity=")
        for value in (1, -0.5, 90, NAN, "1", None, [0.5])
    ),
    *(
        (f"pattern-of-{kind.__name__}", lambda kind=kind: kind(0.5, (4, 1)), r"such as Blocks.*: pattern=\(4, 1\)")
        for kind in (kp.StdThreshold, kp.TargetSparsity, kp.RandomSparsity, lambda *args: budgets.Uniform(4, (4, 1)))
    ),
    *(
        (f"block-size-{size}", lambda size=size: kp.Blocks(size), "two integers of at least 1.* Received: block_size=")
        for size in (4, (4,), (4, 1, 1), (0, 1), (4, -1), (4.0, 1), "41", (True, 1), None)
    ),
    ("block-reduction", lambda: kp.Blocks((4, 1), "sum"), '"mean" or "max".* Received: reduction=.sum.'),
    *(
        (f"{n}-of-{m}", lambda n=n, m=m: kp.NOfM(n, m), "1 <= kept < of.* Received: kept=")
        for n, m in [(4, 4), (0, 4), (4, 2), (1.5, 4), (2, None), ("2", 4)]
    ),
    # Budgets.
    *(
        (
            f"budget-{value}",
            lambda value=value: budgets.Uniform(value),
            f"finite number above 1.*: compression={value!r}",
        )
        for value in (1, NAN, float("inf"), "4", None, True)
    ),
    (
        "budget-not-finite",
        lambda: budgets.shares(not_finite(), 0.5),
        "needs finite.*Received: layer=head, weight=kernel",
    ),
    *(
        (f"budget-of-{value!r}", lambda value=value: budgets.shares(model(), value), "above 0 and below 1.*Received: ")
        for value in (None, "0.9", 2, NAN, HALF)
    ),
    ("budget-empties-weights", lambda: shares(400), r"500 connections in 2 weights can be compressed 250.0x at most"),
    (
        "budget-frozen",
        lambda: shares(4, True),
        r"frozen weight all that it has.* 1.2x at most",
    ),
    # Prune, the wrapper.
    ("wrapper-tensor", lambda: kp.Prune(ops.ones((2, 2))), "called on a tensor. Received: layer="),
    ("wrapper-input", lambda: kp.Prune(keras.Input((3,))), "called on a tensor. Received: layer="),
    ("wrapper-wrapper", lambda: kp.Prune(kp.Prune(layers.Dense(2))), "not pruned yet.*Received: layer="),
    ("wrapper-model", lambda: kp.Prune(model()), r"keras_prune.prune\(model\).*Received: layer="),
    ("wrapper-criterion", lambda: kp.Prune(layers.Dense(2), "magnitude"), "Received: criterion='magnitude'"),
    ("wrapper-relu", lambda: build(layers.ReLU()), "not a bias. Leave this layer unwrapped. Received: layer="),
    ("wrapper-prelu", lambda: build(layers.PReLU()), "not a bias.*Received: layer="),
    ("wrapper-norm", lambda: build(layers.LayerNormalization(axis=(1, 2))), "not a bias.*Received: layer="),
    ("wrapper-quantize", lambda: kp.prune(model()).layers[0].quantize("int8"), r"keras_prune.strip\(model\) first"),
    # prune, strip and cut.
    ("prune-layer", lambda: kp.prune(layers.Dense(3)), "For a single layer, use keras_prune.Prune.*Received: model="),
    ("prune-nothing", lambda: kp.prune(model(layers.ReLU())), "nothing to prune"),
    ("prune-none-chosen", lambda: kp.prune(model(), lambda layer: None), "nothing to prune.*Received: model=.*'drop'"),
    ("prune-unmatched", lambda: kp.prune(model(), {"dense_1": HALF}), "'dense_1' does not match.*'hidden'.*'head'"),
    ("prune-text", lambda: kp.prune(model(), "magnitude"), "a Criterion such as.*Received: criterion='magnitude'"),
    ("prune-callable", lambda: kp.prune(model(), lambda one: "half"), "or None. .*criterion='half' for layer 'hidden'"),
    ("prune-integer", lambda: kp.prune(model(), {"head": 1}), "below 1; .*Received: sparsity=1"),
    ("prune-sparsity", lambda: kp.prune(model(), {"head": 1.5}), "below 1; .*Received: sparsity=1.5"),
    ("prune-model-sparsity", lambda: kp.prune(model(), 1.5), "above 0 and below 1.*Received: 1.5"),
    ("prune-pattern", lambda: kp.prune(model(), {"fc[": HALF}), "is not a regular expression"),
    ("prune-key", lambda: kp.prune(model(), {3: HALF}), "is not a regular expression"),
    (
        "prune-attribute",
        lambda: kp.prune(model(Taken(4, name="fc"))),
        "Rename.*'fc' .* with pruning='mine'",
    ),
    ("prune-quantize", lambda: kp.prune(model()).quantize("int8"), r"keras_prune.strip\(model\) first.*Received: "),
    ("cut-path", lambda: kp.cut("model.keras"), r"Expected a Keras 3 model.*Received: model="),
    ("cut-plain", lambda: kp.cut(model()), r"no trainable weights.*keras_prune.prune\(model.*Received: model="),
    ("cut-not-finite", cut_not_finite, "NaN or infinity.*Received: layer=head"),
    *(
        (
            f"cut-strength-{value}",
            lambda value=value: kp.cut(kp.prune(model(), HALF), value),
            "number above 0.*strength=",
        )
        for value in ("0", -1, 2, NAN)
    ),
    ("cut-optimizer-name", lambda: kp.cut(kp.prune(model(), HALF), optimizer="adam"), "Received: optimizer='adam'"),
    ("cut-optimizer", cut_with_an_optimizer_that_cannot_be_rebuilt, r"created from its `get_config\(\)`.*of class Own"),
    # regularize.
    *(
        (
            f"regularize-{value}",
            lambda value=value: kp.regularize(model(), l1=value),
            f"at least 0.*Received: l1={value!r}",
        )
        for value in (-1, NAN, float("inf"), None, "0.1")
    ),
    ("regularize-nothing", lambda: kp.regularize(model(layers.ReLU()), l2=0.1), "has no connections"),
    # Training and analysis.
    ("callback-schedule", lambda: kp.PruningCallback(3), r"OneShot\(\).*Received: schedule=3"),
    ("callback-dropout", lambda: kp.PruningCallback(adjust_dropout="fc6"), "Received: adjust_dropout='fc6'"),
    ("sensitivity-not-finite", lambda: kp.sensitivity(not_finite(), DATA), "Received: layer=head, weight=kernel"),
    *(
        (
            f"sensitivity-{name}-{number}",
            lambda name=name, value=value: kp.sensitivity(compiled(), **{"validation_data": DATA, name: value}),
            message,
        )
        for number, (name, value, message) in enumerate(
            [
                ("criteria", 3, "sequence of criteria.*Received: criteria=3"),
                ("criteria", [], "sequence of criteria"),
                ("criteria", [0.5], "sequence of criteria"),
                ("mode", "up", "'auto', 'min' or 'max'. Received: mode='up'"),
                ("monitor", None, "does not measure None"),
                ("steps", 0, "integer of at least 1. Received: steps=0"),
                ("steps", "all", "Received: steps='all'"),
                ("validation_data", None, "at least one sample.*Received: data=None"),
                ("validation_data", "data.csv", "at least one sample.*Received: data='data.csv'"),
                ("validation_data", (), "at least one sample"),
                ("validation_data", ([], []), "at least one sample"),
                ("validation_data", (DATA[0][:0], DATA[1][:0]), "at least one sample"),
                ("validation_data", NoBatches(), "at least one sample"),
            ]
        )
    ),
    *(
        (
            f"report-{name}-{number}",
            lambda name=name, value=value: kp.report(model(), **{"x": DATA[0], name: value}),
            text,
        )
        for number, (name, value, text) in enumerate(
            [
                ("x", "data.csv", "Received: x='data.csv'"),
                ("x", 3, "Received: x=3"),
                ("x", [], "Received: x="),
                ("x", DATA[0][:0], "Received: x="),
                ("steps", 0, "Received: steps=0"),
                ("steps", 1.5, "Received: steps=1.5"),
            ]
        )
    ),
    ("sensitivity-uncompiled", lambda: kp.sensitivity(model(), (ONES, ONES)), "compiled=False"),
    ("sensitivity-drop", lambda: results.Sensitivity({}, 0.9, "accuracy", 1).criteria(-1), "Received: max_drop=-1"),
    # Files.
    *(
        (
            f"{name}-path-{value}",
            lambda call=call, value=value: call(value),
            f"string or a path.*Received: {name}={value}",
        )
        for name, call in [
            ("filepath", lambda path: kp.save_sparse(model(), path)),
            ("filepath", kp.load_sparse),
            ("backup_dir", kp.PruningBackup),
        ]
        for value in (None, 3)
    ),
    ("backup-seed", lambda: kp.PruningBackup("backup", seed="a"), "Received: seed='a'"),
    ("load-sparse-bytes", lambda: kp.load_sparse("model.kprune", max_bytes="1G"), "Received: max_bytes='1G'"),
    (
        "save-sparse-suffix",
        lambda: kp.save_sparse(model(), "model.keras"),
        "Use .kprune. Received: filepath='model.keras'",
    ),
    # Deployment.
    (
        "plan-runtime",
        lambda: kp.deployment_plan(model(), "tflite"),
        r"'litert', 'xnnpack'.*: runtime='tflite'",
    ),
    ("plan-no-runtime", lambda: kp.deployment_plan(model(), []), r"must be one of.*Received: runtime=\[\]"),
    ("plan-criterion", lambda: kp.deployment_plan(model()).criteria(None), "criterion=None"),
    ("plan-nothing", lambda: kp.deployment_plan(model(layers.ReLU())), "Received: model="),
]
if not TORCH:  # Sparse layers need TensorFlow or JAX.
    ERRORS += [
        *(
            (f"sparse-dense-{name}", lambda one=one: SparseDense(**SPARSE | one), f"^`{name}` must be .*: {name}=")
            for one in ({"units": 0}, {"connections": -1}, {"connections": 2.5}, {"format": "dense"})
            for name in one
        ),
        ("to-sparse-format", lambda: kp.to_sparse(kp.prune(model()), "fast"), "must be one of .*: format='fast'"),
        ("to-sparse-batch", lambda: kp.to_sparse(kp.prune(model()), batch_size=0), "of at least 1.*: batch_size=0"),
        ("to-sparse-nothing", lambda: kp.to_sparse(model(layers.ReLU()), "csr"), "the model has none"),
    ]


if TENSORFLOW:
    ERRORS += [
        (
            f"tflite-{name}-{number}",
            lambda given=given: kp.export_tflite(model(), **{"filepath": "m.tflite"} | given),
            text,
        )
        for number, (name, given, text) in enumerate(
            [
                ("path", {"filepath": None}, "Received: filepath=None"),
                ("suffix", {"filepath": "model.keras"}, "must end in .tflite.*Received: filepath='model.keras'"),
                ("quantization", {"quantization": "int4"}, "Received: quantization='int4'"),
                ("sparse", {"sparse": "always"}, "Received: sparse='always'"),
                ("tolerance", {"tolerance": True}, "Received: tolerance=True"),
                ("batch", {"batch_size": 0}, "Received: batch_size=0"),
                ("text", {"x": "data.csv"}, "tf.data.Dataset.*Received: x="),
                ("empty", {"x": iter(())}, "tf.data.Dataset.*Received: x="),
                ("calibration", {"quantization": "full_int8"}, "Received: quantization='full_int8', x=None"),
            ]
        )
    ]
if TENSORFLOW or JAX:
    ERRORS += [
        ("xla-path", lambda: kp.export_xla(model(), None, "stablehlo"), "Received: filepath=None"),
        ("xla-format", lambda: kp.export_xla(model(), "model", "hlo"), "Received: format='hlo'"),
    ]


@pytest.mark.parametrize(("call", "message"), [pytest.param(*row, id=name) for name, *row in ERRORS])
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TAKE_A_MODEL = {
    "prune": kp.prune,
    "strip": kp.strip,
    "cut": kp.cut,
    "report": kp.report,
    "regularize": kp.regularize,
    "shares": lambda model: budgets.shares(model, budgets.Uniform(2)),
    "sensitivity": lambda model: kp.sensitivity(model, (ONES, ONES)),
    "iterative_prune": lambda model: kp.iterative_prune(model, [2], x=ONES, y=ONES, validation_data=(ONES, ONES)),
    "deployment_plan": kp.deployment_plan,
    "dead_neurons": kp.dead_neurons,
    "remove_dead_neurons": kp.remove_dead_neurons,
    "to_sparse": kp.to_sparse,
    "save_sparse": lambda model: kp.save_sparse(model, "model.kprune"),
    "compare_runtimes": kp.compare_runtimes,
    "reestimate_batch_norm": lambda model: kp.reestimate_batch_norm(model, ONES),
}
if TENSORFLOW:
    TAKE_A_MODEL["export_tflite"] = lambda model: kp.export_tflite(model, "model.tflite")
if TENSORFLOW or JAX:
    TAKE_A_MODEL["export_xla"] = lambda model: kp.export_xla(model, "model", "stablehlo")


@pytest.mark.parametrize("name", TAKE_A_MODEL)
def test_functions_reject_objects_that_are_not_models(name):
    for wrong in ("model.keras", None, layers.Dense(3)):
        if (name, type(wrong)) != ("cut", layers.Dense):  # A layer with masks can be cut alone.
            with pytest.raises(ValueError, match=r"Expected a Keras 3 model.*Received: model="):
                TAKE_A_MODEL[name](wrong)
    with pytest.raises(ValueError, match=r"TF_USE_LEGACY_KERAS.*Received: model of class tf_keras"):
        TAKE_A_MODEL[name](keras_2_model())


class Unbuilt(keras.Model):
    """A model whose layers are built at its first call."""

    def __init__(self):
        super().__init__()
        self.head = layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


@pytest.mark.parametrize("name", sorted(set(TAKE_A_MODEL) - {"prune", "strip"}))
def test_functions_reject_models_that_are_not_built(name):
    for unbuilt in (keras.Sequential([layers.Dense(3)]), Unbuilt()):
        unbuilt.compile("sgd", "mse")
        with pytest.raises(ValueError, match=r"(on a batch of data first|keras.Input).*Received: "):
            TAKE_A_MODEL[name](unbuilt)


def test_prune_and_strip_take_models_that_are_not_built():
    for unbuilt in (keras.Sequential([layers.Dense(3)]), Unbuilt()):
        assert kp.strip(kp.prune(unbuilt)) is unbuilt


@pytest.mark.parametrize("wrong", ["model.keras", None])
def test_pruned_weights_rejects_other_objects(wrong):
    with pytest.raises(ValueError, match=r"Expected a Keras 3 model or layer. Received: root="):
        kp.layers.pruned_weights(wrong)


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is not None, reason="Matplotlib is installed")
def test_figures_without_matplotlib_name_the_command():
    with pytest.raises(ImportError, match="pip install matplotlib"):
        _ = kp.plots
