"""The results as a table: which columns, in which order, and their rows.

The columns are those of the table `images` in the contract, always and in its order; others follow where they are
asked for. They are the same in every format.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed.snapshot import pages
from pigeonholed.tables import images, predictions, reviews

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from pigeonholed.results import Selection


class Kind(StrEnum):
    """What the cells of a column hold; each may be empty."""

    TEXT = "text"
    WORD = "word"  # text of which there are few
    INTEGER = "integer"
    NUMBER = "number"
    TIME = "time"  # aware, UTC


@dataclass(frozen=True, slots=True)
class Column:
    """One column; `name` never changes its meaning."""

    name: str
    kind: Kind


Cells = tuple[Any, ...]
"""One row: a str, an int, a float, an aware datetime or None for each column."""

_KINDS = {
    "id": Kind.INTEGER,
    "inbox": Kind.WORD,
    "source_path": Kind.TEXT,
    "sha256": Kind.TEXT,
    "size_bytes": Kind.INTEGER,
    "mtime_ns": Kind.INTEGER,
    "width": Kind.INTEGER,
    "height": Kind.INTEGER,
    "status": Kind.WORD,
    "outcome": Kind.WORD,
    "reason": Kind.WORD,
    "detail": Kind.TEXT,
    "model": Kind.WORD,
    "model_version": Kind.INTEGER,
    "label": Kind.WORD,
    "confidence": Kind.NUMBER,
    "destination": Kind.TEXT,
    "arrived_at": Kind.TIME,
    "classified_at": Kind.TIME,
    "filed_at": Kind.TIME,
}
_REVIEW = {
    "review_label": (Kind.WORD, "label"),
    "review_previous_label": (Kind.WORD, "previous_label"),
    "reviewed_at": (Kind.TIME, "reviewed_at"),
    "reviewer": (Kind.WORD, "reviewer"),
}


@dataclass(frozen=True, slots=True)
class Export:
    """Which rows and columns.

    Attributes:
        selection: the rows.
        top: how many of the most probable labels stand beside each, with their confidences.
        review: whether the latest review stands beside each.
    """

    selection: Selection
    top: int = 0
    review: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """In the order of the cells."""
        found = [Column(name, kind) for name, kind in _KINDS.items()]
        for rank in range(1, self.top + 1):
            found += [Column(f"top_{rank}_label", Kind.WORD), Column(f"top_{rank}_confidence", Kind.NUMBER)]
        if self.review:
            found += [Column(name, kind) for name, (kind, _column) in _REVIEW.items()]
        return tuple(found)

    def count(self, connection: Connection) -> int:
        """How many rows there are."""
        query = sa.select(sa.func.count()).select_from(images).where(*self.selection.conditions())
        return connection.execute(query).scalar_one()

    def rows(self, connection: Connection) -> Iterator[list[Cells]]:
        """The rows by id, a page in memory at a time."""
        query = sa.select(*(images.c[name] for name in _KINDS)).where(*self.selection.conditions())
        for page in pages(connection, query):
            cells = [tuple(row) for row in page]
            ids = [row.id for row in page]
            if self.top:
                cells = _joined(cells, self._top(connection, ids))
            if self.review:
                cells = _joined(cells, _reviews(connection, ids))
            yield cells

    def _top(self, connection: Connection, ids: Sequence[int]) -> list[Cells]:
        columns = predictions.c
        query = sa.select(columns.image_id, columns.rank, columns.label, columns.confidence).where(
            columns.image_id.in_(ids), columns.rank <= self.top
        )
        found = {(row.image_id, row.rank): (row.label, row.confidence) for row in connection.execute(query)}
        ranks = range(1, self.top + 1)
        return [tuple(cell for rank in ranks for cell in found.get((number, rank), (None, None))) for number in ids]


def _reviews(connection: Connection, ids: Sequence[int]) -> list[Cells]:
    """The latest of each, which is the one with the highest id."""
    columns = [reviews.c[column] for _kind, column in _REVIEW.values()]
    query = sa.select(reviews.c.image_id, *columns).where(reviews.c.image_id.in_(ids)).order_by(reviews.c.id)
    found = {row[0]: tuple(row[1:]) for row in connection.execute(query)}
    return [found.get(number, (None,) * len(columns)) for number in ids]


def _joined(one: list[Cells], other: list[Cells]) -> list[Cells]:
    return [(*left, *right) for left, right in zip(one, other, strict=True)]


def iso_of(moment: datetime) -> str:
    """A time as text: ISO 8601 in UTC, to the microsecond, so that texts sort as the times do."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
