"""Figures of a benchmark: time against density, and speed-ups. They need matplotlib."""

import math

from matplotlib import colormaps, ticker

from keras_prune.benchmark.results import Results
from keras_prune.plots import _REFERENCE, _axes, _legend, _look


def time_against_density(results: Results, workload: str, batch_size: int, ax=None):
    """Draws the time of each engine against the density, and a dotted line where it crosses the fastest dense one.

    Args:
        results: `Results` of several densities.
        workload: String, the workload to draw.
        batch_size: Integer, the batch size to draw.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If there are not two densities of the workload and batch size, or no dense engine.
    """
    rows = [row for row in results.rows() if (row[0].workload, row[0].batch_size) == (workload, batch_size)]
    dense = {row[0].density: min((m.microseconds for m in row if m.baseline), default=math.nan) for row in rows}
    if len(dense) < 2 or not all(map(math.isfinite, dense.values())):
        raise ValueError(
            "time_against_density needs two densities and a dense engine. "
            f"Received: workload={workload!r}, batch_size={batch_size} with densities {sorted(dense)}"
        )
    curves: dict[str, list] = {}
    for measurement in (m for row in rows for m in row if not m.baseline):
        curves.setdefault(measurement.engine, []).append((100 * measurement.density, measurement.microseconds))
    fastest = sorted((100 * density, time) for density, time in dense.items())
    places = {
        entry["engine"]: entry["density"]
        for entry in results.crossovers()
        if (entry["workload"], entry["batch_size"]) == (workload, batch_size)
    }
    with _axes(ax) as drawn:
        drawn.plot(*zip(*fastest, strict=True), color="0.4", linewidth=1.5, label="fastest dense")
        for index, (engine, points) in enumerate(curves.items()):
            look = _look(index)
            drawn.plot(*zip(*sorted(points), strict=True), label=engine, **look)
            place = places.get(engine, 0)
            if 0 < place < math.inf:
                drawn.axvline(100 * place, color=look["color"], linewidth=0.6, linestyle=":")
        drawn.set(xscale="log", yscale="log", xlabel="connections left (%)", ylabel="time (us)")
        drawn.set_xticks([density for density, _ in fastest], [f"{density:g}" for density, _ in fastest])
        drawn.xaxis.set_minor_locator(ticker.NullLocator())
        drawn.set_title(f"{workload}, batch {batch_size}", fontsize="medium")
        _legend(drawn)
    return drawn


def speed_ups(results: Results, batch_size: int, ax=None):
    """Draws for every workload by how much each engine that is not a dense one is faster than the fastest dense one.

    Args:
        results: `Results`.
        batch_size: Integer, the batch size to draw.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If there is nothing of that batch size to draw.
    """
    rows = [row for row in results.rows() if row[0].batch_size == batch_size and any(m.baseline for m in row)]
    engines = list(dict.fromkeys(m.engine for row in rows for m in row if not m.baseline))
    if not engines:
        raise ValueError(
            "speed_ups needs dense and other engines of one batch size. "
            f"Received: batch_size={batch_size}, and engines {sorted({m.engine for m in results.measurements})}"
        )
    thickness = 0.8 / len(engines)
    with _axes(ax, height=0.6 + (0.1 + 0.07 * len(engines)) * len(rows)) as drawn:
        for index, engine in enumerate(engines):
            bars = [
                (place, speed_up)
                for place, row in enumerate(rows)
                for measurement, speed_up in zip(row, results.speed_ups(row), strict=True)
                if measurement.engine == engine
            ]
            places = [place + (index - (len(engines) - 1) / 2) * thickness for place, _ in bars]
            gains = [speed_up - 1 for _, speed_up in bars]  # Bars grow from 1: to the right faster, to the left slower.
            drawn.barh(places, gains, thickness, left=1, label=engine, color=colormaps["tab20"](index))
        drawn.axvline(1, **_REFERENCE | {"zorder": 3})
        drawn.set_yticks(range(len(rows)), [f"{row[0].workload}, {row[0].density:.1%}" for row in rows])
        drawn.invert_yaxis()
        drawn.set(xscale="log", xlabel=f"speed-up over fastest dense, batch {batch_size}")
        drawn.xaxis.set_major_formatter(ticker.FormatStrFormatter("%g"))
        drawn.legend(loc="upper center", bbox_to_anchor=(0.4, -0.16), ncols=2)
    return drawn
