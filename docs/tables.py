"""Tables of the pages, printed by the scripts that measured them.

    python docs/tables.py                             # rewrites all tables of the pages
    python docs/tables.py docs/results/growth.md      # those of one page

A page marks a table with the command that prints it, and its title where the command prints several, each below a line
in bold:

    <!-- table: experiments/growth.py --table # JAX, by layers -->
    <!-- end -->

The site makes the tables when it is built. The pages hold them too, for readers of the repository.
"""

import functools
import re
import shlex
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MARKED = re.compile(r"<!-- table: (?P<made_by>.+?) -->\n.*?<!-- end -->", re.DOTALL)


@functools.cache
def printed(command: str) -> str:
    """Returns what a script of the repository prints."""
    done = subprocess.run(
        [sys.executable, *shlex.split(command)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise ValueError(f"A table cannot be made: python {command} failed:\n{done.stderr[-2000:]}")
    return done.stdout.strip()


def table(made_by: str) -> str:
    """Returns the table of a marker, as Markdown."""
    command, _, title = made_by.partition(" # ")
    if not title:
        return printed(command)
    _, *titled = re.split(r"^\*\*(.+)\*\*$", printed(command), flags=re.MULTILINE)
    tables = dict(zip(titled[::2], titled[1::2], strict=True))
    if title not in tables:
        raise ValueError(f"python {command} prints no table of that title. Received: {title!r}, not in {list(tables)}")
    return tables[title].strip()


def made(text: str) -> str:
    """Returns the text of a page with its tables rewritten."""
    if not text.count("<!-- table: ") == text.count("<!-- end -->") == len(MARKED.findall(text)):
        raise ValueError(f"Each `<!-- table: ... -->` needs its own `<!-- end -->`. Received: {text[:60]!r}...")
    return MARKED.sub(
        lambda found: f"<!-- table: {found['made_by']} -->\n\n{table(found['made_by'])}\n\n<!-- end -->", text
    )


if __name__ == "__main__":
    for page in [Path(name) for name in sys.argv[1:]] or PAGES:
        text = page.read_text(encoding="utf-8")
        if "<!-- table:" in text:
            page.write_text(made(text), encoding="utf-8")
