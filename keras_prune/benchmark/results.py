"""Results of a benchmark."""

import collections
import dataclasses
import importlib.metadata
import itertools
import math
import operator
import platform
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras

from keras_prune.benchmark.engine import threads
from keras_prune.rules.patterns import Pattern
from keras_prune.terminal.tables import Table, table_with_lines

_LIBRARIES = ("tensorflow", "keras", "jax", "torch", "ai-edge-litert", "scipy", "mkl", "numpy")


class Measurement(NamedTuple):
    """Times of one engine on one workload and batch size: a row of `Results`.

    Attributes:
        workload: Name of the `Workload`.
        density: Share of its connections that survive.
        batch_size: Inputs per call.
        engine: Name of the `Engine`.
        runtime: Name of its runtime.
        pattern: `Pattern` of the zeros in the weights.
        baseline: Whether the engine computes densely in float32.
        quantized: Whether the engine rounds weights to 8 bits.
        microseconds: Median of the calls.
        low: Lower quartile of the calls, in microseconds.
        high: Upper quartile of the calls, in microseconds.
        calls: Number of timed calls.
        weight_bytes: Memory of the weights.
        difference: Largest difference from the dense outputs, as a share of the largest output.
        speed_up: Time of the fastest dense engine on the same workload and batch size, over the time of this engine.
            `None` without a dense engine.
    """

    workload: str
    density: float
    batch_size: int
    engine: str
    runtime: str
    pattern: Pattern
    baseline: bool
    quantized: bool
    microseconds: float
    low: float
    high: float
    calls: int
    weight_bytes: int
    difference: float
    speed_up: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Returns the values of the row by name."""
        return self._asdict() | {"pattern": repr(self.pattern)}


class Crossover(NamedTuple):
    """Density below which a sparse engine is faster than the fastest dense engine.

    Attributes:
        workload: Name of the `Workload`.
        batch_size: Inputs per call.
        engine: Name of the `Engine`.
        density: Float, interpolated between the logarithms of densities and speed-ups. 0 if the engine is slower at all
            densities, and infinity if it is always faster.
    """

    workload: str
    batch_size: int
    engine: str
    density: float

    def to_dict(self) -> dict[str, Any]:
        """Returns the values by name. An infinite density is `None`."""
        return self._asdict() | {"density": self.density if math.isfinite(self.density) else None}

    def __str__(self):
        below = f"below a density of {self.density:.1%}" if math.isfinite(self.density) else "at all these densities"
        comparison = f"faster than dense {below}" if self.density else "slower than dense at all these densities"
        return f"{self.workload}, batch {self.batch_size}: {self.engine} is {comparison}"


@dataclasses.dataclass(frozen=True, repr=False)
class Results:
    """Results of a benchmark. `print` them for the table.

    Attributes:
        rows: List of `Measurement`.
        refused: Dict from `(workload, engine)` to the reason why the engine was not timed on the workload.
        skipped: Dict from the name of each workload that no engine can run to the reason.
        absent: Dict from the name of each engine that cannot run on this machine to the reason.
        machine: Dict of the hardware and library versions.
    """

    rows: list[Measurement]
    refused: dict[tuple[str, str], str]
    skipped: dict[str, str]
    absent: dict[str, str]
    machine: dict[str, object]

    def groups(self) -> list[list[Measurement]]:
        """Returns the rows in lists with the same workload, density and batch size."""
        key = operator.attrgetter("workload", "density", "batch_size")
        return [list(group) for _, group in itertools.groupby(self.rows, key)]

    def crossovers(self) -> list[Crossover]:
        """Returns a `Crossover` for each engine that was measured at several densities."""
        curves: dict[tuple[str, int, str], list] = collections.defaultdict(list)
        for row in self.rows:
            if row.speed_up is not None and not row.baseline:
                curves[row.workload, row.batch_size, row.engine].append((row.density, row.speed_up))
        return [Crossover(*key, _crossover(sorted(points))) for key, points in curves.items() if len(points) > 1]

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON types."""
        return {
            "machine": dict(self.machine),
            "rows": [row.to_dict() for row in self.rows],
            "crossovers": [crossover.to_dict() for crossover in self.crossovers()],
            "skipped": dict(self.skipped),
            "absent": dict(self.absent),
            "refused": [{"workload": w, "engine": e, "reason": reason} for (w, e), reason in self.refused.items()],
        }

    def __repr__(self):
        return f"<Results: {len(self.rows)} measurements on {self.machine.get('device')}>"

    def __str__(self):
        title = "fastest of each row: *, speed-up over its fastest dense float32 engine"
        table = Table(title, ["workload", "engine"], ("density", "batch", "us", "quartiles", "speed-up", "weights, MB"))
        for group in self.groups():
            fastest = min(row.microseconds for row in group)
            for row in group:
                star = "*" if row.microseconds == fastest else " "
                table.add_row(
                    row.workload,
                    row.engine,
                    f"{row.density:.1%}",
                    str(row.batch_size),
                    f"{row.microseconds:,.0f}",
                    f"{row.low:,.0f}-{row.high:,.0f}",
                    "-" if row.speed_up is None else f"{star}{row.speed_up:.2f}x",
                    f"{row.weight_bytes / 1e6:,.2f}",
                )
            table.add_section()
        lines = [str(crossover) for crossover in self.crossovers()]
        lines += [f"left out: {name} - {reason}" for name, reason in self.skipped.items()]
        lines += [f"absent: {name} - {reason}" for name, reason in self.absent.items()]
        lines += [
            f"not timed: {engine} on {workload} - {reason}" for (workload, engine), reason in self.refused.items()
        ]
        lines.append("measured on: " + ", ".join(f"{key} {value}" for key, value in self.machine.items()))
        return table_with_lines(table, lines)


def with_speed_ups(rows: Sequence[Measurement]) -> list[Measurement]:
    """Returns measurements of one workload and batch size with their speed-up over the fastest dense engine."""
    dense = min((row.microseconds for row in rows if row.baseline), default=None)
    return [row if dense is None else row._replace(speed_up=dense / row.microseconds) for row in rows]


def this_machine(device: str) -> dict[str, object]:
    """Returns processor, cores, device and library versions, which measurements depend on."""
    versions = {}
    for library in _LIBRARIES:
        try:
            versions[library] = importlib.metadata.version(library)
        except importlib.metadata.PackageNotFoundError:
            continue
    return {
        "processor": platform.machine(),
        "cores": threads(),
        "device": device,
        "Keras backend": keras.backend.backend(),
        "Python": platform.python_version(),
        **versions,
    }


def _crossover(points) -> float:
    """Returns the density below which a curve of `(density, speed_up)`, in order of density, stays above 1."""
    if points[0][1] <= 1:
        return 0.0
    for (density, speed_up), (next_density, next_speed_up) in itertools.pairwise(points):
        if next_speed_up <= 1:
            share = math.log(speed_up) / (math.log(speed_up) - math.log(next_speed_up))
            return math.exp(math.log(density) + share * math.log(next_density / density))
    return math.inf
