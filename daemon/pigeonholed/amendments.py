"""The record of what was found to be otherwise on the disk: what mending asks of the rows, and changes in them.

Repeating a change changes nothing more, as with the steps of the ledger; no row that is in flight is touched.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import companion_rows, tables
from pigeonholed.images import Status
from pigeonholed.paths import from_text, to_text
from pigeonholed.reading import read, read_filed
from pigeonholed.statements import Prepared
from pigeonholed.steps import HoldState
from pigeonholed.writer import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Dialect, Engine

    from pigeonholed.entries import Filed, Hold
    from pigeonholed.images import Placement, Reason
    from pigeonholed.writer import Writer

_FOUND = (
    *("id", "inbox", "source_path", "sha256", "size_bytes", "mtime_ns", "status", "outcome", "reason", "detail"),
    *("label", "destination", "arrived_at", "filed_at", "arrival", "token"),
)


@dataclass(frozen=True, slots=True)
class Found:
    """A file in an output that no row explains, and what is to be recorded of it: a result without a model.

    Attributes:
        id: its new id, of `take_ids`.
        hold: where it seems to have come from.
        destination: where it is, relative to the output.
        placement: what its folder says.
        sha256: of its bytes.
        arrival: 32 hex digits that identify it.
        label: what its folder says.
        reason: what its folder says.
        detail: one sentence beside it.
    """

    id: int
    hold: Hold
    destination: str
    placement: Placement
    sha256: str
    arrival: str
    label: str | None = None
    reason: Reason | None = None
    detail: str | None = None


class Amendments:
    """Results, as far as somebody looks for their files. Any thread.

    Args:
        engine: a database whose schema is the newest.
        writer: started, on the same engine.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._steps = _Steps(engine.dialect)

    def filed_of(self, ids: Sequence[int]) -> dict[int, Filed]:
        """Results by their ids; those that are none, or are being put back, are left out.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        columns, states = tables.images.c, [HoldState.RETURNING.value, HoldState.RETRYING.value]
        leaving = sa.exists().where(tables.holds.c.image_id == columns.id, tables.holds.c.state.in_(states))
        query = sa.select(tables.images).where(
            columns.id.in_(ids), columns.status == Status.FILED.value, columns.destination.is_not(None), ~leaving
        )
        return {file.id: file for file in read_filed(self._engine, query)}

    def placed_since(self, last_id: int, paths: Sequence[str]) -> set[str]:
        """Which of these places rows with a higher id than that claim, for a picture or its sidecar.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        if not paths:
            return set()
        columns, sidecars = tables.images.c, tables.sidecars.c
        texts = [to_text(path) for path in paths]
        pictures = sa.select(columns.destination).where(
            columns.id > last_id,
            columns.destination.in_(texts),
            columns.status.in_([Status.PLANNED.value, Status.FILED.value]),
        )
        beside = sa.select(sidecars.destination).where(sidecars.image_id > last_id, sidecars.destination.in_(texts))
        return {from_text(row.destination) for query in (pictures, beside) for row in read(self._engine, query)}

    def beside_pictures(self, paths: Sequence[str]) -> set[str]:
        """Which of these places a picture's sidecar has, or had when its picture was filed; a walk through all.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        if not paths:
            return set()
        column = tables.sidecars.c.destination
        query = sa.select(column).where(column.in_([to_text(path) for path in paths]))
        return {from_text(row.destination) for row in read(self._engine, query)}

    def record(
        self,
        *,
        gone: Sequence[tuple[int, str]],
        moved: Sequence[tuple[int, str]],
        found: Sequence[Found],
        followed: Sequence[tuple[int, str, str | None]] = (),
    ) -> None:
        """Bring results into line with the disk, in one transaction.

        Args:
            gone: ids of results whose files nobody finds, each with a sentence.
            moved: ids of results that somebody has moved, each with its place now.
            found: files that no row explained; durable where they are.
            followed: sidecars: id of the picture, place that is recorded, and place now; None for those that are gone.
        """
        now = datetime.now(UTC)
        steps = self._steps
        self._writer.write(
            [
                Change(steps.gone, [{"b_id": number, "b_detail": detail} for number, detail in gone]),
                Change(steps.moved, [{"b_id": number, "b_destination": to_text(place)} for number, place in moved]),
                Change(steps.found, [_found_row(one, now) for one in found]),
                Change(steps.companion_followed, [companion_rows.followed(*one) for one in followed]),
            ]
        )


class _Steps:
    """Each change, prepared for one kind of database."""

    def __init__(self, dialect: Dialect) -> None:
        images = tables.images
        filed = sa.update(images).where(images.c.id == sa.bindparam("b_id"), images.c.status == Status.FILED.value)
        self.gone = Prepared.compile(
            filed.values(status=Status.VANISHED.value, detail=sa.bindparam("b_detail")), dialect
        )
        self.moved = Prepared.compile(filed.values(destination=sa.bindparam("b_destination")), dialect)
        self.found = Prepared.inserting(images, dialect, _FOUND)
        self.companion_followed = Prepared.compile(companion_rows.follow(), dialect)


def _found_row(found: Found, now: datetime) -> dict[str, Any]:
    return {
        "id": found.id,
        "inbox": found.hold.inbox,
        "source_path": to_text(found.hold.path),
        "sha256": found.sha256,
        "size_bytes": found.hold.size,
        "mtime_ns": found.hold.mtime_ns,
        "status": Status.FILED.value,
        "outcome": found.placement.value,
        "reason": None if found.reason is None else found.reason.value,
        "detail": found.detail,
        "label": found.label,
        "destination": to_text(found.destination),
        "arrived_at": now,
        "filed_at": now,
        "arrival": found.arrival,
        "token": "found",
    }
