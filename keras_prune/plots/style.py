"""Style that all figures share."""

import contextlib
from typing import Any

import matplotlib.pyplot as plt

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
REFERENCE = {"color": "0.6", "linewidth": 0.6, "zorder": 0}  # A line that curves or bars are compared with.


@contextlib.contextmanager
def axes_or_new(ax=None, height: float = 0.0):
    """Context that yields `ax`, or the axes of a new figure in `STYLE`.

    Args:
        ax: Matplotlib axes. Defaults to `None`.
        height: Float, height of a new figure in inches, at least 2.6. Defaults to `0.0`.
    """
    with plt.rc_context({} if ax else STYLE):
        yield ax or plt.subplots(figsize=(3.4, max(height, 2.6)))[1]


def curve_style(index: int) -> dict:
    """Returns color, marker and line of a curve. The first 56 curves differ."""
    styles = {"color": COLORS, "marker": "os^DvPX*", "linestyle": ("-", "--", "-.", ":")}
    return {name: values[index % len(values)] for name, values in styles.items()} | {"linewidth": 1, "markersize": 3}


def add_legend(ax) -> None:
    """Adds a legend to axes. A legend of more than 6 labels is placed beside them."""
    crowded = len(ax.get_legend_handles_labels()[1]) > 6
    ax.legend(**({"loc": "upper left", "bbox_to_anchor": (1, 1), "labelspacing": 0.2} if crowded else {}))
