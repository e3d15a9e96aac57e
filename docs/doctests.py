"""Extension of griffe: the doctests in docstrings become code blocks."""

import re

import griffe

# A doctest begins at a prompt and ends at an empty line.
DOCTEST = re.compile(r"^>>> .*?(?=\n\s*\n|\Z)", re.MULTILINE | re.DOTALL)


class Doctests(griffe.Extension):
    """Fences doctests, which Markdown would take for quotations."""

    def on_object(self, *, obj, **_):
        if obj.docstring:
            text = re.sub(r"^Example:$", "**Example**", obj.docstring.value, flags=re.MULTILINE)
            obj.docstring.value = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", text)
