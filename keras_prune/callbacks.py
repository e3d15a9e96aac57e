"""The callback: the only place where time, criteria and masks meet."""

import math
import warnings

import keras

from keras_prune.cutting import cut_layers, layers_to_cut
from keras_prune.graph import pruned_dropouts, pruned_layers, submodels
from keras_prune.schedules import Schedule
from keras_prune.slots import optimizers_of


class PruningCallback(keras.callbacks.Callback):
    """Cuts connections inside `model.fit` when the schedule says so.

    At each cut, every `Prune` layer of the model asks its criterion; the cut connections are zeroed in the stored
    weights and their optimizer slots go back to the initial value, so that nothing moves them again; dropout rates
    follow the connections. Epoch logs gain `sparsity` and, per layer, `density/<layer>`, `threshold/<layer>` and
    `dropout/<layer>`. Put this callback first in the list, so that loggers after it see them. Layers that are frozen
    (`trainable=False`) are not cut. A callback that brings weights back from a time with more connections, such as
    `EarlyStopping(restore_best_weights=True)`, brings their masks back too, and a warning tells.

    A run that was stopped goes on with the saved model and `initial_epoch=<epochs done>`: the masks are in the
    model, and the schedule is a function of time alone.

    Args:
        schedule: A `Schedule`, such as `Iterative(rounds=5, epochs_per_round=4)`.
        adjust_dropout: Boolean, whether the rates of `PrunedDropout` layers follow the connections (paper, section
            3.2). Defaults to `True`.
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
    ...     np.ones((32, 8)), np.ones((32, 4)), epochs=2, verbose=0, callbacks=[kp.PruningCallback(kp.OneShot(at=1))]
    ... )
    Epoch 2: cut 24 of 32 connections at strength 1.00; 8 of 32 are left (75.00 % sparse, 4.0x).
    >>> history.history["sparsity"]
    [0.0, 0.75]
    """

    def __init__(self, schedule: Schedule, adjust_dropout: bool = True, verbose: int = 1):
        super().__init__()
        if not isinstance(schedule, Schedule):
            raise ValueError(
                "schedule must say when to cut, such as OneShot(), Iterative(rounds=5, epochs_per_round=4) or "
                f"PolynomialDecay(begin=0, end=10). Received: schedule={schedule!r}"
            )
        self.schedule = schedule
        self.adjust_dropout = adjust_dropout
        self.verbose = verbose

    def set_model(self, model):
        super().set_model(model)
        self._layers = pruned_layers(model)
        # Here, because the `on_train_begin` of another callback may bring a backup back.
        self._kept = self._connections()[0] if self._layers else 0

    def on_train_begin(self, logs=None):
        layers_to_cut(self.model)
        # The last callback of every fit: what others restore at its end, EarlyStopping for one, is restored by then.
        self.model.history.on_train_end = self._look_at_the_end
        self._dropouts = pruned_dropouts(self.model) if self.adjust_dropout else []
        self._names: dict[int, str] = {}  # For the logs: layers of two nested models may have the same name.
        for model in submodels(self.model):
            for layer in model.layers:
                taken = layer.name in self._names.values()
                self._names.setdefault(id(layer), f"{model.name}/{layer.name}" if taken else layer.name)
        self._now = None  # The time up to which cuts are done.

    def on_epoch_begin(self, epoch, logs=None):
        self._tell_of_more_connections()
        by_step = self.schedule.unit == "step"
        self._batches = self._batches_seen() if by_step else None
        if self._now is None:
            # With gradient accumulation a run may go on from the middle of a step, which was cut for when it began.
            begin = math.ceil(self._batches / self._batches_per_step()) if by_step else epoch
            self._check_schedule(begin, epoch)
            self._now = begin - 1
        if not by_step:
            self._cut_until(epoch)

    def on_train_batch_begin(self, batch, logs=None):
        if self._batches is not None:
            self._cut_until((self._batches + batch) // self._batches_per_step())

    def on_epoch_end(self, epoch, logs=None):
        if self._batches is not None:
            # Cuts that fell between two executions of several steps each.
            self._cut_until((self._batches_seen() - 1) // self._batches_per_step())
        self._apply_masks()
        if logs is not None:
            logs.update(self._measurements())

    def _look_at_the_end(self, logs=None):
        del self.model.history.on_train_end
        self._apply_masks()
        self._tell_of_more_connections()

    def _apply_masks(self):
        for layer in self._layers:
            # Most optimizers leave a zero with a zero gradient alone; Muon, for one, does not.
            layer.apply_masks()

    def _tell_of_more_connections(self):
        kept, total = self._connections()
        if self._kept and kept > self._kept:
            warnings.warn(
                f"Weights were restored from a time with more connections: {kept:,} of {total:,} are left now, where "
                f"there were {self._kept:,}.",
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
            end = math.ceil((self._batches + epochs * steps) / self._batches_per_step())
        else:
            end = begin + epochs
        # A run that goes on from one that has cut already may well end before the next cut.
        begun = min(times) < begin and any(layer.density < 1 for layer in self._layers)
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
        strength = self.schedule.strength(due)
        cuts = cut_layers(layers_to_cut(self.model), strength, optimizers_of(self.model), self._dropouts)
        self._kept = self._connections()[0]
        if self.verbose:
            self._tell(due, strength, cuts)

    def _tell(self, due, strength, cuts):
        kept, total = self._connections()
        line = (
            f"{self.schedule.unit.capitalize()} {due + 1}: cut {sum(cut.cut for _, cut in cuts):,} of {total:,} "
            f"connections at strength {strength:.2f}; {kept:,} of {total:,} are left "
            f"({1 - kept / total:.2%} sparse, {total / kept:.1f}x)"
        ).replace("%", " %")
        if self._dropouts:
            rates = (f"{dropout.name} {_number(dropout.current_rate):.2f}" for dropout, _ in self._dropouts)
            line += f"; dropout {', '.join(rates)}"
        rescued = [f"{layer.name}/{cut.weight.name}" for layer, cut in cuts if cut.rescued]
        if rescued:
            line += f"; one connection or block kept in each of {', '.join(rescued)}, which the cut would have emptied"
        print(f"{line}.", flush=True)

    def _connections(self) -> tuple[int, int]:
        return tuple(map(sum, zip(*(layer.connections for layer in self._layers), strict=True)))

    def _measurements(self) -> dict[str, float]:
        kept, total = self._connections()
        values = {"sparsity": 1 - kept / total}
        for layer in self._layers:
            name = self._names.get(id(layer), layer.name)
            values[f"density/{name}"] = layer.density
            for weight in layer.pruned_weights:
                suffix = "" if len(layer.pruned_weights) == 1 else f"/{weight.name}"
                values[f"threshold/{name}{suffix}"] = _number(weight.threshold)
        for dropout, _ in self._dropouts:
            values[f"dropout/{self._names[id(dropout)]}"] = _number(dropout.current_rate)
        return values


def _number(variable) -> float:
    # By way of NumPy, because a variable under tf.distribute refuses float(), and its value, inside the scope, NumPy.
    return float(keras.ops.convert_to_numpy(variable))


def _listed(times) -> str:
    return ", ".join(map(str, times)) if len(times) <= 6 else f"{times[0]}, {times[1]}, ..., {times[-1]}"
