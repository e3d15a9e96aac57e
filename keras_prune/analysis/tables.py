"""Text: how a report becomes the string that `print` shows."""

import collections
import io
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table


def table_with_lines(table: Table, lines: Iterable[str], soft_wrap: bool = False) -> str:
    """Returns a table and, below it, lines of up to 120 characters, without blanks at their ends.

    Args:
        table: Rich table.
        lines: Strings, wrapped where they are longer.
        soft_wrap: Boolean, whether to leave long lines to the terminal instead. Defaults to `False`.
    """
    output = io.StringIO()
    console = Console(file=output, width=120, markup=False, emoji=False, highlight=False)  # Names are no markup.
    console.print(table)
    for line in lines:
        console.print(line, soft_wrap=soft_wrap)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def names_by_reason(rows) -> list[tuple[str, str]]:
    """Returns each reason that rows give, once, with the names of all rows that give it: `[("names", "reason")]`."""
    names = collections.defaultdict(list)
    for row in rows:
        if row.reason:
            names[row.reason].append(row.name)
    return [(", ".join(of_reason), reason) for reason, of_reason in names.items()]
