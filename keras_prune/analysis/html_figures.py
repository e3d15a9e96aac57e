"""The figures of the page of a report, by Matplotlib, as HTML."""

from collections.abc import Callable
from html import escape

import keras

from keras_prune import plots
from keras_prune.analysis.html_table import path
from keras_prune.plots.svg import inline_svg

HISTOGRAMS = 24  # A page of 200 layers would take half a minute and 2 MB otherwise.


def histograms(report) -> str:
    """Returns the histograms of the largest weights, with their thresholds."""
    drawable = [one for one in report.summaries if one.counts.any()]
    largest = {id(one) for one in sorted(drawable, key=lambda one: -one.size)[:HISTOGRAMS]}
    chosen = [one for one in drawable if id(one) in largest]
    note = "How many surviving connections have which weight."
    if any(one.kept < one.size for one in chosen):
        note += " Dashed lines: the magnitude below which the last cut pruned, or the smallest that survives if no "
        note += "threshold is known. Training moves weights past it."
    return _figures("grid", note, chosen, len(drawable), "histogram", _describe_histogram)


def masks(report) -> str:
    """Returns the masks of the largest pruned matrices."""
    matrices = [one for one in report.summaries if len(one.shape) == 2 and one.kept < one.size]
    chosen = [one for one in matrices if one.shares is not None]
    note = "One row for each neuron, one column for each input; blue where a connection is kept. "
    note += "If a dot covers several connections, the darkest dot is the one with the largest share kept."
    return _figures("grid masks", note, chosen, len(matrices), "mask", _describe_mask)


def _figures(layout, note, chosen, number, kind, describe: Callable) -> str:
    if not chosen:
        return ""
    if len(chosen) < number:
        note += f" The figures show the largest {len(chosen)} of {number} weights."
    draw = getattr(plots, kind)
    figures = []
    for one in chosen:
        size = (5.1, 2.6) if kind == "mask" else (3.4, 2.1)
        svg = inline_svg(lambda ax, one=one: draw(one, ax), f"{kind} of {one.name}: {describe(one)}", size)
        figures.append(_figure(svg, f"<strong>{path(one.name)}</strong> {escape(describe(one))}"))
    return f'<p class="note">{note}</p><div class="{layout}">{"".join(figures)}</div>'


def _figure(svg: str, caption: str) -> str:
    return f"<figure>{svg}<figcaption>{caption}</figcaption></figure>"


def _describe_histogram(one) -> str:
    shape = " x ".join(map(str, one.shape))
    line = "" if one.threshold is None else f", threshold {one.threshold:.3g}"
    return f"{shape}: {one.kept:,} of {one.size:,} connections kept{line}"


def _describe_mask(one) -> str:
    rows, columns = one.shares.shape
    dots = "" if rows * columns == one.size else f", drawn as {columns:,} x {rows:,} dots"
    return f"{one.shape[0]:,} inputs, {one.shape[1]:,} neurons, {one.kept / one.size:.1%} kept{dots}"


def rounds_or_epochs(rounds) -> str:
    """Returns the curve of the rounds of `iterative_prune`, or one for each log of a `History`. Empty for `None`."""
    if rounds is None:
        return ""
    if not isinstance(rounds, keras.callbacks.History):
        svg = inline_svg(lambda ax: plots.rounds(rounds, ax=ax), "Value of each round against its compression")
        last = [one for one in rounds if one.within_budget][-1]
        caption = f"{len(rounds)} rounds, the last within the budget at {last.compression:.1f}x. Gray: before pruning."
        return f'<div class="grid">{_figure(svg, caption)}</div>'
    logs = ["sparsity", *[log for log in rounds.history if log.startswith("val_")]]
    figures = [
        _figure(
            inline_svg(lambda ax, log=log: plots.epochs(rounds, log, ax), f"{log} by epoch"), f"{escape(log)} by epoch"
        )
        for log in logs
    ]
    return f'<div class="grid">{"".join(figures)}</div>'
