"""Numbers and names in sentences for people who do not train networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

NAMED = 3  # classes in one sentence
LONGEST = 40  # characters of one name there


def percent(share: float) -> str:
    """A share with at most one decimal; never `100 %` of what is not all, nor `0 %` of what is some."""
    if 0.0 < share < 0.0005:
        return "less than 0.1 %"
    if 0.9995 <= share < 1.0:
        return "more than 99.9 %"
    return f"{100.0 * share:.1f}".removesuffix(".0") + " %"


def names(labels: Sequence[str]) -> str:
    """Some labels as a list in words: `'a', 'b' and 'c'`, or `'a', 'b', 'c' and 4 others`."""
    shown = [f"'{label if len(label) <= LONGEST else label[:LONGEST] + '…'}'" for label in labels[:NAMED]]
    if len(labels) > NAMED:
        return f"{', '.join(shown)} and {len(labels) - NAMED} others"
    return " and ".join(part for part in (", ".join(shown[:-1]), *shown[-1:]) if part)


def sentence(text: str) -> str:
    """Text with a full stop, unless it ends as a sentence already."""
    return text if text.endswith((".", "!", "?")) else f"{text}."
