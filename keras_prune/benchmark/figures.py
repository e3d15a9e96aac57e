"""Figures of a benchmark: time against density, and speed-ups. They require matplotlib."""

import collections
import math
from collections.abc import Iterator

from matplotlib import ticker
from matplotlib.axes import Axes

from keras_prune.benchmark.results import Results
from keras_prune.plots.style import (
    REFERENCE,
    add_legend,
    axes_or_new,
    bar_style,
    curve_style,
    fitting_names,
    plain_log_ticks,
)


def time_against_density(results: Results, workload: str, batch_size: int, ax=None):
    """Draws the time of each engine against the density.

    A dotted line shows the density at which an engine becomes faster than the fastest dense one.

    Args:
        results: `Results` of several densities.
        workload: String, the workload to draw.
        batch_size: Integer, the batch size to draw.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the results lack a second density of the workload and batch size, or a dense engine.
    """
    rows = [row for row in results.rows if (row.workload, row.batch_size) == (workload, batch_size)]
    dense, curves = {}, collections.defaultdict(list)
    for row in rows:
        point = (100 * row.density, row.microseconds)
        if row.baseline:
            dense[point[0]] = min(point[1], dense.get(point[0], math.inf))
        else:
            curves[row.engine].append(point)
    densities = sorted({100 * row.density for row in rows})
    if len(densities) < 2 or densities != sorted(dense):
        raise ValueError(
            "time_against_density needs two densities, and a dense engine at each. Received: "
            f"workload={workload!r}, batch_size={batch_size} with densities of {densities} percent"
        )
    crossings = {
        one.engine: 100 * one.density
        for one in results.crossovers()
        if (one.workload, one.batch_size) == (workload, batch_size)
    }
    with axes_or_new(ax, labels=len(curves) + 1) as drawn:
        drawn.plot(densities, [dense[density] for density in densities], color="0.4", lw=1.5, label="fastest dense")
        for index, (engine, points) in enumerate(curves.items()):
            style = curve_style(index)
            drawn.plot(*zip(*sorted(points), strict=True), label=engine, **style)
            if 0 < crossings.get(engine, 0) < math.inf:
                drawn.axvline(crossings[engine], color=style["color"], linewidth=0.6, linestyle=":")
        drawn.set(xscale="log", yscale="log", xlabel="connections left (%)", ylabel="time (µs)")
        drawn.set_xticks(densities, [f"{density:g}" for density in densities])
        drawn.xaxis.set_minor_locator(ticker.NullLocator())
        plain_log_ticks(drawn.yaxis)
        drawn.set_title(f"{fitting_names([workload])[0]}, batch {batch_size}", fontsize="medium")
        add_legend(drawn)
    return drawn


def speed_ups(results: Results, batch_size: int, ax=None):
    """Draws the speed-up of each engine over the fastest dense one, for each workload.

    Args:
        results: `Results`.
        batch_size: Integer, the batch size to draw.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Returns:
        The axes.

    Raises:
        ValueError: If the results lack dense or other engines of that batch size.
    """
    rows = [row for row in results.rows if row.batch_size == batch_size and row.speed_up is not None]
    names = [(row.workload, row.density) for row in rows]
    places = {name: place for place, name in enumerate(dict.fromkeys(names))}
    engines = list(dict.fromkeys(row.engine for row in rows if not row.baseline))
    if not engines:
        raise ValueError(
            "speed_ups needs dense and other engines of one batch size. "
            f"Received: batch_size={batch_size}, and engines {sorted({row.engine for row in results.rows})}"
        )
    workloads = list(dict.fromkeys(row.workload for row in rows))
    short = dict(zip(workloads, fitting_names(workloads, 20), strict=True))
    labels = [f"{short[workload]}, {density:.1%}" for workload, density in places]
    thickness = 0.8 / len(engines)
    with axes_or_new(ax, 0.6 + (0.1 + 0.07 * len(engines)) * len(places), len(engines)) as drawn:
        for index, engine in enumerate(engines):
            bars = [
                (places[name] + (index - (len(engines) - 1) / 2) * thickness, row.speed_up - 1)
                for name, row in zip(names, rows, strict=True)
                if row.engine == engine and row.speed_up is not None
            ]
            # Bars start at 1: faster engines grow to the right, slower ones to the left.
            heights, widths = zip(*bars, strict=True)
            drawn.barh(heights, widths, thickness, left=1, label=engine, **bar_style(index))
        drawn.axvline(1, **REFERENCE | {"zorder": 3})
        drawn.set_yticks(range(len(places)), labels)
        drawn.invert_yaxis()
        drawn.set(xscale="log", xlabel=f"speed-up over fastest dense, batch {batch_size}")
        plain_log_ticks(drawn.xaxis)
        add_legend(drawn)
    return drawn


def all_figures(results: Results) -> Iterator[tuple[str, Axes]]:
    """Yields the name and the axes of each figure that can be drawn from the results."""
    compared = [row for row in results.rows if row.speed_up is not None and not row.baseline]
    for batch_size in dict.fromkeys(row.batch_size for row in compared):
        yield f"speed_ups_batch_{batch_size}", speed_ups(results, batch_size)
    for one in {(one.workload, one.batch_size): one for one in results.crossovers()}.values():
        name = f"density_{one.workload.replace('/', '_')}_batch_{one.batch_size}"
        yield name, time_against_density(results, one.workload, one.batch_size)
