"""Errors of public functions say what is wrong, what is expected, and what was received."""

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
NAN = float("nan")
SPARSE = {"units": 3, "connections": 4}


def model(*inner, inputs=8):
    """Returns a small model, by default with the layers "hidden", "drop" and "head"."""
    inner = inner or (layers.Dense(4, name="hidden"), layers.Dropout(0.5, name="drop"), layers.Dense(3, name="head"))
    return keras.Sequential([keras.Input((inputs,)), *inner])


def keras_2_model():
    module = {"__module__": "tf_keras.src.engine.sequential", "layers": []}
    return type("Sequential", (), module)()


def build(layer, shape=(2, 5, 8)):
    kp.Prune(layer).build(shape)


def shares(compression, frozen=False):
    """Asks for the budget of weights with 400 and 100 connections."""
    candidates = [Candidate(np.ones((20, n)), np.ones((20, n), "bool"), frozen and n == 20) for n in (20, 5)]
    return budgets.Uniform(compression).shares(candidates)


def cut_not_finite():
    pruned = kp.prune(model(), HALF)
    pruned.layers[-1].kernel.assign(ops.full((4, 3), NAN))
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
    ("schedule-no-times", lambda: kp.Schedule([]), "must be increasing"),
    ("schedule-falling-times", lambda: kp.Schedule([2, 1]), "must be increasing"),
    ("schedule-equal-times", lambda: kp.Schedule([1, 1]), "must be increasing"),
    # Criteria and patterns.
    *(
        (
            f"criterion-strength-{value}",
            lambda value=value: HALF(ONES, strength=value),
            "`strength` must be above 0.*: strength=",
        )
        for value in (0.0, -0.1, 1.1, NAN)
    ),
    *(
        (f"quality-{value}", lambda value=value: kp.StdThreshold(value), "finite number above 0.*Received: quality=")
        for value in (0, -1.0, NAN, float("inf"), "1", None, [0.5])
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
    ("budget-compression", lambda: budgets.Uniform(1), "must be above 1.*Received: compression=1"),
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
    (
        "prune-keras-2",
        lambda: kp.prune(keras_2_model()),
        "TF_USE_LEGACY_KERAS.*Received: model of class tf_keras",
    ),
    (
        "strip-keras-2",
        lambda: kp.strip(keras_2_model()),
        "TF_USE_LEGACY_KERAS.*Received: model of class tf_keras",
    ),
    ("prune-layer", lambda: kp.prune(layers.Dense(3)), "For a single layer, use keras_prune.Prune.*Received: model="),
    ("prune-nothing", lambda: kp.prune(model(layers.ReLU())), "nothing to prune"),
    ("prune-none-chosen", lambda: kp.prune(model(), lambda layer: None), "nothing to prune.*Received: model=.*'drop'"),
    ("prune-unmatched", lambda: kp.prune(model(), {"dense_1": HALF}), "'dense_1' does not match.*'hidden'.*'head'"),
    ("prune-text", lambda: kp.prune(model(), "magnitude"), "a Criterion such as.*Received: criterion='magnitude'"),
    ("prune-callable", lambda: kp.prune(model(), lambda one: "half"), "or None. .*criterion='half' for layer 'hidden'"),
    ("prune-integer", lambda: kp.prune(model(), {"head": 1}), "below 1; .*Received: sparsity=1"),
    ("prune-sparsity", lambda: kp.prune(model(), {"head": 1.5}), "below 1; .*Received: sparsity=1.5"),
    ("prune-model-sparsity", lambda: kp.prune(model(), 1.5), "above 0 and below 1.*Received: criterion=1.5"),
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
    ("cut-optimizer", cut_with_an_optimizer_that_cannot_be_rebuilt, r"created from its `get_config\(\)`.*of class Own"),
    # regularize.
    ("regularize-factor", lambda: kp.regularize(model(), l1=-1), "Received: l1=-1"),
    ("regularize-nothing", lambda: kp.regularize(model(layers.ReLU()), l2=0.1), "has no connections"),
    # Training and analysis.
    ("callback-schedule", lambda: kp.PruningCallback(3), r"OneShot\(\).*Received: schedule=3"),
    ("sensitivity-uncompiled", lambda: kp.sensitivity(model(), (ONES, ONES)), "compiled=False"),
    ("sensitivity-drop", lambda: results.Sensitivity({}, 0.9, "accuracy", 1).criteria(-1), "Received: max_drop=-1"),
    # Deployment.
    (
        "plan-runtime",
        lambda: kp.deployment_plan(model(), "tflite"),
        r"'litert', 'xnnpack'.*: runtime='tflite'",
    ),
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


@pytest.mark.parametrize(("call", "message"), [pytest.param(*row, id=name) for name, *row in ERRORS])
def test_errors_say_what_was_received(call, message):
    with pytest.raises(ValueError, match=message):
        call()


TAKE_A_MODEL = {
    "prune": kp.prune,
    "strip": kp.strip,
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
}
if TENSORFLOW:
    TAKE_A_MODEL["export_tflite"] = lambda model: kp.export_tflite(model, "model.tflite")
if TENSORFLOW or JAX:
    TAKE_A_MODEL["export_xla"] = lambda model: kp.export_xla(model, "model", "stablehlo")


@pytest.mark.parametrize("name", TAKE_A_MODEL)
def test_functions_reject_what_is_not_a_model(name):
    for wrong in ("model.keras", layers.Dense(3)):
        with pytest.raises(ValueError, match=r"Expected a Keras 3 model.*Received: model="):
            TAKE_A_MODEL[name](wrong)
