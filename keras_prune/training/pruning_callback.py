"""Callback that prunes a model during `fit`."""

import textwrap
import warnings

import keras

from keras_prune import _keras
from keras_prune.analysis.measurements import measurements
from keras_prune.layers.attachment import attach_dropouts
from keras_prune.layers.masks import connections_of
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import labels, pruned_weights
from keras_prune.models.graph import pruned_dropouts
from keras_prune.models.prune_model import forget_compiled_functions
from keras_prune.rules.schedules import OneShot, Schedule, default_schedule
from keras_prune.training.clock import Clock
from keras_prune.training.cut import asked_sparsity, cut_weights, require_reachable, weights_to_cut
from keras_prune.training.density_watch import DensityWatch
from keras_prune.training.optimizer_slots import optimizers_of


class PruningCallback(keras.callbacks.Callback):
    """Prune a model during training, following a schedule.

    At each cut, the criterion of every pruned weight selects connections. They are set to zero in the stored weights,
    and their optimizer slots are reset, so that they stay zero. Dropout rates follow the connections. Frozen layers
    (`trainable=False`) are not pruned.

    The epoch logs gain `sparsity`. Put this callback first in the list, so that loggers after it see it. Callbacks that
    restore earlier weights, such as `EarlyStopping(restore_best_weights=True)`, also restore the connections of these
    weights. A warning is issued if the restored model is less sparse.

    To resume a run, load the saved model and pass `initial_epoch=<epochs done>` to `fit`.

    Args:
        schedule: A `Schedule`, such as `Iterative(rounds=5, epochs_per_round=4)`. Defaults to `None`, a cubic rise over
            the first two thirds of the epochs of `fit`, which is printed when `fit` starts.
        adjust_dropout: Boolean, whether the rates of `keras.layers.Dropout` layers follow the connections of the layer
            whose outputs they drop (Han et al. 2015, section 3.2). In Sequential and Functional models, the graph shows
            which layer that is. For other models, pass a dict from a regular expression for dropout names to the name
            of the layer, such as `{"drop.*": "fc6"}`. Defaults to `True`.
        log_layers: Boolean, whether to also log `sparsity/<path>`, `threshold/<path>` and `dropout/<path>` for each
            layer. They lengthen the line that `fit` prints for an epoch. Defaults to `False`.
        verbose: 1 prints one line for each cut, 0 prints nothing. Defaults to `1`.

    Raises:
        ValueError: If `schedule` is not a `Schedule`, or `adjust_dropout` is neither a boolean nor a dict. At the start
            of `fit`, if the model has nothing to prune, if `adjust_dropout` matches nothing, if the run begins after
            the last cut of the schedule, or if a budget cannot be reached.

    Example:

    >>> import keras_prune as kp
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((32, 8)), np.ones((32, 4))
    >>> history = model.fit(x, y, epochs=3, verbose=0, callbacks=[kp.PruningCallback()])
    PruningCallback: Polynomial(start=0, end=2, frequency=1, power=3.0, unit='epoch'), 2 cuts in epochs 2 to 3 of 3.
    Epoch 2: pruned 21 connections at strength 0.88; 11 of 32 left (65.62% sparse, 2.9x).
    Epoch 3: pruned 3 connections at strength 1.00; 8 of 32 left (75.00% sparse, 4.0x).
    >>> history.history["sparsity"]
    [0.0, 0.65625, 0.75]
    """

    def __init__(
        self,
        schedule: Schedule | None = None,
        adjust_dropout: bool | dict[str, str] = True,
        log_layers: bool = False,
        verbose: int = 1,
    ):
        super().__init__()
        if not isinstance(schedule, (Schedule, type(None))):
            raise ValueError(
                "`schedule` must be a Schedule, such as OneShot(), Iterative(rounds=5, epochs_per_round=4) or "
                f"Polynomial(start=0, end=10), or None. Received: schedule={schedule!r}"
            )
        if not isinstance(adjust_dropout, (bool, dict)):
            raise ValueError(
                "`adjust_dropout` must be True, False, or a dict from a pattern for dropouts to the layer that they "
                f'follow, such as {{"drop.*": "fc6"}}. Received: adjust_dropout={adjust_dropout!r}'
            )
        self.schedule = schedule
        self.adjust_dropout = adjust_dropout
        self.log_layers = log_layers
        self.verbose = verbose
        self._clock = Clock(schedule or OneShot())
        self._watch = DensityWatch(self._check_end)
        self._is_complete = self._has_warned = False

    def set_model(self, model):
        super().set_model(model)
        self._watch.set_model(model)
        # Not in `on_train_begin`, which comes after Keras made the training step, and in which other callbacks may
        # restore a backup.
        if pruned_weights(model) and attach_dropouts(model):
            forget_compiled_functions(model)
        self._find_weights()

    def on_train_begin(self, logs=None):
        if self._is_complete:
            weights_to_cut(self.model)
        self._watch.on_train_begin()
        self._has_warned = False
        epochs = self.params["epochs"]
        schedule = self.schedule or default_schedule(epochs)
        self._clock = Clock(schedule)
        if self.schedule is None and self.verbose:
            count, first, last = len(schedule.times), schedule.times[0] + 1, schedule.times[-1] + 1
            when = f"{count} cuts in epochs {first} to {last}" if count > 1 else f"1 cut in epoch {first}"
            print(f"PruningCallback: {schedule}, {when} of {epochs}.", flush=True)

    def on_epoch_begin(self, epoch, logs=None):
        self._find_late_weights()
        self._watch.check()
        is_first = self._clock.done is None
        self._clock.set(epoch, *_batches_of(self.model))
        if is_first:
            self._check_plan()
        self._cut(self._clock.due())

    def on_train_batch_begin(self, batch, logs=None):
        # Without `self.model`, unless a cut may be due: on JAX it synchronizes the whole state.
        if self._clock.is_due(batch):
            batches, accumulation = _batches_of(self.model)
            if batches:  # If a train step has a PyTorch optimizer, no Keras optimizer counts them.
                # A `LossScaleOptimizer` may have skipped updates since the epoch began. They are not steps.
                self._clock.set(self._clock.epoch, batches - batch, accumulation)
            self._cut(self._clock.due(batch))

    def on_epoch_end(self, epoch, logs=None):
        self._clock.set(epoch, *_batches_of(self.model))
        self._cut(self._clock.due(-1))  # Cuts between steps that Keras executed together.
        self._find_late_weights()
        self._watch.apply_masks()
        if logs is not None:
            logs.update(measurements(self.model, self.log_layers))

    def _check_plan(self):
        epochs = self.params["epochs"]
        end = self._clock.end(epochs, self.params.get("steps"))
        kept, total = connections_of(self._watch.weights)
        self._clock.require_cuts(has_cuts=kept < total)
        require_reachable(self._watch.weights)
        if end is not None:
            self._warn(end, epochs)

    def _check_end(self):
        """Warns after all callbacks of a run if the schedule did not end."""
        if self._clock.done is not None:  # Otherwise a backup of a finished run was restored, and no epoch began.
            self._warn(self._clock.now(), self._clock.epoch + 1, at_end=True)

    def _warn(self, end: int, epochs: int, at_end: bool = False) -> None:
        """Warns once if a run that ends at that time leaves out cuts or retraining."""
        kept, total = connections_of(self._watch.weights)
        asked = asked_sparsity(self._watch.weights)
        warning = None
        if self._clock.is_last_step(end):
            warning = (
                f"The last cut comes before the last step of this run, {end - 1}, so that the survivors are not "
                "retrained. End the schedule earlier."
            )
        # An earlier run may have reached full strength. Each weight rounds its number of connections.
        elif asked is None or kept > (1 - asked) * total + len(self._watch.weights):
            warning = self._clock.shortfall(end, epochs)
        if warning is not None and not self._has_warned:
            self._has_warned = True
            aim = "" if asked is None else f", and its criteria ask for {asked:.2%}"
            reached = f" The model is {1 - kept / total:.2%} sparse{aim}." if at_end else ""
            warnings.warn(warning + reached, stacklevel=4)

    def _find_weights(self):
        model = self.model
        self._is_complete = all(layer.built for layer in layers_in(model))
        weights = pruned_weights(model)
        followed = self.adjust_dropout if isinstance(self.adjust_dropout, dict) else None
        self._watch.follow(weights, pruned_dropouts(model, followed) if weights and self.adjust_dropout else [])

    def _find_late_weights(self):
        """Finds the weights of a model that was not built when `fit` started. It has them after its first step."""
        if not self._is_complete:
            self._find_weights()

    def _cut(self, due: int | None) -> None:
        if due is None:
            return
        model, watch = self.model, self._watch
        schedule = self._clock.schedule
        strength = schedule(due)
        assert strength is not None, "a cut is due"
        cuts = cut_weights(weights_to_cut(model), strength, optimizers_of(model), watch.dropouts)
        watch.accept()
        if self.verbose:
            print(f"{schedule.unit.capitalize()} {due + 1}: {self._description(cuts, strength)}", flush=True)

    def _description(self, cuts, strength: float) -> str:
        kept, total = connections_of(self._watch.weights)
        text = (
            f"pruned {sum(cut.cut for cut in cuts):,} connections at strength {strength:.2f}; "
            f"{kept:,} of {total:,} left ({1 - kept / total:.2%} sparse, {total / kept:.1f}x)"
        )
        if rates := sorted(rate.current_rate for rate, _ in self._watch.dropouts):
            text += f"; dropout {' to '.join(dict.fromkeys(f'{rate:.2f}' for rate in (rates[0], rates[-1])))}"
        rescued = [cut.weight for cut in cuts if cut.rescued]
        if rescued:
            names = labels(self.model, [weight.layer for weight in rescued])
            listed = ", ".join(f"{names[id(weight.layer)]}/{weight.name}" for weight in rescued)
            line = f"Only one connection or block is left in {listed}."
            return f"{text}.\n{textwrap.shorten(line, 110, placeholder=' and others.')}"
        return f"{text}."


def _batches_of(model) -> tuple[int, int]:
    """Returns how many batches the optimizers of a model have seen, and how many of them make a step."""
    optimizers = [getattr(optimizer, "inner_optimizer", optimizer) for optimizer in optimizers_of(model)]
    # The maximum, because the default optimizer of `compile` has seen none if a custom train step has its own.
    batches = max((_keras.batches_seen(optimizer) for optimizer in optimizers), default=0)
    return batches, max((optimizer.gradient_accumulation_steps or 1 for optimizer in optimizers), default=1)
