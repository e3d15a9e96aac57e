"""Text of the tables that `print` shows."""

import collections
import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def new_table(title: str, texts: Iterable[str], numbers: Iterable[str]) -> Table:
    """Returns a table without rows.

    Args:
        title: String.
        texts: Headings of the first columns, in which long names are folded.
        numbers: Headings of the other columns, which are aligned to the right.
    """
    table = Table(title=title)
    for heading in texts:
        table.add_column(heading, overflow="fold")
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


def table_with_lines(table: Table, lines: Iterable[str], soft_wrap: bool = False) -> str:
    """Returns a table with lines below it as a string, at most 120 characters wide.

    Args:
        table: Rich table.
        lines: Strings. Longer ones are wrapped.
        soft_wrap: Boolean, whether to let the terminal wrap long lines instead. Defaults to `False`.
    """
    output = io.StringIO()
    console = Console(file=output, width=120, markup=False, emoji=False, highlight=False)  # Names are no markup.
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=soft_wrap)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def names_by_reason(rows) -> list[tuple[str, str]]:
    """Groups rows by `reason`, those without one left out: `[("names of the rows", "reason")]`."""
    names = collections.defaultdict(list)
    for row in rows:
        if row.reason:
            names[row.reason].append(row.name)
    return [(", ".join(of_reason), reason) for reason, of_reason in names.items()]
