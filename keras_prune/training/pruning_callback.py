"""Callback that prunes a model during `fit`."""

import functools
import math
import warnings

import keras
from keras import ops

from keras_prune.layers.attachment import attach_dropouts
from keras_prune.layers.hook import override, restore
from keras_prune.layers.masks import connections_of
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import labels, pruned_weights, weights_by_layer
from keras_prune.models.graph import pruned_dropouts
from keras_prune.models.prune_model import forget_compiled_functions
from keras_prune.models.record import plain_class
from keras_prune.rules.schedules import Schedule
from keras_prune.training.cut import cut_weights, follow_connections, weights_to_cut
from keras_prune.training.optimizer_slots import optimizers_of


class PruningCallback(keras.callbacks.Callback):
    """Prune a model during training, following a schedule.

    At each cut, every pruned weight of the model asks its criterion. The pruned connections are zeroed in the stored
    weights and their optimizer slots go back to the initial value, so that nothing moves them again; dropout rates
    follow the connections. Epoch logs gain `sparsity` and, per layer, `density/<layer>`, `threshold/<layer>` and
    `dropout/<layer>`. Put this callback first in the list, so that loggers after it see them. Frozen layers
    (`trainable=False`) are not cut.

    Callbacks that restore earlier weights, such as `EarlyStopping(restore_best_weights=True)`, also restore the
    connections that those weights had. A warning is issued if the restored model is less sparse.

    To resume a run, load the saved model and pass `initial_epoch=<epochs done>`: the masks are in the model, and the
    schedule is a function of time alone.

    Args:
        schedule: A `Schedule`, such as `Iterative(rounds=5, epochs_per_round=4)`.
        adjust_dropout: Boolean, whether the rates of `keras.layers.Dropout` layers follow the connections of the layer
            whose outputs they drop (paper, section 3.2). Which layer that is can be seen in Sequential and Functional
            models; for others, pass a mapping from a regular expression for dropout names to the name of the layer,
            such as `{"drop.*": "fc6"}`. Defaults to `True`.
        verbose: 1 prints one line for each cut, 0 none. Defaults to `1`.

    Raises:
        ValueError: At the start of `fit`, if the model has nothing to prune or the schedule cannot fire in this run.

    Example:

    >>> import keras_prune as kp
    >>> import numpy as np
    >>> model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="fc")])
    >>> model = kp.prune(model, kp.TargetSparsity(0.75))
    >>> model.compile("adam", "mse")
    >>> history = model.fit(
    ...     np.ones((32, 8)), np.ones((32, 4)), epochs=2, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(start=1))]
    ... )
    Epoch 2: cut 24 of 32 connections at strength 1.00; 8 of 32 are left (75.00 % sparse, 4.0x).
    >>> history.history["sparsity"]
    [0.0, 0.75]
    """

    def __init__(self, schedule: Schedule, adjust_dropout: bool | dict[str, str] = True, verbose: int = 1):
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise ValueError(
                "schedule must say when to cut, such as OneShot(), Iterative(rounds=5, epochs_per_round=4) or "
                f"Polynomial(start=0, end=10). Received: schedule={schedule!r}"
            )
        self.schedule = schedule
        self.adjust_dropout = adjust_dropout
        self.verbose = verbose

    def set_model(self, model):
        super().set_model(model)
        # Here, because `on_train_begin` comes after the training step was made, and that of another callback may
        # restore a backup.
        self._look_at(model)
        if self._weights and attach_dropouts(model):
            forget_compiled_functions(model)

    def _look_at(self, model):
        """Finds the pruned weights, which a model that is not built yet has after its first step."""
        self._weights = pruned_weights(model)
        self._is_complete = all(layer.built for layer in layers_in(model))
        self._kept = self._connections()[0]

    def on_train_begin(self, logs=None):
        model = self.model
        if self._is_complete:
            weights_to_cut(model)
        for name, function in (("get_weights", self._get_weights), ("set_weights", self._set_weights)):
            restore(model, name)  # Of a run that was interrupted.
            override(model, name, functools.partial(function))
        # The last callback of every fit: what others restore at its end, EarlyStopping for one, is restored by then.
        model.history.on_train_end = self._look_at_the_end
        self._tie(model)
        self._now = None  # The time up to which cuts are done.

    def _tie(self, model):
        followed = self.adjust_dropout if isinstance(self.adjust_dropout, dict) else None
        # A model that is not built yet has no weights to follow. It is looked at again at the end of the epoch.
        is_known = self._weights or self._is_complete
        self._dropouts = pruned_dropouts(model, followed) if self.adjust_dropout and is_known else []
        dropped = [rate.owner() for rate, _ in self._dropouts]
        self._labels = labels(model, [layer for layer, _ in weights_by_layer(self._weights)] + dropped)

    def on_epoch_begin(self, epoch, logs=None):
        if not self._is_complete:
            self._look_at(self.model)
            self._tie(self.model)
        self._warn_of_more_connections()
        by_step = self.schedule.unit == "step"
        self._batches = self._batches_seen() if by_step else None
        self._per_step = self._batches_per_step() if by_step else None
        if self._now is None:
            # With gradient accumulation a run may go on from the middle of a step, which was cut for when it began.
            begin = math.ceil(self._batches / self._per_step) if by_step else epoch
            self._check_schedule(begin, epoch)
            self._now = begin - 1
        if not by_step:
            self._cut_until(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        # `self.model` is not touched unless a cut is due: on JAX it syncs the whole state.
        if self._batches is not None:
            self._cut_until((self._batches + batch) // self._per_step)

    def on_epoch_end(self, epoch, logs=None):
        if self._batches is not None:
            # Cuts that fell between two executions of several steps each.
            self._cut_until((self._batches_seen() - 1) // self._per_step)
        if not self._is_complete:
            self._look_at(self.model)
            self._tie(self.model)
        self._apply_masks()
        if logs is not None:
            logs.update(self._measurements())

    def _look_at_the_end(self, logs=None):
        del self.model.history.on_train_end
        for name in ("get_weights", "set_weights"):
            restore(self.model, name)
        self._apply_masks()
        self._warn_of_more_connections()

    def _get_weights(self):
        """Returns the weights of the model inside `fit`, where a callback before this one may keep them."""
        self._apply_masks()  # Or a zero that the optimizer has moved would come back as a connection.
        return plain_class(self.model).get_weights(self.model)

    def _set_weights(self, weights):
        """Sets the weights of the model inside `fit`, and restores the connections that they had."""
        plain_class(self.model).set_weights(self.model, weights)
        for weight in self._weights:
            # Pruned connections are stored as zeros, so what is not zero was there.
            weight.mask.assign(ops.logical_or(weight.mask.value, weight.variable.value != 0))
        follow_connections(self._dropouts)
        # Now, not at the end of the epoch: an interrupted `fit` leaves this method on the model until the next one.
        self._warn_of_more_connections()

    def _apply_masks(self):
        for weight in self._weights:
            # Most optimizers leave a zero with a zero gradient alone; Muon, for one, does not.
            weight.apply_mask()

    def _warn_of_more_connections(self):
        kept, total = self._connections()
        if self._kept and kept > self._kept:
            warnings.warn(
                f"The restored weights are less sparse: {kept:,} of {total:,} connections, previously {self._kept:,}. "
                "This usually means that a callback restored an epoch before the last cut.",
                stacklevel=2,
            )
        self._kept = kept

    def _batches_seen(self) -> int:
        # One that `compile` made of its default, and that an own `train_step` does not use, has seen none.
        return max(int(_number(optimizer._iterations)) for optimizer in self._optimizers())

    def _batches_per_step(self) -> int:
        return max(optimizer.gradient_accumulation_steps or 1 for optimizer in self._optimizers())

    def _optimizers(self) -> list:
        return [getattr(optimizer, "inner_optimizer", optimizer) for optimizer in optimizers_of(self.model)]

    def _check_schedule(self, begin: int, epoch: int) -> None:
        """Refuses a schedule that never cuts in this run, and warns of one that does not come to its end."""
        unit, times = self.schedule.unit, self.schedule.times
        epochs, steps = self.params["epochs"] - epoch, self.params.get("steps")
        if unit == "step":
            if steps is None:
                return  # A generator of unknown length: `on_train_end` looks whether anything was cut.
            end = math.ceil((self._batches + epochs * steps) / self._per_step)
        else:
            end = begin + epochs
        # A run that goes on from one that has cut already may well end before the next cut.
        begun = min(times) < begin and self._kept < self._connections()[1]
        if not begun and self.schedule.due(begin - 1, end - 1) is None:
            raise ValueError(
                f"The schedule never cuts in this run: it cuts before {unit} {_listed(times)}, and the run goes from "
                f"{unit} {begin} to {end - 1}. Train longer, or let the schedule begin earlier. "
                f"Received: schedule={type(self.schedule).__name__}, epochs={self.params['epochs']}, steps={steps}"
            )
        if max(times) >= end:
            self._warn_of_the_rest(end - 1)

    def _warn_of_the_rest(self, last: int) -> None:
        unit = self.schedule.unit
        warnings.warn(
            f"The schedule goes on until {unit} {max(self.schedule.times)}, but this run ends after {unit} {last}: "
            f"full strength is not reached unless training continues with initial_epoch={self.params['epochs']}.",
            stacklevel=3,
        )

    def on_train_end(self, logs=None):
        if self._now is None:
            return  # A run that was done already, of which a backup was restored.
        if self._now < min(self.schedule.times):
            warnings.warn(
                f"The run ended before the schedule's first cut, before {self.schedule.unit} "
                f"{min(self.schedule.times)}: nothing was pruned.",
                stacklevel=2,
            )
        elif self.schedule.unit == "step" and self.params.get("steps") is None and self._now < max(self.schedule.times):
            self._warn_of_the_rest(self._now)

    def _cut_until(self, now: int) -> None:
        due = self.schedule.due(self._now, now)
        self._now = max(self._now, now)
        if due is None:
            return
        if keras.backend.backend() == "jax" and self.schedule.unit == "step":
            self.model.jax_state_sync()
        strength = self.schedule(due)
        cuts = cut_weights(weights_to_cut(self.model), strength, optimizers_of(self.model), self._dropouts)
        self._kept = self._connections()[0]
        if self.verbose:
            self._tell(due, strength, cuts)

    def _tell(self, due, strength, cuts):
        kept, total = self._connections()
        line = (
            f"{self.schedule.unit.capitalize()} {due + 1}: cut {sum(cut.cut for cut in cuts):,} of {total:,} "
            f"connections at strength {strength:.2f}; {kept:,} of {total:,} are left "
            f"({1 - kept / total:.2%} sparse, {total / kept:.1f}x)"
        ).replace("%", " %")
        if self._dropouts:
            rates = (f"{rate.owner().name} {rate.current_rate:.2f}" for rate, _ in self._dropouts)
            line += f"; dropout {', '.join(rates)}"
        rescued = [f"{self._labels[id(cut.weight.layer)]}/{cut.weight.name}" for cut in cuts if cut.rescued]
        if rescued:
            line += f"; one connection or block kept in each of {', '.join(rescued)}, which the cut would have emptied"
        print(f"{line}.", flush=True)

    def _connections(self) -> tuple[int, int]:
        return connections_of(self._weights)

    def _measurements(self) -> dict[str, float]:
        kept = {id(weight): weight.kept for weight in self._weights}  # Counted once: on a GPU it takes a transfer.
        values = {"sparsity": 1 - sum(kept.values()) / max(1, sum(weight.size for weight in self._weights))}
        for layer, weights in weights_by_layer(self._weights):
            label = self._labels[id(layer)]
            left = sum(kept[id(weight)] for weight in weights)
            values[f"density/{label}"] = left / sum(weight.size for weight in weights)
            for weight in weights:
                suffix = "" if len(weights) == 1 else f"/{weight.name}"
                values[f"threshold/{label}{suffix}"] = _number(weight.threshold)
        for rate, _ in self._dropouts:
            values[f"dropout/{self._labels[id(rate.owner())]}"] = rate.current_rate
        return values


def _number(variable) -> float:
    # Through NumPy, because a variable under tf.distribute refuses float(), and its value, inside the scope, NumPy.
    return float(keras.ops.convert_to_numpy(variable))


def _listed(times) -> str:
    return ", ".join(map(str, times)) if len(times) <= 6 else f"{times[0]}, {times[1]}, ..., {times[-1]}"
