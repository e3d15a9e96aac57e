"""Text of the tables that `print` shows, at most 100 columns wide."""

import collections
import io
import re
from collections.abc import Iterable

import rich.table
from rich.console import Console

WIDTH = 100
_NAME, _LEAST = 30, 8  # Headings are wrapped before names get less than 30 columns. No name gets less than 8.


class Table:
    """A table whose long names are folded, behind a slash, underscore or space if possible.

    Args:
        title: String.
        texts: Headings of the first columns, in which long names are folded.
        numbers: Headings of the other columns, which are aligned to the right and wrapped at spaces only.
    """

    def __init__(self, title: str, texts: Iterable[str], numbers: Iterable[str]):
        self.title = title
        self.texts = list(texts)
        self.headings = [*self.texts, *numbers]
        self.rows: list[tuple[str, ...]] = []
        self.ends: list[int] = []

    def add_row(self, *cells: str) -> None:
        """Adds a row of one string for each column."""
        self.rows.append(cells)

    def add_section(self) -> None:
        """Draws a line below the last row."""
        self.ends.append(len(self.rows))

    def render(self) -> rich.table.Table:
        """Returns the table of Rich."""
        table = rich.table.Table(title=self.title)
        widths = self._widths()
        for index, (heading, width) in enumerate(zip(self.headings, widths, strict=True)):
            is_text = index < len(self.texts)
            table.add_column(heading, overflow="fold", justify="left" if is_text else "right", width=width)
        for number, row in enumerate(self.rows, 1):
            texts = [_folded(cell, width) for cell, width in zip(row, widths[: len(self.texts)], strict=False)]
            table.add_row(*texts, *row[len(texts) :], end_section=number in self.ends)
        return table

    def _widths(self) -> list[int]:
        columns = list(zip(self.headings, *self.rows, strict=True))
        widths = [max(map(len, column)) for column in columns]
        words = [max(len(word) for cell in column for word in cell.split() or [""]) for column in columns]
        texts, numbers = range(len(self.texts)), range(len(self.texts), len(columns))
        for indices, least in ((texts, [_NAME] * len(columns)), (numbers, words), (texts, [_LEAST] * len(columns))):
            while sum(widths) + 3 * len(widths) + 1 > WIDTH and any(widths[i] > least[i] for i in indices):
                widths[max((i for i in indices if widths[i] > least[i]), key=lambda i: widths[i])] -= 1
        return widths


def table_with_lines(table: Table, lines: Iterable[str]) -> str:
    """Returns a table with lines below it as a string. Longer lines are wrapped."""
    return _text([table.render(), *lines])


def wrapped(lines: Iterable[str]) -> str:
    """Returns lines as a string, the long ones wrapped."""
    return _text(lines)


def names_by_reason(rows) -> list[tuple[str, str]]:
    """Groups rows by their `reason`, if they have one, as `[("names of the rows", "reason")]`."""
    names = collections.defaultdict(list)
    for row in rows:
        if row.reason:
            names[row.reason].append(row.name)
    return [(", ".join(of_reason), reason) for reason, of_reason in names.items()]


def _text(parts) -> str:
    output = io.StringIO()
    console = Console(file=output, width=WIDTH, markup=False, emoji=False, highlight=False)  # Names are not markup.
    for part in parts:
        console.print(part)
    return "\n".join(line.rstrip() for line in output.getvalue().splitlines())


def _folded(name: str, width: int) -> str:
    """Returns a name in lines of a width. A part that is longer is left for Rich to fold."""
    lines = [""]
    for part in re.findall(r"[^/_ ]*[/_ ]?", name):
        if len(lines[-1]) + len(part.rstrip()) > width:
            lines.append("")
        lines[-1] += part
    return "\n".join(line.rstrip() for line in lines if line)
