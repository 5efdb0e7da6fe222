"""HTML in pieces that cannot be broken by what users call their classes and files."""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

from pigeonholed_training.reporting.words import printable, shortened

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

ROWS = 12  # of a table that are shown at once; the others fold away
MOST_ROWS = 200  # of a table that are written at all; metrics.json has every number


class Html(str):
    """Text that is markup already; every other text is escaped before it goes into a page."""

    __slots__ = ()


def html(value: object) -> Html:
    """Markup as it is, and everything else as text, with its unprintable characters spelt out."""
    return value if isinstance(value, Html) else Html(escape(printable(str(value))))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Pieces one after the other."""
    return Html(between.join(html(part) for part in parts))


def tag(name: str, *content: object, **attributes: object) -> Html:
    """An element; `class_` stands for `class`, `_` for `-` in other attributes, None leaves one out."""
    given = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html(value)}"'
        for key, value in attributes.items()
        if value is not None
    )
    return Html(f"<{name}{given}>{join(content)}</{name}>")


def name(value: object, longest: int = 40) -> Html:
    """A user's word, cut in its middle where it is long; all of it shows under the mouse."""
    whole = printable(str(value))
    short = shortened(whole, longest)
    return tag("span", short, class_="name", title=shortened(whole, 200) if short != whole else None)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page.

    Attributes:
        key: its address within the page.
        title: its heading.
        lead: one sentence or two that say how to read it and what it shows here.
        content: what there is to see.
    """

    key: str
    title: str
    lead: object
    content: tuple[object, ...]

    def __str__(self) -> str:
        return tag("section", tag("h2", self.title), tag("p", self.lead, class_="lead"), *self.content, id=self.key)


def section(key: str, title: str, lead: object, *content: object) -> Section:
    """A part of the page; see `Section`."""
    return Section(key, title, lead, content)


def details(summary: object, *content: object) -> Html:
    """Something that opens when it is clicked."""
    return tag("details", tag("summary", summary), *content)


def table(header: Sequence[object], rows: Sequence[Sequence[object]], *, folded: int = ROWS) -> Html:
    """A table whose first column is words and whose others are numbers; it folds after `folded` rows."""
    if len(rows) <= folded + 3:  # not worth a click
        return _table(header, rows)
    rest = rows[folded:MOST_ROWS]
    left_out = len(rows) - folded - len(rest)
    note = f" ({left_out} more are in metrics.json)" if left_out else ""
    return join([_table(header, rows[:folded]), details(f"{len(rest)} more rows{note}", _table(header, rest))])


def _table(header: Sequence[object], rows: Sequence[Sequence[object]]) -> Html:
    top = tag("tr", *(word if _is_cell(word) else tag("th", word, scope="col") for word in header))
    # A tag with a name of its own, as `<td class=...>`, says more of a cell than its content.
    lines = (tag("tr", *(cell if _is_cell(cell) else tag("td", cell) for cell in row)) for row in rows)
    return tag("div", tag("table", tag("thead", top), tag("tbody", *lines)), class_="wide")


def _is_cell(cell: object) -> bool:
    return isinstance(cell, Html) and cell.startswith(("<td", "<th"))
