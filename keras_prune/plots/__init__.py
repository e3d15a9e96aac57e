"""Figures of what pruning costs and what is left, after the paper's figures 4 to 7.

`from keras_prune import plots` requires matplotlib. Each function draws into the given axes and returns them. Without
axes it creates a figure 3.4 in wide, the column of a paper, in `STYLE`. Pass shares as fractions, as Keras reports
them. They are drawn in percent. The colors are those of Okabe and Ito, which color-blind readers can tell apart.
"""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops

try:
    from matplotlib.colors import LinearSegmentedColormap
except ImportError as error:
    raise ImportError("Figures are drawn with Matplotlib, which is missing: pip install matplotlib") from error

from keras_prune.layers.weights import prunable_weights
from keras_prune.plots.style import COLORS, REFERENCE, STYLE, add_legend, axes_or_new, curve_style

__all__ = ["STYLE", "density", "mask", "sensitivity", "trade_off", "weights"]


def trade_off(curves, ax=None):
    """Draws the change in accuracy against the sparsity (Han et al. 2015, Fig. 5).

    Args:
        curves: Mapping from a label to `(sparsities, changes)`. `sparsities` are shares of pruned connections in
            [0, 1], shape `(points,)`. `changes` are accuracies minus the accuracy of the dense network, shape
            `(points,)`. With shape `(seeds, points)`, the mean is drawn with a band from the lowest to the highest.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If `curves` is empty, or a curve has another shape or range.

    Example:

    >>> from keras_prune import plots
    >>> plots.trade_off({"L2 with retraining": ([0.5, 0.8, 0.9], [0.001, 0.0, -0.01])}).get_ylabel()
    'accuracy change (percentage points)'
    """
    if not curves:
        raise ValueError(
            f"`curves` must have a curve, such as {{'L2': (sparsities, changes)}}. Received: curves={curves}"
        )
    percent = []
    for label, curve in curves.items():
        sparsities, changes = (np.asarray(shares, float) for shares in curve)
        shapes = changes.size and changes.ndim in (1, 2) and sparsities.shape == changes.shape[-1:]
        if not (shapes and np.all((sparsities >= 0) & (sparsities <= 1)) and np.all(np.abs(changes) <= 1)):
            raise ValueError(
                "A curve must have sparsities in [0, 1] of shape (points,) and changes in [-1, 1] of shape (points,) "
                f"or (seeds, points). Divide percent by 100. Received: curves[{label!r}]={curve}"
            )
        percent.append((label, 100 * sparsities, 100 * np.atleast_2d(changes)))
    with axes_or_new(ax) as drawn:
        drawn.axhline(0, **REFERENCE)
        for index, (label, cut, change) in enumerate(percent):
            (line,) = drawn.plot(cut, change.mean(0), label=label, **curve_style(index))
            if len(change) > 1:
                drawn.fill_between(cut, change.min(0), change.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
        drawn.set(xlabel="connections cut (%)", ylabel="accuracy change (percentage points)")
        add_legend(drawn)
    return drawn


def sensitivity(scan, ax=None):
    """Draws the metric of a network when each layer alone is pruned, without retraining (Han et al. 2015, Fig. 6).

    Args:
        scan: `Sensitivity` that `keras_prune.sensitivity` returned.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If `scan` has no layer, or a layer has no points.

    Example:

    >>> from keras_prune import plots
    >>> from keras_prune.analysis.sensitivity import Point, Sensitivity
    >>> scan = Sensitivity({"conv1": [Point(None, 0.3, 0.97), Point(None, 0.1, 0.6)]}, 0.98, "accuracy", 1)
    >>> plots.sensitivity(scan).get_ylabel()
    'accuracy'
    """
    if not scan.curves or not all(scan.curves.values()):
        raise ValueError(f"`scan` must have layers with points. Received: scan.curves={scan.curves}")
    with axes_or_new(ax) as drawn:
        for index, (name, points) in enumerate(scan.curves.items()):
            kept, values = [100 * point.density for point in points], [point.value for point in points]
            drawn.plot(kept, values, label=name, **curve_style(index))
        drawn.axhline(scan.reference, label="not pruned", **REFERENCE)
        drawn.set(xlabel="connections kept (%)", ylabel=scan.monitor.replace("_", " "))
        add_legend(drawn)
    return drawn


def weights(before, after, ax=None):
    """Draws histograms of a weight before and after pruning (Han et al. 2015, Fig. 7).

    Args:
        before: The dense weight: an array of any shape, a Keras variable, or a layer with one prunable weight.
        after: The same weight after pruning, in any of these forms. Zeros are left out.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the shapes differ, `after` is all zero, or a layer does not have exactly one prunable weight.

    Example:

    >>> from keras_prune import plots
    >>> dense = np.linspace(-1, 1, 200).reshape(20, 10)
    >>> legend = plots.weights(dense, np.where(np.abs(dense) > 0.5, dense, 0)).get_legend()
    >>> [text.get_text() for text in legend.get_texts()]
    ['before: 200', 'after: 100']
    """
    before, after = (_weight(source).astype("float64") for source in (before, after))
    if before.shape != after.shape or not after.any():
        raise ValueError(
            "`before` and `after` must have the same shape, and `after` must not be all zero. Received: before of "
            f"shape {before.shape}, after of shape {after.shape} with {np.count_nonzero(after)} connections"
        )
    after = after[after != 0]
    edges = np.histogram_bin_edges(np.append(before, after), 100).tolist()
    with axes_or_new(ax) as drawn:
        drawn.hist(before.ravel(), edges, histtype="stepfilled", color="0.75", label=f"before: {before.size:,}")
        drawn.hist(after, edges, histtype="step", log=True, color=COLORS[0], label=f"after: {after.size:,}")
        drawn.set(xlabel="weight", ylabel="connections per bin", ylim=(0.5, None))
        add_legend(drawn)
    return drawn


def mask(mask_or_layer, ax=None):
    """Draws the surviving connections of a layer, one row per neuron (Han et al. 2015, Fig. 4).

    If a dot of the figure covers several connections, its darkness is the share that survives.

    Args:
        mask_or_layer: Layer with one prunable weight, pruned or plain, or an array whose zeros are pruned, of shape
            `(inputs, neurons)`, or `(..., filters)` for the kernel of a convolution. Its patch is flattened.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the array is empty or has fewer than two dimensions, or a layer has not one prunable weight.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune import plots
    >>> layer = kp.Prune(keras.layers.Dense(300), kp.TargetSparsity(0.92))
    >>> layer.build((None, 784))
    >>> cuts = kp.cut(layer)
    >>> print(f"{plots.mask(layer).images[0].get_array().mean():.2f}")
    0.08
    """
    kept = _weight(mask_or_layer, masks=True) != 0
    if kept.ndim < 2 or not kept.size:
        raise ValueError(f"A mask must have shape (inputs, neurons) or (..., filters). Received: shape={kept.shape}")
    rows = kept.reshape(-1, kept.shape[-1]).T
    height, width = rows.shape
    # Matplotlib averages pixels finer than the figure but blurs coarser ones, so use at least 1200.
    image = rows.repeat(-(-1200 // height), 0).repeat(-(-1200 // width), 1).astype("float32")
    white_to_blue = LinearSegmentedColormap.from_list("connections", ["white", COLORS[0]])
    with axes_or_new(ax) as drawn:
        drawn.imshow(image, white_to_blue, vmin=0, vmax=1, aspect="auto", extent=(0, width, height, 0))
        xlabel, ylabel = ("input", "neuron") if kept.ndim == 2 else ("place in the patch", "filter")
        drawn.set(xlabel=xlabel, ylabel=ylabel)
    return drawn


def density(report_or_reports, ax=None):
    """Draws the density of each layer as bars.

    Args:
        report_or_reports: `Report` of `keras_prune.report`, or a mapping from labels to reports on the same
            layers.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, those of a new figure.

    Raises:
        ValueError: If the mapping is empty, or two reports have different layers.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune import plots
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, name="fc")])
    >>> [text.get_text() for text in plots.density({"dense": kp.report(model)}).texts]
    ['100']
    """
    reports = report_or_reports if isinstance(report_or_reports, Mapping) else {None: report_or_reports}
    layers = [[row.name for row in report.rows] for report in reports.values()]
    if not layers or any(names != layers[0] for names in layers):
        raise ValueError(f"The reports must have the same layers. Received: layers={layers}")
    thickness = 0.8 / len(reports)
    with axes_or_new(ax, height=0.6 + (0.05 + 0.1 * len(reports)) * len(layers[0])) as drawn:
        for index, (label, report) in enumerate(reports.items()):
            places = np.arange(len(report.rows)) + (index - (len(reports) - 1) / 2) * thickness
            kept = [100 * row.density for row in report.rows]
            bars = drawn.barh(places, kept, thickness, label=label, color=curve_style(index)["color"])
            drawn.bar_label(bars, fmt="{:.3g}", padding=2, fontsize="small")
        drawn.set_yticks(range(len(layers[0])), layers[0])
        drawn.invert_yaxis()
        drawn.set(xlabel="connections kept (%)", ylabel="layer", xmargin=0.12)
        if None not in reports:
            add_legend(drawn)
    return drawn


def _weight(source, masks=False) -> np.ndarray:
    """Returns the only prunable weight of a layer, or its mask. Returns anything else as an array."""
    found = [source]
    if isinstance(source, keras.layers.Layer):
        weights = prunable_weights(source)
        found = [weight.mask() if masks and weight.pruned else weight.variable.value for weight in weights]
    if len(found) != 1:
        raise ValueError(
            "The figure shows one weight. Build the layer, or pass one of its weights, such as layer.recurrent_kernel. "
            f"Received: layer={source!r} with {len(found)} prunable weights"
        )
    return ops.convert_to_numpy(found[0])
