"""A report as one HTML page that needs no network and no JavaScript."""

from html import escape

import keras

from keras_prune.analysis import html_table
from keras_prune.storage.checked_file import atomic_write

_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1a1a1a; --quiet: #595959; }
body { margin: 0; background: var(--paper); color: var(--ink); font: 16px/1.5 system-ui, sans-serif; }
main { max-width: 74rem; margin: 0 auto; padding: 1.5rem clamp(1rem, 4vw, 3rem) 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 1.2rem; }
h2 { font-size: 1.2rem; margin: 2.6rem 0 .4rem; }
.note, figcaption, dt, footer { color: var(--quiet); font-size: .9rem; }
.numbers { display: flex; flex-wrap: wrap; gap: 1rem 3rem; margin: 0; }
.numbers dd { margin: 0; font-size: 1.7rem; font-weight: 600; line-height: 1.2; font-variant-numeric: tabular-nums; }
.numbers dd small { display: block; font-size: .9rem; font-weight: 400; color: var(--quiet); }
.wide { overflow-x: auto; }
.layers table { width: 100%; }
.layers th:first-child { min-width: 7em; }
.layers .bar { width: clamp(4.5em, 10vw, 12em); }
.grid { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 20rem), 1fr)); gap: 1.6rem 2rem; }
.masks figure { max-width: 38rem; }
.masks { grid-template-columns: repeat(auto-fill, minmax(min(100%, 30rem), 1fr)); }
figure { margin: 0; max-width: 27rem; break-inside: avoid; }
figcaption strong { color: var(--ink); overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; }
svg * { stroke-linejoin: round; stroke-linecap: butt; }
footer { margin-top: 3rem; border-top: 1px solid var(--line); padding-top: .8rem; }
@media (max-width: 40rem) {
  .kp-report th, .kp-report td { padding: .3em .4em; }
  .kp-report .bar { width: 4.5em; }
  .layers th:first-child { min-width: 5em; }
}
@media (prefers-color-scheme: dark) {
  :root { --paper: #16181c; --ink: #e8e8e8; --quiet: #a8adb5; }
  .kp-report { --series: #56b4e9; --mark: #e69f00; }
  svg image { filter: brightness(1.7); }
}
@media print {
  :root { --paper: #fff; --ink: #000; --quiet: #444; }
  .kp-report { --series: #0072b2; --mark: #d55e00; }
  svg image { filter: none; }
  .bar, .bar i { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 11px; }
  main { padding: 0; max-width: none; }
  .wide { overflow: visible; }
}
"""


def save_page(report, filepath, rounds=None) -> None:
    """Writes the page of `Report.save`, atomically."""
    require_page(filepath)
    page = html_page(report, rounds)
    with atomic_write(filepath) as unfinished, open(unfinished, "w", encoding="utf-8") as file:
        file.write(page)


def require_page(filepath) -> None:
    """Raises a `ValueError` or `ImportError` if `save_page` could not write a page, before time is spent on it."""
    if not str(filepath).endswith(".html"):
        raise ValueError(f"The page of a report has the suffix .html. Received: filepath={filepath!r}")
    from keras_prune.analysis import html_figures  # noqa: F401  # Requires Matplotlib.


def html_page(report, rounds=None) -> str:
    """Returns the page of a report. It is the same for the same report.

    Args:
        report: `Report`.
        rounds: List of `Round`, or a `keras.callbacks.History`. Defaults to `None`.
    """
    from keras_prune.analysis import html_figures  # Requires Matplotlib.

    title = f"Pruning report: {html_table.headline(report)}"
    sections = [
        ("Layers", f'<div class="wide layers">{html_table.layer_table(report)}</div>{_legend(report)}'),
        ("Size and operations", _sizes(report)),
        (
            "Training" if isinstance(rounds, keras.callbacks.History) else "Rounds",
            html_figures.rounds_or_epochs(rounds),
        ),
        ("Weights", html_figures.histograms(report)),
        ("Masks", html_figures.masks(report)),
        ("Left out", html_table.left_out(report).removeprefix("<p>Left out:</p>")),
    ]
    body = "".join(f"<section><h2>{name}</h2>{content}</section>" for name, content in sections if content)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>' + escape(title) + "</title>"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{html_table.TABLE_STYLE}{_STYLE}</style></head>\n"
        f'<body class="kp-report"><main><h1>Pruning report</h1>{_numbers(report)}{body}'
        "<footer>The model as it was when <code>keras_prune.report</code> was called.</footer></main></body></html>\n"
    )


def _numbers(report) -> str:
    """The headline numbers."""
    sizes = report.total_bytes()
    numbers = [
        (
            "Compression",
            html_table.compression(report),
            "fewer connections" if report.kept < report.weights else "not pruned",
        ),
        ("Connections kept", f"{report.density:.1%}", f"{report.kept:,} of {report.weights:,}"),
        (
            "Operations left",
            f"{report.flop_density:.1%}",
            "how many is unknown" if report.flop is None else f"of {_short(report.flop)} FLOP for one input",
        ),
        ("Sparse file", f"{_short(sizes['stored_bytes'])}B", f"{_short(sizes['dense_bytes'])}B dense"),
    ]
    items = "".join(f"<div><dt>{name}</dt><dd>{value}<small>{note}</small></dd></div>" for name, value, note in numbers)
    return f'<dl class="numbers">{items}</dl>'


def _short(number: float) -> str:
    """Returns a number with three digits and a unit: `1.07 M`."""
    for unit, name in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} "


def _legend(report) -> str:
    words = "FLOP are those of the dense layer for one input. FLOP left are those of connections that are kept"
    words += (
        " and whose inputs are not zero. Active outputs are the share of the layer's outputs that are not zero."
        if report.activation is not None
        else "."
    )
    return f'<p class="note">{words}</p>'


def _sizes(report) -> str:
    sizes, flop = report.total_bytes(), report.flop or 0
    rows = [
        ("weights, dense", sizes["dense_bytes"], sizes["dense_bytes"], "bytes"),
        ("weights, sparse file", sizes["stored_bytes"], sizes["dense_bytes"], "bytes"),
        ("values and mask entropy", sizes["bound_bytes"], sizes["dense_bytes"], "bytes"),
        ("operations, dense", flop, flop, "FLOP"),
        ("operations left", flop * report.flop_density, flop, "FLOP"),
    ]
    body = "".join(
        f'<tr><th scope="row">{name}</th><td class="kept">{html_table.bar(size / whole)}{size / whole:.1%}</td>'
        f"<td>{size:,.0f} {unit}</td></tr>"
        for name, size, whole, unit in rows
        if whole
    )
    return (
        f'<div class="wide"><table><tbody>{body}</tbody></table></div>'
        f'<p class="note">{sizes["index_bytes"]:,} bytes of the sparse file are indices, the positions of the values. '
        "Values and mask entropy: the bytes of the values, and the fewest bytes for their positions if these are "
        "random.</p>"
    )
