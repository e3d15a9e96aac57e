"""Prune and retrain a model in rounds, while the accuracy holds (Han et al. 2015)."""

import contextlib
import os
import time
import zlib
from collections.abc import Sequence

import keras
from keras import ops
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from keras_prune import _keras
from keras_prune.analysis.evaluate import evaluate
from keras_prune.budgets import quality_for
from keras_prune.layers.masks import connections_of
from keras_prune.layers.weights import prunable_weights, pruned_weights
from keras_prune.models.checks import require_model
from keras_prune.models.prune_model import prune
from keras_prune.models.rebuild import recompile
from keras_prune.rules.criteria import StdThreshold
from keras_prune.rules.schedules import OneShot
from keras_prune.training.backup import PruningBackup
from keras_prune.training.phases import only_trainable, phases_of
from keras_prune.training.pruning_callback import PruningCallback
from keras_prune.training.round_store import Round, RoundStore, state_of
from keras_prune.training.seeds import reseed


def iterative_prune(
    model,
    compressions: Sequence[float] | None = None,
    qualities: Sequence[float] | None = None,
    max_drop: float = 0.0,
    monitor: str = "accuracy",
    learning_rate_fraction: float = 0.1,
    alternate: bool = False,
    directory: str | os.PathLike | None = None,
    seed: int | None = None,
    **fit_arguments,
):
    """Cuts and retrains round by round while the accuracy stays within a budget (paper, section 3 and Fig. 2).

    The model is pruned in place. Every round cuts all layers with one common quality parameter (layers with a
    `StdThreshold` of their own keep their proportion to it, and their pattern), retrains with a fresh optimizer, and
    evaluates on the validation data. A round that breaks the budget is retrained once more; if that does not win the
    accuracy back, the loop ends.

    Args:
        model: Trained and compiled model, plain or pruned. It is changed: at the end it is the sparsest one within the
            budget, pruned, with a fresh optimizer. Weights of a pruned model that have no masks are left alone.
        compressions: Increasing floats above 1, the compression that each round is to reach; the quality is found by
            bisection (`quality_for`). Defaults to `None`; give either this or `qualities`.
        qualities: Floats above 0, the quality parameter of each round. Defaults to `None`.
        max_drop: Float, how far `monitor` may fall below its value for `model`. Defaults to `0.0`.
        monitor: String, a metric that the model was compiled with, of which more is better. Defaults to `"accuracy"`.
        learning_rate_fraction: Float, the learning rate of retraining as a fraction of the optimizer's present one.
            Defaults to `0.1`, the paper's for LeNet. A callback that sets the learning rate overrides it.
        alternate: Boolean, whether to retrain twice in each round: the dense layers with the convolutions held fixed,
            then the reverse, as the paper does. Defaults to `False`.
        directory: Folder in which every round is kept as a `.keras` file beside `rounds.json`. If interrupted,
            call the function again with the same arguments to resume after the last whole round. Defaults to `None`.
        seed: Integer, Keras's random seed is set to `seed` + round before each round: with it a continued run ends as
            one that was never killed. Defaults to `None`.
        **fit_arguments: What `model.fit` takes for every retraining, `validation_data` among it.

    Returns:
        The list of all `Round`s.

    Raises:
        ValueError: If an argument is out of range, the model is not compiled, or `directory` holds another run.

    Example:

    >>> import numpy as np, keras_prune as kp
    >>> x = np.random.default_rng(0).normal(size=(64, 8))
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(10), keras.layers.Dense(1)])
    >>> model.compile("adam", "mse", metrics=["accuracy"])
    >>> rounds = kp.iterative_prune(model, compressions=[2, 3], x=x, y=x[:, :1], validation_data=(x, x[:, :1]))
    round 0: 1.0x, accuracy 0.0000, within the budget
    round 1: 2.0x, accuracy 0.0000, within the budget
    round 2: 3.0x, accuracy 0.0000, within the budget
    """
    aims = _aims(compressions, qualities)
    callbacks_given = _checked_callbacks(model, monitor, fit_arguments)
    learning_rate, reduced = _learning_rates(model, learning_rate_fraction)
    if not pruned_weights(model):
        model = prune(model)
    _require_common_quality(model)
    store = RoundStore(
        directory,
        start=_fingerprint(model),
        # Without paths: a model that is built again in one process has another name.
        criteria=[repr(weight.criterion) for weight in prunable_weights(model)],
        aims=aims,
        max_drop=float(max_drop),
        monitor=monitor,
        learning_rate_fraction=learning_rate_fraction,
        alternate=alternate,
        seed=seed,
        epochs=int(fit_arguments.get("epochs", 1)),
        batch_size=fit_arguments.get("batch_size"),
    )
    rounds = store.load(model)
    phases = phases_of(model, alternate)
    epochs = fit_arguments.get("epochs", 1) * len(phases)

    def measure():
        batch_size = fit_arguments.get("validation_batch_size") or fit_arguments.get("batch_size")
        steps = fit_arguments.get("validation_steps")
        return evaluate(model, fit_arguments["validation_data"], monitor, batch_size, steps)

    with _progress((len(aims) + 1 - max(1, len(rounds))) * epochs) as progress:

        def train(callbacks):
            for phase in phases:
                with only_trainable(model, phase):
                    if reduced is not None:
                        model.optimizer.learning_rate = reduced
                    own = [*callbacks_given, _Advance(progress)]
                    # Under `alternate`, each phase cuts the layers that it then retrains, if there are any.
                    cuts = callbacks if any(not weight.frozen for weight in pruned_weights(model)) else []
                    model.fit(**{"verbose": 0, **fit_arguments, "callbacks": [*cuts, *own]})
            return measure()

        if not rounds:
            rounds.append(Round(_compression(model), 0.0, measure(), True, 0.0))
            store.save(model, rounds)
        for done in range(len(rounds)):
            _tell(progress, rounds[: done + 1], monitor)
        required = rounds[0].value - float(max_drop)
        for index, (is_compression, aim) in enumerate(aims[len(rounds) - 1 :], start=len(rounds)):
            if not rounds[-1].within_budget:
                break
            started = time.time()
            with _state_kept(model, learning_rate) as go_back:
                recompile(model, model)
                if seed is not None:
                    reseed(model, seed + index)
                quality = quality_for(model, aim) if is_compression else aim
                with _common_quality(model, quality):
                    value = train([PruningCallback(OneShot(), verbose=0)])
                if not value >= required:  # NaN, too.
                    value = train([])
                rounds.append(Round(_compression(model), quality, value, value >= required, time.time() - started))
                store.save(model, rounds)
            _tell(progress, rounds, monitor)
            if not value >= required:
                go_back()
    recompile(model, model)
    if learning_rate is not None:
        model.optimizer.learning_rate = learning_rate
    return rounds


