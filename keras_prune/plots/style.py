"""Style that all figures share."""

import contextlib
import itertools
from typing import Any

import matplotlib.pyplot as plt
from matplotlib import ticker
from matplotlib.transforms import offset_copy

STYLE: dict[Any, Any] = {
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
CROWDED = 6  # More labels do not fit into the axes.
REFERENCE = {"color": "0.6", "linewidth": 0.6, "zorder": 0}  # The line of a reference value.


@contextlib.contextmanager
def axes_or_new(ax=None, height: float = 0.0, labels: int = 0):
    """Context that yields `ax`, or the axes of a new figure in `STYLE`.

    Args:
        ax: Matplotlib axes. Defaults to `None`.
        height: Float, height of a new figure in inches, at least 2.6. Defaults to `0.0`.
        labels: Integer, how many labels the legend has. A new figure is higher for a long legend. Defaults to `0`.
    """
    with plt.rc_context({} if ax else STYLE):
        yield ax or plt.subplots(figsize=(3.4, max(height, 2.6) + (0.07 * labels if labels > CROWDED else 0)))[1]


def curve_style(index: int) -> dict:
    """Returns color, marker and line of a curve. The first 56 curves differ."""
    styles = {"color": COLORS, "marker": "os^DvPX*", "linestyle": ("-", "--", "-.", ":")}
    return {name: values[index % len(values)] for name, values in styles.items()} | {"linewidth": 1, "markersize": 3}


def bar_style(index: int) -> dict:
    """Returns color and hatching of a group of bars. The first 28 groups differ, also without color."""
    hatch = ("", "////", "....", "xxxx")[index // len(COLORS) % 4]
    return {"color": COLORS[index % len(COLORS)], "hatch": hatch, "edgecolor": "white", "linewidth": 0}


def add_legend(ax) -> None:
    """Adds a legend to axes. A legend of more than `CROWDED` labels is placed below them, in two columns."""
    where: dict[str, Any] = {}
    if len(ax.get_legend_handles_labels()[1]) > CROWDED:
        below_label = offset_copy(ax.transAxes, ax.figure, 0, -0.4, units="inches")
        where = {"loc": "upper center", "bbox_to_anchor": (0.5, 0), "bbox_transform": below_label, "ncols": 2}
    ax.legend(**where, labelspacing=0.2)


def legend_above(ax) -> None:
    """Adds a legend above axes whose curves leave no free corner. Does nothing without labels."""
    if ax.get_legend_handles_labels()[1]:
        ax.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0, ncols=2)


def whole_ticks(axis) -> None:
    """Gives an axis a few ticks at integers, with commas between thousands."""
    axis.set_major_locator(ticker.MaxNLocator(5, integer=True, steps=[1, 2, 5, 10]))
    axis.set_major_formatter(ticker.StrMethodFormatter("{x:,.0f}"))


def plain_log_ticks(axis) -> None:
    """Labels the ticks of a logarithmic axis with numbers such as 0.5 and 1,000 instead of powers of ten."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5) if high < 300 * low else (1,)))
    axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:,.0f}" if value >= 1 else f"{value:g}"))
    axis.set_minor_formatter(ticker.NullFormatter())


def spread_out(values, ratio: float = 1.25) -> list[float]:
    """Returns values whose labels do not touch on a logarithmic axis, including the last one."""
    kept: list[float] = []
    for value in sorted(values, reverse=True):
        if not kept or value * ratio <= kept[-1]:
            kept.append(value)
    return kept[::-1]


def fitting_names(names, length: int = 26) -> list[str]:
    """Returns names that leave room for a figure: without the folders that all share, and shortened in the middle.

    Args:
        names: List of strings, paths of layers.
        length: Integer, how many characters a name may have. Defaults to `26`.
    """
    folders = [str(name).split("/")[:-1] for name in names]
    same = itertools.takewhile(lambda level: len(set(level)) == 1, zip(*folders, strict=False))
    shared = sum(len(level[0]) + 1 for level in same) if len(folders) > 1 else 0
    return [_fitting(str(name)[shared:], length) for name in names]


def _fitting(name: str, length: int) -> str:
    if len(name) <= length:
        return name
    folders = name.split("/")
    joined = f"{folders[0]}/\u2026/{folders[-1]}"  # Which block, and which layer in it.
    if len(folders) > 2 and len(joined) <= length:
        return joined
    front = length // 3
    return f"{name[:front]}\u2026{name[front + 1 - length :]}"
