"""Draw figures as SVG inside an HTML page."""

import io
import re
from html import escape

import matplotlib as mpl
from matplotlib.figure import Figure

from keras_prune.plots.style import COLORS, STYLE

_INK = "#010203"  # Replaced by the color of the page's text. No figure uses this color otherwise.
_SETTINGS = {
    **STYLE,
    **{f"{part}color": _INK for part in ("text.", "axes.label", "axes.edge", "xtick.", "ytick.")},
    "svg.fonttype": "none",
}


def inline_svg(draw, label: str, size: tuple[float, float] = (3.4, 2.1)) -> str:
    """Returns an `<svg>` element of a few kilobytes with the colors and font of the page around it.

    Text has the color of the page. The first two colors of the palette are the CSS variables `--series` and `--mark`.

    Args:
        draw: Function that draws into Matplotlib axes, such as `lambda ax: plots.mask(layer, ax)`.
        label: String, a description for readers who cannot see the figure. It must be unique on the page.
        size: Tuple of floats, width and height in inches. Defaults to `(3.4, 2.1)`.
    """
    text = io.StringIO()
    settings: dict = {**_SETTINGS, "svg.hashsalt": label}  # Each figure has its own ids, the same at each run.
    with mpl.rc_context(settings):
        figure = Figure(size)
        draw(figure.subplots())
        figure.savefig(text, format="svg", transparent=True, metadata={"Date": None})
    svg = text.getvalue()
    content = svg[svg.index(">", svg.index("<svg")) + 1 :]
    for pattern, replacement in (
        (r"(?s)<metadata>.*?</metadata>|<style.*?</style>|<!--.*?-->", ""),
        (r'<g id="[^"]*"', "<g"),
        (r"xlink:href", "href"),
        (r"font: ([\d.]+)px[^;\"]*", r"font-size: \1px"),
        (rf"(?i){_INK}", "currentColor"),
        (rf"(?i){COLORS[0]}", "var(--series)"),
        (rf"(?i){COLORS[1]}", "var(--mark)"),
        (r"\s*\n\s*", "\n"),
    ):
        content = re.sub(pattern, replacement, content)
    content = re.sub(r'"[^"]*"', _rounded, content)
    width, height = (72 * inches for inches in size)
    return f'<svg viewBox="0 0 {width:g} {height:g}" role="img" aria-label="{escape(label)}">{content.strip()}'


def _rounded(attribute) -> str:
    """Returns an attribute in hundredths of a point. The factors of a matrix keep all digits."""
    return attribute[0] if "matrix" in attribute[0] else re.sub(r"(\.\d\d)\d+", r"\1", attribute[0])
