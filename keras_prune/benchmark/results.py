"""The results of a benchmark: a table to read, a dict for JSON, rows for CSV."""

import dataclasses
import importlib.metadata
import itertools
import math
import platform

import keras
from rich.table import Table

from keras_prune.analysis.tables import table_with_lines
from keras_prune.benchmark.engine import threads

_LIBRARIES = ("tensorflow", "keras", "jax", "torch", "ai-edge-litert", "scipy", "mkl", "numpy")


@dataclasses.dataclass(frozen=True)
class Measurement:
    """One engine on one workload and batch size.

    Attributes:
        workload: Name of the `Workload`.
        density: Share of its connections that is left.
        batch_size: Inputs per call.
        engine: Name of the `Engine`.
        baseline: Whether the engine computes densely in float32.
        microseconds: Median of the calls.
        low, high: Quartiles of the calls, in microseconds.
        calls: How many calls were timed.
        weight_bytes: What the weights take in memory.
        difference: Largest difference from the dense outputs, of the largest output.
    """

    workload: str
    density: float
    batch_size: int
    engine: str
    baseline: bool
    microseconds: float
    low: float
    high: float
    calls: int
    weight_bytes: int
    difference: float


@dataclasses.dataclass
class Results:
    """What a benchmark measured; `print` it for the table.

    Attributes:
        measurements: List of `Measurement`.
        absent: Dict from the name of every engine that cannot run on this machine to the reason.
        refused: Dict from `(workload, engine)` to the reason why that engine was not timed there.
        machine: Dict of what it was measured on.
        left_out: Dict from the name of every workload that no engine can run to the reason.
    """

    measurements: list[Measurement]
    absent: dict[str, str]
    refused: dict[tuple[str, str], str]
    machine: dict[str, object]
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)

    def rows(self) -> list[list[Measurement]]:
        """Returns the measurements in lists of those that compete: same workload, density and batch size."""
        return [list(group) for _, group in itertools.groupby(self.measurements, _place)]

    def speed_ups(self, row: list[Measurement]) -> list[float | None]:
        """Returns by how much each measurement of a row is faster than the row's fastest dense one, if it has one."""
        dense = min((m.microseconds for m in row if m.baseline), default=None)
        return [None if dense is None else dense / m.microseconds for m in row]

    def crossovers(self) -> list[dict]:
        """Returns for every engine that was measured at several densities where it becomes faster than dense.

        Returns:
            A list of dicts with `workload`, `batch_size`, `engine` and `density`: below it the engine is faster than
            the fastest dense one, interpolated between the logarithms of densities and speed-ups. 0 if it is faster
            at none of the densities, and infinity if at all of them.
        """
        curves: dict[tuple, list] = {}
        for row in self.rows():
            for measurement, speed_up in zip(row, self.speed_ups(row), strict=True):
                if speed_up is not None and not measurement.baseline:
                    key = (measurement.workload, measurement.batch_size, measurement.engine)
                    curves.setdefault(key, []).append((measurement.density, speed_up))
        return [
            {"workload": workload, "batch_size": batch_size, "engine": engine, "density": _crossover(sorted(points))}
            for (workload, batch_size, engine), points in curves.items()
            if len(points) > 1
        ]

    def as_rows(self) -> list[dict]:
        """Returns a dict for each measurement, `speed_up` over the fastest dense engine included."""
        return [
            dataclasses.asdict(measurement) | {"speed_up": speed_up}
            for row in self.rows()
            for measurement, speed_up in zip(row, self.speed_ups(row), strict=True)
        ]

    def as_dict(self) -> dict:
        """Returns everything in types that JSON knows; infinite densities as `None`."""
        return {
            "machine": self.machine,
            "measurements": self.as_rows(),
            "crossovers": [
                entry | {"density": entry["density"] if math.isfinite(entry["density"]) else None}
                for entry in self.crossovers()
            ],
            "left_out": self.left_out,
            "absent": self.absent,
            "refused": [{"workload": w, "engine": e, "reason": reason} for (w, e), reason in self.refused.items()],
        }

    def __str__(self):
        table = Table(title="fastest of each row: *, speed-up over its fastest dense float32 engine")
        table.add_column("workload", overflow="fold")
        table.add_column("engine", overflow="fold")
        for heading in ("density", "batch", "us", "quartiles", "speed-up", "weights, MB"):
            table.add_column(heading, justify="right")
        for row in self.rows():
            fastest = min(m.microseconds for m in row)
            for measurement, speed_up in zip(row, self.speed_ups(row), strict=True):
                star = "*" if measurement.microseconds == fastest else " "
                table.add_row(
                    measurement.workload,
                    measurement.engine,
                    f"{measurement.density:.1%}",
                    str(measurement.batch_size),
                    f"{measurement.microseconds:,.0f}",
                    f"{measurement.low:,.0f}-{measurement.high:,.0f}",
                    "-" if speed_up is None else f"{star}{speed_up:.2f}x",
                    f"{measurement.weight_bytes / 1e6:,.2f}",
                )
            table.add_section()
        lines = [_crossover_line(entry) for entry in self.crossovers()]
        lines += [f"left out: {name} - {reason}" for name, reason in self.left_out.items()]
        lines += [f"absent: {name} - {reason}" for name, reason in self.absent.items()]
        lines += [
            f"not timed: {engine} on {workload} - {reason}" for (workload, engine), reason in self.refused.items()
        ]
        lines.append("measured on: " + ", ".join(f"{key} {value}" for key, value in self.machine.items()))
        return table_with_lines(table, lines)


def this_machine(device: str) -> dict[str, object]:
    """Returns what measurements depend on: processor, cores, device, and the versions of the libraries."""
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


def _place(measurement):
    return measurement.workload, measurement.density, measurement.batch_size


def _crossover(points) -> float:
    """Returns the density below which a curve of `(density, speed_up)`, in order of density, stays above 1."""
    if points[0][1] <= 1:
        return 0.0
    for (density, speed_up), (next_density, next_speed_up) in itertools.pairwise(points):
        if next_speed_up <= 1:
            share = math.log(speed_up) / (math.log(speed_up) - math.log(next_speed_up))
            return math.exp(math.log(density) + share * math.log(next_density / density))
    return math.inf


def _crossover_line(entry) -> str:
    place = f"{entry['workload']}, batch {entry['batch_size']}: {entry['engine']}"
    if entry["density"] == 0:
        return f"{place} is slower than dense at all these densities"
    if entry["density"] == math.inf:
        return f"{place} is faster than dense at all these densities"
    return f"{place} is faster than dense below a density of {entry['density']:.1%}"
