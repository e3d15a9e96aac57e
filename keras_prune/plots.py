"""Figures: what pruning costs and what it leaves, one function a figure, after the paper's figures 4 to 7.

`from keras_prune import plots` needs matplotlib. Every function draws into the axes it is given and returns them;
without any it makes a figure as wide as a paper's column, 3.4 in, in `STYLE`. Shares go in as fractions, as Keras
reports them, and are drawn in percent. The colours are those of Okabe and Ito, which the colour-blind can tell apart.
"""

import contextlib
from collections.abc import Mapping

import keras
import matplotlib.pyplot as plt
import numpy as np
from keras import ops
from matplotlib.colors import LinearSegmentedColormap

from keras_prune.layers.weights import prunable_weights

STYLE = {
    "figure.dpi": 200,
    "figure.constrained_layout.use": True,
    "font.size": 8,
    "legend.fontsize": "small",
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9", "#E69F00")
_REFERENCE = {"color": "0.6", "linewidth": 0.6, "zorder": 0}


def trade_off(curves, ax=None):
    """Draws the change in accuracy against the share of connections cut (Han et al. 2015, Fig. 5).

    Args:
        curves: Mapping from a label to `(sparsities, changes)`. `sparsities` are shares of connections cut, in [0, 1],
            shape `(points,)`. `changes` are accuracies less that of the dense network (`-0.01`: one percentage point
            lost), shape `(points,)`, or `(seeds, points)` for the mean with a band from the lowest to the highest.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If there is no curve, or one has other shapes or ranges.

    Example:

    >>> from keras_prune import plots
    >>> plt.switch_backend("Agg")
    >>> plots.trade_off({"L2 with retraining": ([0.5, 0.8, 0.9], [0.001, 0.0, -0.01])}).get_ylabel()
    'accuracy change (percentage points)'
    """
    if not curves:
        raise ValueError(f"trade_off needs a curve, as label: (sparsities, changes). Received: curves={curves}")
    percent = []
    for label, curve in curves.items():
        sparsities, changes = (np.asarray(shares, float) for shares in curve)
        shapes = changes.size and changes.ndim in (1, 2) and sparsities.shape == changes.shape[-1:]
        if not (shapes and np.all((sparsities >= 0) & (sparsities <= 1)) and np.all(np.abs(changes) <= 1)):
            raise ValueError(
                "A curve has sparsities in [0, 1] of shape (points,) and changes in [-1, 1] of shape (points,) or "
                f"(seeds, points); divide percent by 100. Received: curves[{label!r}]={curve}"
            )
        percent.append((label, 100 * sparsities, 100 * np.atleast_2d(changes)))
    with _axes(ax) as drawn:
        drawn.axhline(0, **_REFERENCE)
        for index, (label, cut, change) in enumerate(percent):
            (line,) = drawn.plot(cut, change.mean(0), label=label, **_look(index))
            if len(change) > 1:
                drawn.fill_between(cut, change.min(0), change.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
        drawn.set(xlabel="connections cut (%)", ylabel="accuracy change (percentage points)")
        _legend(drawn)
    return drawn


def sensitivity(scan, ax=None):
    """Draws how the network takes the cut of each layer alone, without retraining (Han et al. 2015, Fig. 6).

    Args:
        scan: What `keras_prune.sensitivity` returns.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the scan has no layer, or a layer no points.

    Example:

    >>> from keras_prune import plots
    >>> from keras_prune.analysis.sensitivity import Point, Sensitivity
    >>> plt.switch_backend("Agg")
    >>> scan = Sensitivity({"conv1": [Point(None, 0.3, 0.97), Point(None, 0.1, 0.6)]}, 0.98, "accuracy", 1)
    >>> plots.sensitivity(scan).get_ylabel()
    'accuracy'
    """
    if not scan.curves or not all(scan.curves.values()):
        raise ValueError(f"sensitivity needs a layer, and points for each. Received: scan.curves={scan.curves}")
    with _axes(ax) as drawn:
        for index, (name, points) in enumerate(scan.curves.items()):
            kept, values = [100 * point.density for point in points], [point.value for point in points]
            drawn.plot(kept, values, label=name, **_look(index))
        drawn.axhline(scan.reference, label="not pruned", **_REFERENCE)
        drawn.set(xlabel="connections kept (%)", ylabel=scan.monitor.replace("_", " "))
        _legend(drawn)
    return drawn


def weights(before, after, ax=None):
    """Draws a layer's weights before and after pruning and retraining: one peak, then two (Han et al. 2015, Fig. 7).

    Args:
        before: The dense weight: an array of any shape, a Keras variable, or a layer with one prunable weight.
        after: The same weight later, in any of these forms. Its zeros are left out.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the shapes differ, no weight is left in `after`, or a layer has several prunable weights.

    Example:

    >>> from keras_prune import plots
    >>> plt.switch_backend("Agg")
    >>> dense = np.linspace(-1, 1, 200).reshape(20, 10)
    >>> legend = plots.weights(dense, np.where(np.abs(dense) > 0.5, dense, 0)).get_legend()
    >>> [text.get_text() for text in legend.get_texts()]
    ['before: 200', 'after: 100']
    """
    before, after = (_weight(source).astype("float64") for source in (before, after))
    if before.shape != after.shape or not after.any():
        raise ValueError(
            "weights compares one weight before and after, of the same shape and not all zero. Received: before of "
            f"shape {before.shape}, after of shape {after.shape} with {np.count_nonzero(after)} connections"
        )
    after = after[after != 0]
    edges = np.histogram_bin_edges(np.append(before, after), 100)
    with _axes(ax) as drawn:
        drawn.hist(before.ravel(), edges, histtype="stepfilled", color="0.75", label=f"before: {before.size:,}")
        drawn.hist(after, edges, histtype="step", log=True, color=_COLORS[0], label=f"after: {after.size:,}")
        drawn.set(xlabel="weight", ylabel="connections per bin", ylim=(0.5, None))
        _legend(drawn)
    return drawn


def mask(mask_or_layer, ax=None):
    """Draws which connections of a layer are left, a row for every neuron (Han et al. 2015, Fig. 4).

    Where connections are finer than the dots of the figure, a dot is as dark as the share of them that is left.

    Args:
        mask_or_layer: Layer with one prunable weight, pruned or plain, or an array in which zeros are cut: shape
            `(inputs, neurons)`, or `(..., filters)` for a convolution's kernel, whose patch is flattened.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the array is empty or has one dimension only, or a layer has several prunable weights.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune import plots
    >>> plt.switch_backend("Agg")
    >>> layer = kp.Prune(keras.layers.Dense(300), kp.TargetSparsity(0.92))
    >>> layer.build((None, 784))
    >>> cuts = kp.cut(layer)
    >>> print(f"{plots.mask(layer).images[0].get_array().mean():.2f}")
    0.08
    """
    kept = _weight(mask_or_layer, masks=True) != 0
    if kept.ndim < 2 or not kept.size:
        raise ValueError(f"mask draws shapes (inputs, neurons) and (..., filters). Received: shape={kept.shape}")
    rows = kept.reshape(-1, kept.shape[-1]).T
    height, width = rows.shape
    # Matplotlib averages what is finer than the figure but blurs what is coarser: make 1200 dots the least.
    image = rows.repeat(-(-1200 // height), 0).repeat(-(-1200 // width), 1).astype("float32")
    white_to_blue = LinearSegmentedColormap.from_list("connections", ["white", _COLORS[0]])
    with _axes(ax) as drawn:
        drawn.imshow(image, white_to_blue, vmin=0, vmax=1, aspect="auto", extent=(0, width, height, 0))
        xlabel, ylabel = ("input", "neuron") if kept.ndim == 2 else ("place in the patch", "filter")
        drawn.set(xlabel=xlabel, ylabel=ylabel)
    return drawn


def density(report_or_reports, ax=None):
    """Draws the share of connections left in every layer as bars.

    Args:
        report_or_reports: `keras_prune.Report`, or a mapping from labels to reports on the same layers, to compare.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If there is no report, or two have different layers.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune import plots
    >>> plt.switch_backend("Agg")
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, name="fc")])
    >>> [text.get_text() for text in plots.density({"dense": kp.report(model)}).texts]
    ['100']
    """
    reports = report_or_reports if isinstance(report_or_reports, Mapping) else {None: report_or_reports}
    layers = [[row.name for row in report.rows] for report in reports.values()]
    if not layers or any(names != layers[0] for names in layers):
        raise ValueError(f"density needs a report, and all of them on the same layers. Received: layers={layers}")
    thickness = 0.8 / len(reports)
    with _axes(ax, height=0.6 + (0.05 + 0.1 * len(reports)) * len(layers[0])) as drawn:
        for index, (label, report) in enumerate(reports.items()):
            places = np.arange(len(report.rows)) + (index - (len(reports) - 1) / 2) * thickness
            kept = [100 * row.density for row in report.rows]
            bars = drawn.barh(places, kept, thickness, label=label, color=_look(index)["color"])
            drawn.bar_label(bars, fmt="{:.3g}", padding=2, fontsize="small")
        drawn.set_yticks(range(len(layers[0])), layers[0])
        drawn.invert_yaxis()
        drawn.set(xlabel="connections kept (%)", ylabel="layer", xmargin=0.12)
        if None not in reports:
            _legend(drawn)
    return drawn


@contextlib.contextmanager
def _axes(ax, height=0.0):
    with plt.rc_context({} if ax else STYLE):
        yield ax or plt.subplots(figsize=(3.4, max(height, 2.6)))[1]


def _look(index) -> dict:
    """Returns colour, marker and line of a curve: 56 of them before one comes again."""
    looks = {"color": _COLORS, "marker": "os^DvPX*", "linestyle": ("-", "--", "-.", ":")}
    return {name: values[index % len(values)] for name, values in looks.items()} | {"linewidth": 1, "markersize": 3}


def _legend(ax):
    crowded = len(ax.get_legend_handles_labels()[1]) > 6
    ax.legend(**({"loc": "upper left", "bbox_to_anchor": (1, 1), "labelspacing": 0.2} if crowded else {}))


def _weight(source, masks=False) -> np.ndarray:
    """Returns the only prunable weight of a layer, or its mask; anything else as an array."""
    found = [source]
    if isinstance(source, keras.layers.Layer):
        weights = prunable_weights(source)
        found = [weight.mask() if masks and weight.pruned else weight.variable.value for weight in weights]
    if len(found) != 1:
        raise ValueError(
            "The figure shows one weight: build the layer, or pass one of its weights, such as layer.recurrent_kernel. "
            f"Received: layer={source!r} with {len(found)} prunable weights"
        )
    return ops.convert_to_numpy(found[0])
