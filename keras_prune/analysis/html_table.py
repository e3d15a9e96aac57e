"""The table of a report in HTML, with bars for what is kept. It needs neither Matplotlib nor JavaScript."""

import collections
import math
from html import escape

TABLE_STYLE = """
.kp-report { --series: #0072b2; --mark: #d55e00; --line: rgba(128, 128, 128, .35); line-height: 1.4; }
.kp-report table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 0; font-size: .9em; }
.kp-report th, .kp-report td { text-align: right; white-space: nowrap; padding: .3em .7em; background: none;
  color: inherit; }
.kp-report thead th { border-bottom: 1px solid currentColor; font-weight: 600; }
.kp-report tbody tr { border-bottom: 1px solid var(--line); background: none; }
.kp-report tfoot th, .kp-report tfoot td { border-top: 1px solid currentColor; font-weight: 600; }
.kp-report th:first-child { text-align: left; white-space: normal; padding-left: 0; font-weight: 400;
  overflow-wrap: anywhere; }
.kp-report thead th:first-child, .kp-report tfoot th:first-child { font-weight: 600; }
.kp-report .kept { text-align: left; }
.kp-report .bar { display: inline-block; width: 9em; max-width: 22vw; height: .7em; margin-right: .6em;
  background: var(--line); vertical-align: baseline; }
.kp-report .bar i { display: block; height: 100%; background: var(--series); }
.kp-report p, .kp-report ul { margin: .6em 0; max-width: 48em; }
.kp-report ul { padding-left: 1.2em; }
"""


def notebook_table(report) -> str:
    """Returns the HTML that a notebook shows of a report: headline, table, bytes, and what is left out."""
    return (
        f'<div class="kp-report"><style>{TABLE_STYLE}</style><p><strong>{headline(report)}</strong></p>'
        f'<div style="max-height: 40em; overflow: auto">{layer_table(report)}</div>'
        f"<p>{storage_sentence(report)}</p>{left_out(report)}</div>"
    )


def headline(report) -> str:
    """Returns a phrase with the connections that are left, and the compression."""
    return f"{report.kept:,} of {report.weights:,} connections: {compression(report)}"


def compression(report) -> str:
    """Returns the compression as text, such as `12.2x`."""
    return f"{report.compression:.1f}x" if report.compression < math.inf else "none left"


def layer_table(report) -> str:
    """Returns the table: one row for each layer with its bar, and the total below. Empty columns are left out."""
    columns = [
        ("connections", lambda row: f"{row.weights:,}"),
        ("kept", lambda row: f"{row.kept:,}"),
        ("FLOP", lambda row: "-" if row.flop is None else f"{row.flop:,}"),
        ("FLOP left", lambda row: f"{row.flop_density:.1%}"),
    ]
    if report.activation is not None:
        columns.append(("active outputs", lambda row: "-" if row.activation is None else f"{row.activation:.0%}"))
    if any(row.dropout is not None for row in report.rows):
        columns.append(("dropout", lambda row: "" if getattr(row, "dropout", None) is None else f"{row.dropout:.2f}"))
    head = "".join(f'<th scope="col">{name}</th>' for name, _ in columns)
    body = "".join(_row(path(row.name), row, columns) for row in report.rows)
    return (
        f'<table><thead><tr><th scope="col">layer</th><th scope="col" class="kept">share kept</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody><tfoot>{_row('total', report, columns)}</tfoot></table>"
    )


def bar(share: float) -> str:
    """Returns a bar that is filled to a share. Screen readers skip it, and read the number beside it."""
    return f'<span class="bar" aria-hidden="true"><i style="width: {100 * share:.2f}%"></i></span>'


def path(name: str) -> str:
    """Returns a name for HTML, which may be broken behind each slash and underscore."""
    return escape(name).replace("/", "/<wbr>").replace("_", "_<wbr>")


def storage_sentence(report) -> str:
    """Returns a sentence about the bytes of the weights."""
    sizes = report.total_bytes()
    return (
        f"The weights take {sizes['dense_bytes']:,} bytes dense and {sizes['stored_bytes']:,} bytes in a sparse file, "
        f"{sizes['index_bytes']:,} of them indices. Values and mask entropy: {sizes['bound_bytes']:,.0f} bytes."
    )


def left_out(report) -> str:
    """Returns a list of the layers that are left out, grouped by reason. Empty if there are none."""
    names = collections.defaultdict(list)
    for name, reason in report.skipped.items():
        names[reason].append(path(name))
    items = "".join(f"<li>{escape(reason)}: {', '.join(of_reason)}</li>" for reason, of_reason in names.items())
    return f"<p>Left out:</p><ul>{items}</ul>" if items else ""


def _row(name, row, columns) -> str:
    cells = "".join(f"<td>{cell(row)}</td>" for _, cell in columns)
    return f'<tr><th scope="row">{name}</th><td class="kept">{bar(row.density)}{row.density:.1%}</td>{cells}</tr>'
