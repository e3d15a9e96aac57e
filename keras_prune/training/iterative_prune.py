"""Prune and retrain a model in rounds, as long as its accuracy holds (Han et al. 2015)."""

import contextlib
import math
import os
import time
import zlib
from collections.abc import Sequence

import keras
from keras import ops

from keras_prune import _keras
from keras_prune._arguments import is_number, require_integer, require_path
from keras_prune.analysis.evaluate import direction, evaluate, require_max_drop
from keras_prune.layers.masks import connections_of
from keras_prune.layers.weights import prunable_weights, pruned_weights
from keras_prune.models.checks import require_connections, require_whole
from keras_prune.models.prune_model import prune
from keras_prune.models.rebuild import recompile
from keras_prune.rules.criteria import Criterion
from keras_prune.rules.schedules import OneShot
from keras_prune.terminal.progress import track, training_bar
from keras_prune.training.backup import PruningBackup
from keras_prune.training.data_fingerprint import fingerprints
from keras_prune.training.pruning_callback import PruningCallback
from keras_prune.training.round_criteria import budget_of_round, criteria_of_round, require_rounds
from keras_prune.training.round_store import Round, RoundSettings, RoundStore, state_of
from keras_prune.training.seeds import reseed


def iterative_prune(
    model,
    rounds: Sequence[float | Criterion],
    max_drop: float = 0.0,
    monitor: str = "accuracy",
    mode: str = "auto",
    learning_rate_fraction: float = 0.1,
    directory: str | os.PathLike | None = None,
    **fit_arguments,
) -> list[Round]:
    """Prune and retrain a model in rounds, as long as its accuracy holds (Han et al. 2015, section 3 and Fig. 2).

    Each round prunes the model, retrains it with a new optimizer, and evaluates it on the validation data. A round
    whose value is out of the budget is retrained once more. If the value stays out of the budget, the rounds end.

    The model is pruned in place. At the end, it has the weights of the sparsest round within the budget, and a new
    optimizer. Its criteria do not change. If it is pruned already, weights without masks are not pruned.

    Args:
        model: Trained and compiled model, plain or pruned.
        rounds: List with the compression of each round, such as `[2, 4, 8]`, or its criterion. If the model has a
            budget, the budget splits the compression. Otherwise all layers are pruned by one common quality, multiplied
            by the quality of a layer with its own `StdThreshold`. A criterion, such as `StdThreshold(1.2)`, applies to
            all layers.
        max_drop: Float, how much worse than at the start `monitor` may become. Defaults to `0.0`.
        monitor: String, `"loss"` or a metric that the model was compiled with. Defaults to `"accuracy"`.
        mode: `"min"` if less is better, `"max"` if more is better, or `"auto"`, as in the callbacks of Keras. Defaults
            to `"auto"`.
        learning_rate_fraction: Float, the learning rate of retraining as a fraction of the optimizer's present one.
            Defaults to `0.1`. The paper takes 1/10 for LeNet and 1/100 for AlexNet. A callback that sets the learning
            rate overrides it.
        directory: Directory that keeps the model of each round, and `rounds.json`. If interrupted, call the function
            again with the same arguments to resume after the last completed round. The resumed run ends with the same
            weights. Only for a model that one process trains. Defaults to `None`.
        **fit_arguments: Arguments of `model.fit` for each retraining. `validation_data` is required. `verbose`
            defaults to `0`.

    Returns:
        List of `Round`, the first for the model before pruning.

    Raises:
        ValueError: If an argument is out of range, the model is not compiled, weights are spread over processes (JAX),
            or `directory` holds another run.

    Example:

    >>> import numpy as np, keras_prune as kp
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse", metrics=["accuracy"])
    >>> rounds = kp.iterative_prune(model, [2, 3], x=x, y=x[:, :1], validation_data=(x, x[:, :1]))
    Budget: accuracy at most 0 worse (more is better). Learning rate: 0.0001 (0.1x; in the paper 0.1x, AlexNet 0.01x).
    round 0: 1.0x, accuracy 0.0000, within the budget
    round 1: 2.0x, accuracy 0.0000, within the budget
    round 2: 3.0x, accuracy 0.0000, within the budget
    """
    _check_values(max_drop, directory, fit_arguments)
    sign = _check(model, rounds, monitor, mode, fit_arguments)
    rate = _learning_rate(model, learning_rate_fraction)
    _print_rule(sign, max_drop, monitor, rate, learning_rate_fraction)
    if not pruned_weights(model):
        prune(model)
    for compression in [aim for aim in rounds if not isinstance(aim, Criterion)]:
        budget_of_round(pruned_weights(model), compression)
    settings = RoundSettings(
        start=_fingerprint(model),
        criteria=[repr(weight.criterion) for weight in prunable_weights(model)],
        rounds=[repr(aim) if isinstance(aim, Criterion) else repr(float(aim)) for aim in rounds],
        max_drop=float(max_drop),
        monitor=monitor,
        mode=mode,
        learning_rate_fraction=float(learning_rate_fraction),
        epochs=int(fit_arguments.get("epochs", 1)),
        batch_size=fit_arguments.get("batch_size"),
        data={} if directory is None else fingerprints(fit_arguments),
    )
    store = RoundStore(directory, settings)
    done = store.load(model)
    if not done:
        done.append(Round(_compression(model), _measure(model, monitor, fit_arguments), True, 0.0))
        store.save(model, done)
    for index in range(len(done)):
        _print_round(done[: index + 1], monitor)
    required = sign * done[0].value - float(max_drop)

    def retrain(callbacks):
        _set_learning_rate(model, rate and rate * learning_rate_fraction)
        own = _callbacks_of(fit_arguments)
        model.fit(**{"verbose": 0, **fit_arguments, "callbacks": [*callbacks, *own, *training_bar("training")]})
        return _measure(model, monitor, fit_arguments)

    for aim in track(rounds[len(done) - 1 :], "rounds"):
        if not done[-1].within_budget:
            break
        with _restored_unless_kept(model, rate) as restore:
            recompile(model, model)
            reseed(model, store.seed + len(done))
            done.append(run_round(model, aim, retrain, lambda value: sign * value >= required))
            store.save(model, done)
            if not done[-1].within_budget:
                restore()
        _print_round(done, monitor)
    recompile(model, model)
    _set_learning_rate(model, rate)
    return done


