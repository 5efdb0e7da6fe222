"""How numbers and names are put into words on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

NO_BREAK = "\N{NO-BREAK SPACE}"
THIN = "\N{NARROW NO-BREAK SPACE}"
DASH = "–"
_SPACES = f"\n{NO_BREAK}{THIN}"


def percent(share: float | None, digits: int = 1) -> str:
    """A share as text; a dash where there is none, and never `100 %` of what is not all or `0 %` of what is some."""
    if share is None:
        return DASH
    least = 10.0 ** -(digits + 2)
    sign = ""
    if 0.0 < share < least / 2:
        share, sign = least, "<" + NO_BREAK
    elif 1.0 - least / 2 < share < 1.0:
        share, sign = 1.0 - least, ">" + NO_BREAK
    return f"{sign}{100.0 * share:.{digits}f}{NO_BREAK}%"


def interval(bounds: Sequence[float] | None) -> str:
    """Two bounds of a share as `93 – 97 %`; nothing where there are none."""
    if bounds is None:
        return ""
    return f"{100.0 * bounds[0]:.1f}{NO_BREAK}{DASH}{NO_BREAK}{100.0 * bounds[1]:.1f}{NO_BREAK}%"


def bounds(share: Mapping[str, Any] | None) -> tuple[float, float] | None:
    """The interval of a counted share; None where nothing was counted."""
    return (share["lower"], share["upper"]) if share and share.get("n") else None


def number(value: float) -> str:
    """A count with its thousands apart."""
    return f"{value:,}".replace(",", THIN)


def counted(count: int, noun: str) -> str:
    """`1 picture`, `2 pictures`."""
    return f"{number(count)} {noun if count == 1 else noun + ('es' if noun.endswith('s') else 's')}"


def printable(text: str) -> str:
    """With control characters, marks that turn the direction of writing, and halves of characters spelt out."""
    if text.isprintable():
        return text
    return "".join(
        one if one.isprintable() or one in _SPACES else one.encode("unicode_escape").decode("ascii") for one in text
    )


def shortened(text: str, longest: int) -> str:
    """Text with an ellipsis for its middle where it has more than `longest` characters."""
    if len(text) <= longest:
        return text
    return f"{text[: longest // 2]}…{text[len(text) - (longest - longest // 2 - 1) :]}"
