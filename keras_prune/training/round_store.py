"""Rounds: what `iterative_prune` measured, and the folder that keeps them so that a killed run can go on."""

import json
import os
import pathlib
from collections.abc import Callable
from typing import NamedTuple

from keras import ops

from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import pruning_of


class Round(NamedTuple):
    """One round of the loop; the first is the model as it came.

    Attributes:
        compression: Connections in all over connections kept.
        quality: Common quality parameter of the cut; 0 where nothing was cut.
        value: What `monitor` says on the validation data after retraining.
        within_budget: Whether the value is at most `max_drop` below that of the first round.
        seconds: What the round took.
    """

    compression: float
    quality: float
    value: float
    within_budget: bool
    seconds: float


class RoundStore:
    """The folder of a run; without one, nothing is kept."""

    def __init__(self, directory, **settings):
        self.directory = None if directory is None else pathlib.Path(directory)
        self.settings = json.loads(json.dumps(settings))

    def load(self, model) -> list[Round]:
        """Gives `model` the weights of the last round within the budget, and returns all rounds so far."""
        if self.directory is None:
            return []
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._table.exists():
            return []
        saved = json.loads(self._table.read_text())
        if saved["settings"] != self.settings:
            raise ValueError(
                "The directory holds a run with another start or other settings; choose an empty one, or start again "
                f"with the same model and arguments. Received: directory={str(self.directory)!r}, its run has "
                f"{saved['settings']}, this one {self.settings}"
            )
        rounds = [Round(**fields) for fields in saved["rounds"]]
        # Every round begins with a fresh optimizer, which has no variables for the state in the file.
        optimizer, model.optimizer = model.optimizer, None
        try:
            model.load_weights(self._file(max(i for i, r in enumerate(rounds) if r.within_budget)))
        finally:
            model.optimizer = optimizer
        return rounds

    def save(self, model, rounds) -> None:
        """Keeps the model of the last round; the table is replaced last, so that it never speaks of a missing file."""
        if self.directory is None:
            return
        file = self._file(len(rounds) - 1)
        model.save(file.with_name(f"partial_{file.name}"))
        os.replace(file.with_name(f"partial_{file.name}"), file)
        partial = self._table.with_suffix(".partial")
        fields = [one._asdict() for one in rounds]
        partial.write_text(json.dumps({"settings": self.settings, "rounds": fields}, indent=2))
        os.replace(partial, self._table)

    @property
    def _table(self):
        return self.directory / "rounds.json"

    def _file(self, index):
        return self.directory / f"round_{index:02d}.keras"


def state_of(model) -> Callable[[], None]:
    """Returns a function that gives a model the weights, masks and dropout rates back that it has now."""
    # Copies, because JAX hands the very arrays on, and a later training step donates them.
    values = [(variable, ops.copy(variable.value)) for variable in model.variables]
    rates = [(rate, rate.current_rate) for rate in map(pruning_of, layers_in(model)) if isinstance(rate, DropoutRate)]

    def go_back():
        for variable, value in values:
            variable.assign(value)
        for rate, current in rates:
            rate.set_rate(current)

    return go_back