def run_round(model, aim, retrain, is_good) -> Round:
    """Prunes and retrains a model, and retrains it once more if its value is out of the budget.

    Args:
        model: Pruned model.
        aim: Compression or criterion of the cut.
        retrain: Function of a list of callbacks that trains the model and returns its value.
        is_good: Function of a value that returns whether it is within the budget.
    """
    started = time.time()
    with criteria_of_round(pruned_weights(model), aim):
        value = retrain([PruningCallback(OneShot(), verbose=0)])
    if not is_good(value):
        value = retrain([])
    return Round(_compression(model), value, is_good(value), time.time() - started)


def _check(model, rounds, monitor, mode, fit_arguments) -> int:
    """Raises a `ValueError` if a model cannot be pruned in rounds; returns 1 if more of the metric is better, or -1."""
    require_connections(model)
    require_whole(model)
    require_rounds(rounds)
    if not model.compiled or any(fit_arguments.get(name) is None for name in ("x", "validation_data")):
        raise ValueError(
            "The model is retrained, and evaluated on validation data. Call model.compile(...), and pass x and "
            f"validation_data. Received: model={model.name!r}, compiled={model.compiled}, arguments for fit: "
            f"{sorted(fit_arguments)}"
        )
    callbacks = _callbacks_of(fit_arguments)
    if any(isinstance(callback, PruningCallback) for callback in callbacks):
        raise ValueError(
            "Each round prunes the model itself, and another PruningCallback would prune it again. Leave it out. "
            f"Received: callbacks={callbacks}"
        )
    if any(isinstance(callback, (PruningBackup, keras.callbacks.BackupAndRestore)) for callback in callbacks):
        raise ValueError(
            "A callback that resumes `fit` would skip the rounds after the first. Pass `directory` instead, which "
            f"keeps all rounds. Received: callbacks={callbacks}"
        )
    _measure(model, monitor, fit_arguments, steps=1)  # The metrics of a model exist after this.
    return direction(model, monitor, mode)


def _check_values(max_drop, directory, fit_arguments) -> None:
    """Raises an error for invalid values, before a round spends time."""
    require_max_drop(max_drop)
    require_integer("epochs", fit_arguments.get("epochs", 1), 1)
    if directory is not None:
        require_path("directory", directory)


def _learning_rate(model, fraction: float) -> float | None:
    """Returns the learning rate of a model's optimizer, or `None` if it has a schedule."""
    if not (is_number(fraction) and 0 < fraction < math.inf):
        raise ValueError(
            "`learning_rate_fraction` scales the learning rate for retraining and must be a finite number above 0; 0.1 "
            f"is usual. Received: learning_rate_fraction={fraction!r}"
        )
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # LossScaleOptimizer
    if not _keras.schedule_of(optimizer):
        return float(ops.convert_to_numpy(optimizer.learning_rate))
    if fraction == 1:
        return None
    raise ValueError(
        "A learning rate schedule cannot be scaled. Pass learning_rate_fraction=1, and a schedule made for retraining. "
        f"Received: learning_rate_fraction={fraction}"
    )


def _set_learning_rate(model, rate: float | None) -> None:
    if rate is not None:
        model.optimizer.learning_rate = rate


def _callbacks_of(fit_arguments) -> list:
    return keras.tree.flatten(fit_arguments.get("callbacks") or [])


def _measure(model, monitor, fit_arguments, steps=None) -> float:
    batch_size = fit_arguments.get("validation_batch_size") or fit_arguments.get("batch_size")
    steps = steps or fit_arguments.get("validation_steps")
    return evaluate(model, fit_arguments["validation_data"], monitor, batch_size, steps)


@contextlib.contextmanager
def _restored_unless_kept(model, rate):
    """Context that restores a model and its learning rate if it fails. Yields a function that restores them."""
    restore_state = state_of(model)

    def restore():
        restore_state()
        _set_learning_rate(model, rate)

    try:
        yield restore
    except BaseException:
        restore()
        raise


def _compression(model) -> float:
    kept, total = connections_of(pruned_weights(model))
    return total / kept


def _fingerprint(model) -> int:
    """Returns a checksum of all weights."""
    value = 0
    for weight in model.get_weights():
        value = zlib.crc32(weight.tobytes(), value)
    return value


def _print_rule(sign, max_drop, monitor, rate, fraction) -> None:
    better = "more is better" if sign > 0 else "less is better"
    own = (
        "of the schedule" if rate is None else f"{rate * fraction:g} ({fraction:g}x; in the paper 0.1x, AlexNet 0.01x)"
    )
    print(f"Budget: {monitor} at most {max_drop:g} worse ({better}). Learning rate: {own}.", flush=True)


def _print_round(rounds, monitor) -> None:
    last = rounds[-1]
    budget = "within the budget" if last.within_budget else "out of the budget"
    print(f"round {len(rounds) - 1}: {last.compression:.1f}x, {monitor} {last.value:.4f}, {budget}", flush=True)
