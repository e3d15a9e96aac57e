"""The Python blocks of a page, run in order, and the output that the page shows under each of them.

    python tests/pages.py docs/notebooks/getting_started.md

This runs a page, and writes the output of its blocks into the page. Figures are saved beside it. Blocks that import
another backend than that of `KERAS_BACKEND` are left out, and so are blocks that begin with ```py.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

# A block of code, and the block of output right behind it.
BLOCK = re.compile(r"^```python\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
END = "-- end of block --\n"
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")
OF_OTHER_BACKENDS = re.compile(rf"^import (?!{BACKEND}\b)(tensorflow|jax|torch)\b", re.MULTILINE)


def blocks(page):
    """Returns pairs of the code and the output that a page shows, for this backend."""
    found = BLOCK.findall(page.read_text(encoding="utf-8"))
    return [(code, shown) for code, shown in found if not OF_OTHER_BACKENDS.search(code)]


def run(page, folder, timeout=600):
    """Runs the blocks of a page in a separate process, and returns what each printed."""
    code = f"\nprint({END!r}, end='', flush=True)\n".join(code for code, _ in blocks(page))
    process = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"MPLBACKEND": "Agg", "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=timeout,
        check=False,
    )
    if process.returncode:
        raise AssertionError(f"{page} fails: {process.stderr[-3000:]}")
    return process.stdout.split(END)


def without_numbers(text):
    """Returns a text without numbers and the widths of tables, which differ between backends and processors."""
    return re.sub(r"[\s─━]+", " ", re.sub(r"\d+(?:[.,]\d+)*", "#", text)).strip()


def update(page):
    """Writes the output of the blocks of a page into the page."""
    with tempfile.TemporaryDirectory() as folder:
        printed = iter(run(page, folder))
        for figure in Path(folder).glob("*.png"):
            shutil.copy(figure, page.parent)

    def block(found):
        if OF_OTHER_BACKENDS.search(found[1]):
            return found[0]
        output = "\n".join(line.rstrip() for line in next(printed).splitlines())
        return f"```python\n{found[1]}```\n" + (f"\n```text\n{output}\n```\n" if output else "")

    page.write_text(BLOCK.sub(block, page.read_text(encoding="utf-8")), encoding="utf-8")


if __name__ == "__main__":
    for name in sys.argv[1:]:
        update(Path(name))
