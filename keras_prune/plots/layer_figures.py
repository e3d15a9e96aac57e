"""Figures of the weights, masks and densities of layers."""

from collections.abc import Mapping

import keras
import numpy as np
from keras import ops
from matplotlib.colors import LinearSegmentedColormap, to_rgb

from keras_prune.layers.weight_summary import WeightSummary
from keras_prune.layers.weights import prunable_weights
from keras_prune.plots.style import (
    COLORS,
    add_legend,
    axes_or_new,
    bar_style,
    fitting_names,
    legend_above,
    plain_log_ticks,
    whole_ticks,
)


def weights(before, after, ax=None):
    """Draws histograms of a weight before and after pruning (Han et al. 2015, Fig. 7).

    Args:
        before: The dense weight: an array of any shape, a Keras variable, or a layer with one prunable weight.
        after: The same weight after pruning, in any of these forms. Zeros are left out.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If the shapes differ, `after` is all zero, or a layer does not have exactly one prunable weight.

    Example:

    >>> import keras_prune as kp
    >>> dense = np.linspace(-1, 1, 200).reshape(20, 10)
    >>> legend = kp.plots.weights(dense, np.where(np.abs(dense) > 0.5, dense, 0)).get_legend()
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
        plain_log_ticks(drawn.yaxis)
        legend_above(drawn)
    return drawn


def histogram(summary, ax=None):
    """Draws the surviving weights of a report, with the threshold of the last cut.

    Without a threshold, the smallest magnitude that survives is drawn. Retraining moves weights to both sides.

    Args:
        summary: `WeightSummary`, one of `report.summaries`.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If no connection survives.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, name="fc")])
    >>> cuts = kp.cut(kp.prune(model, 0.9))
    >>> kp.plots.histogram(kp.report(model).summaries[0]).get_ylabel()
    'connections'
    """
    if not summary.counts.any():
        raise ValueError(f"The figure needs a connection that survives and is finite. Received: summary={summary}")
    edges = np.linspace(summary.edges[0], summary.edges[1], len(summary.counts) + 1)
    line, label = summary.threshold, f"threshold {summary.threshold or 0:.3g}"
    if line is None and summary.kept < summary.size:
        line, label = summary.smallest, f"smallest kept {summary.smallest:.3g}"
    with axes_or_new(ax) as drawn:
        drawn.stairs(summary.counts, edges, fill=True, color=COLORS[0])
        for place in (-line, line) if line else ():
            if summary.edges[0] <= place <= summary.edges[1]:
                drawn.axvline(place, color=COLORS[1], linewidth=1, linestyle="--", label=label)
                label = None
        drawn.set(xlabel="weight", ylabel="connections", ylim=(0, None))
        drawn.locator_params("x", nbins=5)
        whole_ticks(drawn.yaxis)
        legend_above(drawn)
    return drawn


def mask(mask_or_layer, ax=None):
    """Draws the surviving connections of a layer, one row per neuron (Han et al. 2015, Fig. 4).

    If a dot of the figure covers several connections, its darkness is the share that survives. For a summary with
    fewer dots than connections, it is that share over the largest one.

    Args:
        mask_or_layer: Layer with one prunable weight, pruned or plain, one of the `summaries` of a report that has
            `shares`, or an array whose zeros are pruned, of shape `(inputs, neurons)`, or `(..., filters)` for the
            kernel of a convolution. Its patch is flattened.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If the array is empty or has fewer than two dimensions, or a layer does not have exactly one
            prunable weight.

    Example:

    >>> import keras_prune as kp
    >>> layer = kp.Prune(keras.layers.Dense(300), kp.TargetSparsity(0.92))
    >>> layer.build((None, 784))
    >>> cuts = kp.cut(layer)
    >>> print(f"{kp.plots.mask(layer).images[0].get_array().mean():.2f}")
    0.08
    """
    if isinstance(mask_or_layer, WeightSummary) and mask_or_layer.shares is not None:
        shares = mask_or_layer.shares
        # Dots that cover many connections would all be pale.
        strongest = 255 if shares.size == mask_or_layer.size else max(1, shares.max())
        return _draw_mask(shares / strongest, mask_or_layer.shape[::-1], True, "none", ax)
    kept = _weight(mask_or_layer, masks=True) != 0
    if kept.ndim < 2 or not kept.size:
        raise ValueError(f"A mask must have shape (inputs, neurons) or (..., filters). Received: shape={kept.shape}")
    rows = kept.reshape(-1, kept.shape[-1]).T
    height, width = rows.shape
    # Matplotlib averages pixels finer than the figure but blurs coarser ones, so use at least 1200.
    image = rows.repeat(-(-1200 // height), 0).repeat(-(-1200 // width), 1).astype("float32")
    return _draw_mask(image, rows.shape, kept.ndim == 2, "antialiased", ax)


def _draw_mask(image, shape, is_matrix, interpolation, ax):
    """Draws the shares of the mask that are kept, of shape `(rows, columns)` in the weight."""
    height, width = shape
    # Transparent where nothing is left, for pages of any background.
    blue = LinearSegmentedColormap.from_list("connections", [(*to_rgb(COLORS[0]), alpha) for alpha in (0, 1)], N=16)
    with axes_or_new(ax) as drawn:
        drawn.imshow(
            image, blue, vmin=0, vmax=1, aspect="auto", extent=(0, width, height, 0), interpolation=interpolation
        )
        xlabel, ylabel = ("input", "neuron") if is_matrix else ("place in the patch", "filter")
        drawn.set(xlabel=xlabel, ylabel=ylabel)
        whole_ticks(drawn.xaxis)
        whole_ticks(drawn.yaxis)
    return drawn


def density(report_or_reports, ax=None):
    """Draws the density of each layer as bars.

    Args:
        report_or_reports: `Report` of `keras_prune.report`, or a mapping from labels to reports on the same
            layers.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If the mapping is empty, or two reports have different layers.

    Example:

    >>> import keras_prune as kp
    >>> model = keras.Sequential([keras.Input((784,)), keras.layers.Dense(10, name="fc")])
    >>> [text.get_text() for text in kp.plots.density({"dense": kp.report(model)}).texts]
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
            bars = drawn.barh(places, kept, thickness, label=label, **bar_style(index))
            drawn.bar_label(bars, fmt="{:.3g}", padding=2, fontsize="small")
        drawn.set_yticks(range(len(layers[0])), fitting_names(layers[0]))
        drawn.set(xlabel="connections kept (%)", ylabel="layer", xmargin=0.12, ylim=(len(layers[0]) - 0.5, -0.5))
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
