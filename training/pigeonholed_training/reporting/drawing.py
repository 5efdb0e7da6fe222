"""Drawings as SVG inside the page: they take its colours, light and dark, and its letters."""

from __future__ import annotations

import io
import re
import warnings
from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting.markup import Html, html, tag

if TYPE_CHECKING:
    from collections.abc import Callable

# Colours that stand for those of the page: found in the drawing and replaced by variables of its style.
INK, FAINT, FIRST, SECOND, TEXT = "#010101", "#020202", "#030303", "#040404", "#050505"
_VARIABLES = {INK: "--ink-2", FAINT: "--line", FIRST: "--blue", SECOND: "--orange", TEXT: "--ink"}
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",  # words stay words: the page's letters, selectable, and small
    "svg.hashsalt": "pigeonholed",  # the same drawing is the same file
    "text.parse_math": False,  # a class may be called $x$
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "axes.edgecolor": FAINT,
    "axes.labelcolor": INK,
    "axes.titlecolor": INK,
    "font.size": 11,
    "axes.titlesize": 12,
    "axes.titleweight": "bold",
    "axes.labelsize": 11.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": FAINT,
    "grid.linewidth": 0.6,
    "xtick.color": FAINT,
    "ytick.color": FAINT,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.labelsize": 11,
    "ytick.labelsize": 11,
    "text.color": INK,
    "legend.frameon": False,
    "legend.fontsize": 11,
    "lines.linewidth": 1.8,
}


def draw(width: float, height: float, described: str, paint: Callable[[Any], None]) -> Html:
    """An SVG element, `width` and `height` in pixels of the page; `paint` is given the axes."""
    import matplotlib as mpl

    with warnings.catch_warnings(), mpl.rc_context(_STYLE):
        # Of the font cache, and of letters that only the reader's browser has: nothing that a user can act on.
        warnings.simplefilter("ignore")
        from matplotlib.figure import Figure

        figure = Figure(figsize=(width / 72, height / 72), layout="constrained")
        paint(figure.add_subplot())
        target = io.StringIO()
        figure.savefig(target, format="svg", metadata={"Date": None, "Creator": None, "Format": None, "Type": None})
    return Html(_embedded(target.getvalue(), described, width))


def side_by_side(*drawn: Html) -> Html:
    """Drawings in a row, or below each other where there is no room."""
    return tag("div", *drawn, class_="plot")


def _embedded(svg: str, described: str, width: float) -> str:
    """An SVG file as an element: without its preamble, in the colours of the page, named for those who cannot see."""
    body = svg[svg.index("<svg") :]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.DOTALL)
    body = re.sub(r' id="(?:figure|axes|patch|matplotlib|line2d|text|legend|xtick|ytick)[^"]*"', "", body)
    body = re.sub(r"font: ([\d.]+px)[^;\"]*", r"font-size: \1", body)
    for stand_in, variable in _VARIABLES.items():
        body = body.replace(stand_in, f"var({variable})")
    start = body.index(">")
    box = re.search(r'viewBox="[^"]*"', body[:start])
    assert box is not None
    size = f"width:{width:.0f}px;min-width:{0.75 * width:.0f}px"  # narrower, its letters could not be read
    return f'<svg {box[0]} role="img" aria-label="{html(described)}" style="{size}"{body[start:]}'
