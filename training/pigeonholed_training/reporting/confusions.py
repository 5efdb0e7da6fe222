"""The section that says what is taken for what."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pigeonholed_training.reporting import plots
from pigeonholed_training.reporting.markup import Html, Section, details, join, name, section, table, tag
from pigeonholed_training.reporting.words import number, percent

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    Confusion = Sequence[Sequence[int]]

_WHOLE = 6  # classes up to which the confusions are a table alone
_PAIRS = 50  # in the list of confusions, and how many of them show at once
_FIRST = 12


def confusions(metrics: Mapping[str, Any]) -> Section | None:
    """A table of all counts for few classes; a heatmap, the commonest confusions and a table for more."""
    confusion: Confusion = (metrics.get("held_out") or {}).get("confusion") or ()
    labels = list(metrics.get("labels") or ())
    if not labels or len(confusion) != len(labels):
        return None
    pairs = _pairs(confusion)
    body = [_matrix(labels, confusion)] if len(labels) <= _WHOLE else _many(labels, confusion, pairs)
    return section("confusions", "What is taken for what", _lead(labels, confusion, pairs), *body)


def _pairs(confusion: Confusion) -> list[tuple[int, int, int]]:
    """(pictures, true, said) of all that was confused, the commonest first."""
    found = ((count, i, j) for i, row in enumerate(confusion) for j, count in enumerate(row) if i != j and count)
    return sorted(found, key=lambda pair: -pair[0])


def _lead(labels: Sequence[str], confusion: Confusion, pairs: Sequence[tuple[int, int, int]]) -> Html:
    how = "Lines are true classes, columns what was said. "
    if not pairs:
        return join([how, "Nothing was taken for something else."])
    count, i, j = pairs[0]
    of = sum(confusion[i])
    return join([how, "Most often ", name(labels[i]), " is taken for ", name(labels[j]), f" ({count} of {of})."])


def _many(labels: Sequence[str], confusion: Confusion, pairs: Sequence[tuple[int, int, int]]) -> list[Html]:
    body = [plots.heatmap(labels, confusion)] if len(labels) <= plots.MOST_MAPPED else []
    rows = [
        [name(labels[i]), tag("td", name(labels[j]), class_="words"), number(count), percent(count / sum(confusion[i]))]
        for count, i, j in pairs[:_PAIRS]
    ]
    if rows:
        header = ["true", tag("th", "said", class_="words"), "pictures", "of the class"]
        body += [tag("h3", "Most frequent confusions"), table(header, rows, folded=_FIRST)]
    if len(labels) <= plots.MOST_NAMED:
        body.append(details("All counts", _matrix(labels, confusion)))
    return body


def _matrix(labels: Sequence[str], confusion: Confusion) -> Html:
    rows = [
        [
            name(label, 24),
            *(_cell(count, sum(confusion[here]), here == there) for there, count in enumerate(confusion[here])),
        ]
        for here, label in enumerate(labels)
    ]
    return tag("div", table(["true \\ said", *(name(label, 24) for label in labels)], rows, folded=40), class_="matrix")


def _cell(count: int, of: int, is_hit: bool) -> Html:
    if not count:
        return tag("td", "·", class_="none")
    return tag("td", number(count), tag("small", f" {percent(count / of, 0)}"), class_="hit" if is_hit else "miss")