def _checked_callbacks(model, monitor, fit_arguments) -> list:
    """Raises a `ValueError` if a model cannot be retrained, and returns the callbacks for `fit`."""
    require_model(model)
    if not model.compiled or fit_arguments.get("validation_data") is None:
        raise ValueError(
            "iterative_prune retrains a compiled model and evaluates it on validation data: call model.compile(...) "
            f"and pass validation_data. Received: model={model.name!r}, compiled={model.compiled}, arguments for fit: "
            f"{sorted(fit_arguments)}"
        )
    callbacks_given = keras.tree.flatten(fit_arguments.get("callbacks") or [])
    if any(isinstance(callback, (PruningBackup, keras.callbacks.BackupAndRestore)) for callback in callbacks_given):
        raise ValueError(
            "A callback that resumes a killed fit would carry one round into the next: pass directory "
            f"instead, which keeps every round. Received: callbacks={callbacks_given}"
        )
    if monitor == "loss":
        raise ValueError(
            "The budget is for a metric of which more is better, such as 'accuracy'; of the loss, less is. "
            "Received: monitor='loss'"
        )
    return callbacks_given


def _aims(compressions, qualities) -> list[tuple[bool, float]]:
    """Returns, for each round, whether its aim is a compression, and the aim."""
    if (compressions is None) == (qualities is None):
        raise ValueError(
            "The strength of the rounds is given either as compressions, such as [2, 4, 8], or as qualities, such as "
            f"[0.5, 0.8, 1.1]. Received: compressions={compressions}, qualities={qualities}"
        )
    aims = [float(aim) for aim in (qualities if compressions is None else compressions)]
    if (
        not aims
        or min(aims) <= (0 if compressions is None else 1)
        or (compressions is not None and aims != sorted(aims))
    ):
        raise ValueError(
            "Each round needs a compression above 1, in increasing order, or a quality above 0. "
            f"Received: compressions={compressions}, qualities={qualities}"
        )
    return [(compressions is not None, aim) for aim in aims]


