"""Figures with a curve for each layer, rule or run."""

import numpy as np

from keras_prune.plots.style import (
    COLORS,
    REFERENCE,
    add_legend,
    axes_or_new,
    curve_style,
    fitting_names,
    spread_out,
    whole_ticks,
)


def trade_off(curves, ax=None):
    """Draws the change in accuracy against the sparsity (Han et al. 2015, Fig. 5).

    Args:
        curves: Mapping from a label to `(sparsities, changes)`. `sparsities` are shares of pruned connections in
            [0, 1], shape `(points,)`. `changes` are accuracies minus the accuracy of the dense network, shape
            `(points,)`. With shape `(seeds, points)`, the mean is drawn with a band from the lowest to the highest.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If `curves` is empty, or a curve has another shape or range.

    Example:

    >>> import keras_prune as kp
    >>> kp.plots.trade_off({"L2 with retraining": ([0.5, 0.8, 0.9], [0.001, 0.0, -0.01])}).get_ylabel()
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
    with axes_or_new(ax, labels=len(percent)) as drawn:
        drawn.axhline(0, **REFERENCE)
        for index, (label, cut, change) in enumerate(percent):
            (line,) = drawn.plot(cut, change.mean(0), label=label, **curve_style(index))
            if len(change) > 1:
                drawn.fill_between(cut, change.min(0), change.max(0), color=line.get_color(), alpha=0.2, linewidth=0)
        drawn.set(xlabel="connections pruned (%)", ylabel="accuracy change (percentage points)")
        add_legend(drawn)
    return drawn


def sensitivity(scan, ax=None):
    """Draws the metric of a network when each layer alone is pruned, without retraining (Han et al. 2015, Fig. 6).

    Args:
        scan: `Sensitivity` that `keras_prune.sensitivity` returned.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If `scan` has no layer, or a layer has no points.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune.analysis.sensitivity import Point, Sensitivity
    >>> scan = Sensitivity({"conv1": [Point(None, 0.3, 0.97), Point(None, 0.1, 0.6)]}, 0.98, "accuracy", 1)
    >>> kp.plots.sensitivity(scan).get_ylabel()
    'accuracy'
    """
    if not scan.curves or not all(scan.curves.values()):
        raise ValueError(f"`scan` must have layers with points. Received: scan.curves={scan.curves}")
    with axes_or_new(ax, labels=len(scan.curves) + 1) as drawn:
        names = fitting_names(scan.curves)
        for index, (name, points) in enumerate(zip(names, scan.curves.values(), strict=True)):
            kept, values = [100 * point.density for point in points], [point.value for point in points]
            drawn.plot(kept, values, label=name, **curve_style(index))
        drawn.axhline(scan.reference, label="not pruned", **REFERENCE)
        drawn.set(xlabel="connections kept (%)", ylabel=scan.monitor.replace("_", " "))
        add_legend(drawn)
    return drawn


def rounds(rounds, monitor: str = "monitored value", ax=None):
    """Draws the value of each round of `iterative_prune` against the compression.

    Args:
        rounds: List of `Round` that `keras_prune.iterative_prune` returned.
        monitor: String, the label of the values. Defaults to `"monitored value"`.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If `rounds` is empty, or holds anything but rounds.

    Example:

    >>> import keras_prune as kp
    >>> from keras_prune.results import Round
    >>> done = [Round(1.0, 0.98, True, 0.0), Round(4.0, 0.981, True, 9.5), Round(8.0, 0.96, False, 20.1)]
    >>> [line.get_label() for line in kp.plots.rounds(done, "accuracy").lines[2:]]
    ['within the budget', 'out of the budget']
    """
    done = list(rounds)
    if not done or not all(hasattr(one, "within_budget") for one in done):
        raise ValueError(
            f"`rounds` must be a list that keras_prune.iterative_prune returned. Received: rounds={rounds!r}"
        )
    with axes_or_new(ax) as drawn:
        drawn.axhline(done[0].value, **REFERENCE)
        drawn.plot([one.compression for one in done], [one.value for one in done], color=COLORS[0], linewidth=1)
        for within, label, marker, color in (
            (True, "within the budget", "o", COLORS[0]),
            (False, "out of the budget", "X", COLORS[1]),
        ):
            points = [(one.compression, one.value) for one in done if one.within_budget == within]
            if points:
                x, y = zip(*points, strict=True)
                drawn.plot(x, y, linestyle="none", marker=marker, color=color, markersize=4, label=label)
        drawn.set(xscale="log", xlabel="compression", ylabel=monitor.replace("_", " "))
        ticks = spread_out([one.compression for one in done])
        drawn.set_xticks(ticks, [f"{tick:.3g}x" for tick in ticks])
        drawn.minorticks_off()
        add_legend(drawn)
    return drawn


def epochs(history, log: str = "sparsity", ax=None):
    """Draws one of the logs of `fit` by epoch.

    Args:
        history: `keras.callbacks.History` that `fit` returned.
        log: String, the name of the log. Defaults to `"sparsity"`, which `PruningCallback` adds. It is drawn in
            percent.
        ax: Matplotlib axes to draw into and to return. Defaults to `None`, the axes of a new figure.

    Raises:
        ValueError: If the history has no such log.

    Example:

    >>> import keras, keras_prune as kp
    >>> history = keras.callbacks.History()
    >>> history.epoch, history.history = [0, 1, 2], {"sparsity": [0.0, 0.5, 0.75]}
    >>> kp.plots.epochs(history).lines[0].get_ydata().tolist()
    [0.0, 50.0, 75.0]
    """
    values = history.history.get(log)
    if not values:
        raise ValueError(f"`log` must be a log of the history, one of {sorted(history.history)}. Received: log={log!r}")
    percent = log == "sparsity"
    with axes_or_new(ax) as drawn:
        drawn.plot(np.add(history.epoch, 1), np.multiply(values, 100 if percent else 1), **curve_style(0))
        drawn.set(xlabel="epoch", ylabel="connections pruned (%)" if percent else log.replace("_", " "))
        whole_ticks(drawn.xaxis)
    return drawn
