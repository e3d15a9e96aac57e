"""Results of `iterative_prune`, and the directory that keeps them so that a killed run can resume."""

import dataclasses
import json
import pathlib
import random
import zlib
from collections.abc import Callable
from typing import Any, NamedTuple

from keras import ops

from keras_prune._processes import gather, process_count
from keras_prune.layers.dropout import DropoutRate
from keras_prune.layers.traversal import layers_in
from keras_prune.layers.weights import pruning_of
from keras_prune.storage.checked_file import add_checksum, atomic_write, verify_checksum


class Round(NamedTuple):
    """Result of one round of `iterative_prune`. The first is the model before pruning.

    Attributes:
        compression: Number of all connections over those kept.
        value: Value of `monitor` on the validation data after retraining.
        within_budget: Whether the value is at most `max_drop` worse than that of the first round.
        seconds: Duration of the round.
    """

    compression: float
    value: float
    within_budget: bool
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the attributes by name."""
        return self._asdict()

    def __repr__(self):
        return f"<Round compression={self.compression:.4g}, value={self.value:.4g}, within_budget={self.within_budget}>"


@dataclasses.dataclass(frozen=True)
class RoundSettings:
    """Settings that a run must share with the run that it resumes.

    Attributes:
        start: Checksum of the weights of the first model.
        criteria: List of the criteria of its weights, as strings. Without paths, because a model that is built again
            in the same process has another name.
        rounds: List of the rounds, as strings.
        max_drop, monitor, mode, learning_rate_fraction: Arguments of `iterative_prune`.
        epochs, batch_size: Arguments of `fit`.
        data: Dict with the fingerprint of each other argument of `fit`, such as `x`, `y` and `validation_data`: dtype,
            shape and checksum of arrays, class, length and `element_spec` of datasets.
    """

    start: int
    criteria: list[str]
    rounds: list[str]
    max_drop: float
    monitor: str
    mode: str
    learning_rate_fraction: float
    epochs: int
    batch_size: int | None
    data: dict[str, str]


class RoundStore:
    """The directory of a run. Without a directory, nothing is kept.

    Attributes:
        seed: Integer, the seed of the run: a random number, or that of the run that is resumed.
    """

    def __init__(self, directory, settings: RoundSettings):
        self.directory: Any = None if directory is None else pathlib.Path(directory)
        self.settings = dataclasses.asdict(settings)
        self.seed = random.randint(1, 10**9)  # As in Keras, `keras.utils.set_random_seed` determines it.

    def load(self, model) -> list[Round]:
        """Loads the last model within the budget into `model`, and returns all rounds so far."""
        self.seed = int(gather(self.seed, model)[0])  # All processes that train the model must draw the same noise.
        if self.directory is None:
            return []
        if (count := process_count(model)) > 1:
            raise ValueError(
                "`directory` only works with one process, because several would have to agree on a round. "
                "Leave it out, and save the model after the call. "
                f"Received: directory={str(self.directory)!r}, in one of {count} processes"
            )
        self.directory.mkdir(parents=True, exist_ok=True)
        if not self._table.exists():
            return []
        saved = self._read_table()
        if saved["settings"] != self.settings:
            raise ValueError(
                "The directory holds a run with another start or other settings. Choose an empty directory, or start "
                f"with the same model and arguments. Received: directory={str(self.directory)!r}, its run has "
                f"{saved['settings']}, this one {self.settings}"
            )
        self.seed = saved["seed"]
        rounds = saved["rounds"]
        file = self._file(max(i for i, one in enumerate(rounds) if one.within_budget))
        # Each round begins with a fresh optimizer, which has no variables for the state in the file.
        optimizer, model.optimizer = model.optimizer, None
        try:
            verify_checksum(file)
            model.load_weights(file)
        except Exception as error:  # Keras and h5py raise anything.
            raise self._damage(file, error) from error
        finally:
            model.optimizer = optimizer
        return rounds

    def save(self, model, rounds) -> None:
        """Saves the model of the last round, and then the table, so that the table never lists a missing file."""
        if self.directory is None:
            return
        with atomic_write(self._file(len(rounds) - 1)) as unfinished:
            model.save(pathlib.Path(unfinished))
            add_checksum(unfinished)
        table = {"settings": self.settings, "seed": self.seed, "rounds": [one.to_dict() for one in rounds]}
        with atomic_write(self._table) as unfinished:
            pathlib.Path(unfinished).write_text(json.dumps({**table, "checksum": _checksum(table)}, indent=2))

    def _read_table(self):
        try:
            table = json.loads(self._table.read_bytes())
            if table.pop("checksum") != _checksum(table):
                raise ValueError("its content does not match its checksum")
            table["rounds"] = [Round(**fields) for fields in table["rounds"]]
        except Exception as error:  # A damaged file can raise any error.
            raise self._damage(self._table, error) from error
        return table

    def _damage(self, file, error):
        return ValueError(
            "The run cannot be resumed, because its directory is damaged. Delete it, or restore the file. "
            f"Received: directory={str(self.directory)!r}, whose {file.name} failed with: {error!s:.1000}"
        )

    @property
    def _table(self):
        return self.directory / "rounds.json"

    def _file(self, index):
        return self.directory / f"round_{index:02d}.keras"


def _checksum(table) -> int:
    return zlib.crc32(json.dumps(table, sort_keys=True).encode())


def state_of(model) -> Callable[[], None]:
    """Returns a function that restores the present weights, masks and dropout rates of a model."""
    # Copies, because JAX donates the arrays themselves to a later training step.
    values = [(variable, ops.copy(variable.value)) for variable in model.variables]
    rates = [(rate, rate.current_rate) for rate in map(pruning_of, layers_in(model)) if isinstance(rate, DropoutRate)]

    def go_back():
        for variable, value in values:
            variable.assign(value)
        for rate, current in rates:
            rate.set_rate(current)

    return go_back