def _learning_rates(model, fraction) -> tuple[float | None, float | None]:
    """Returns the learning rate of the optimizer and that of retraining; neither, where a schedule stays."""
    if not fraction > 0:
        raise ValueError(
            "learning_rate_fraction scales the learning rate for retraining and must be above 0; 0.1 is usual. "
            f"Received: learning_rate_fraction={fraction}"
        )
    optimizer = getattr(model.optimizer, "inner_optimizer", model.optimizer)  # Of a LossScaleOptimizer.
    if _keras.schedule_of(optimizer):
        if fraction == 1:
            return None, None
        raise ValueError(
            "A learning-rate schedule cannot be scaled; pass learning_rate_fraction=1 and a schedule made for "
            f"retraining. Received: learning_rate_fraction={fraction}"
        )
    learning_rate = float(ops.convert_to_numpy(optimizer.learning_rate))
    return learning_rate, learning_rate * fraction


def _require_common_quality(model) -> None:
    for weight in pruned_weights(model):
        if not isinstance(weight.criterion, StdThreshold):
            raise ValueError(
                "iterative_prune cuts every layer by one common quality, which takes StdThreshold criteria. "
                f"Received: layer {weight.layer.name!r} with criterion={weight.criterion}"
            )


@contextlib.contextmanager
def _state_kept(model, learning_rate):
    """Yields a function that restores the model of now. A round that fails or is interrupted restores it, too."""
    go_back = state_of(model)
    try:
        yield go_back
    except BaseException:
        go_back()
        if learning_rate is not None:
            model.optimizer.learning_rate = learning_rate
        raise


@contextlib.contextmanager
def _common_quality(model, quality):
    """Multiplies the quality of every weight while the context lasts."""
    criteria = [(weight, weight.criterion) for weight in pruned_weights(model)]
    for weight, criterion in criteria:
        weight.criterion = StdThreshold(criterion.quality * quality, criterion.pattern)
    try:
        yield
    finally:
        for weight, criterion in criteria:
            weight.criterion = criterion


def _compression(model) -> float:
    kept, total = connections_of(pruned_weights(model))
    return total / kept


def _fingerprint(model) -> int:
    """A checksum of all weights, which tells one starting model from another."""
    value = 0
    for weight in model.get_weights():
        value = zlib.crc32(weight.tobytes(), value)
    return value


class _Advance(keras.callbacks.Callback):
    """Moves the progress bar on by an epoch."""

    def __init__(self, progress):
        super().__init__()
        self.progress = progress

    def on_epoch_end(self, epoch, logs=None):
        self.progress.advance(self.progress.task_ids[0])


def _progress(epochs) -> Progress:
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    # Without a terminal the bar would only leave an empty line behind; the lines that `_tell` prints say enough.
    progress = Progress(*columns, transient=True, disable=not Console().is_terminal)
    progress.add_task("epochs", total=epochs)
    return progress


def _tell(progress, rounds, monitor):
    last = rounds[-1]
    line = f"round {len(rounds) - 1}: {last.compression:.1f}x, {monitor} {last.value:.4f}, "
    line += "within the budget" if last.within_budget else "out of the budget"
    print(line, flush=True)
    progress.update(progress.task_ids[0], description=f"{line}; epochs")
