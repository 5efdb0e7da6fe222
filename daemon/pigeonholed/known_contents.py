"""The record of which bytes are filed in an inbox, for those that set duplicates aside.

The ledger keeps it with its own steps: a plan adds what it makes stand, and what ends or is put back is taken away in
the same transaction. Here it is asked, and made good for the times when nobody asked.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import tables
from pigeonholed.database import unavailable
from pigeonholed.images import IN_FLIGHT, Original, Placement, Status
from pigeonholed.postgres import passes
from pigeonholed.reading import read
from pigeonholed.statements import Prepared, insert_of
from pigeonholed.writer import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Dialect, Engine

    from pigeonholed.writer import Writer

_PAGE = 20_000  # rows looked at in one transaction
_STANDING = (Status.PLANNED, Status.FILED)
_ORIGINAL = (Placement.SORTED, Placement.UNSURE)


class KnownContents:
    """The rows of `contents`. Any thread.

    Args:
        engine: a database whose schema is the newest.
        writer: started, on the same engine.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._know = _know(engine.dialect)
        self._known_to = _known_to(engine.dialect)

    def originals(self, inbox: str, hashes: Sequence[str]) -> dict[str, Original]:
        """Of these hashes, those that are filed in an inbox or about to be, but for duplicates and what was rejected.

        Raises:
            TimeoutError: the database is away.
        """
        try:
            return find(self._engine, inbox, hashes)
        except sa.exc.DBAPIError as error:
            if not passes(error):
                raise
            raise TimeoutError(errno.ETIMEDOUT, str(unavailable(self._engine, error))) from error

    def know(self, inbox: str) -> None:
        """Know all that is filed in an inbox, also of times when nobody asked; a page at a time, before others write.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        columns, inboxes = tables.images.c, tables.inboxes
        rows = read(self._engine, sa.select(inboxes.c.contents_to).where(inboxes.c.name == inbox))
        known_to = rows[0].contents_to if rows else None
        newest = sa.select(sa.func.max(columns.id)).scalar_subquery()
        unfinished = columns.status.in_([status.value for status in IN_FLIGHT])
        oldest_in_flight = sa.select(sa.func.min(columns.id)).where(unfinished).scalar_subquery()
        ((last, in_flight),) = read(self._engine, sa.select(newest, oldest_in_flight))
        last = last or 0
        # What is in flight now may be planned by a process that does not write this down.
        most = last if in_flight is None else in_flight - 1
        for start in range(known_to or 0, last, _PAGE):
            end = min(start + _PAGE, last)
            pages = [{"b_inbox": inbox, "b_from": start, "b_to": end}]
            known = [{"b_inbox": inbox, "b_known": min(end, most)}]
            self._writer.write([Change(self._know, pages), Change(self._known_to, known)])


def find(engine: Engine, inbox: str, hashes: Sequence[str]) -> dict[str, Original]:
    """Of these hashes, those that are filed in an inbox or planned to be, and by which image: the first, of several.

    Raises:
        DBAPIError: the database is away.
    """
    found: dict[str, Original] = {}
    with engine.connect() as connection:
        for start in range(0, len(hashes), tables.MANY):
            rows = connection.execute(_originals(inbox, hashes[start : start + tables.MANY]))
            found |= {row.sha256: Original(row.id, row.destination) for row in rows}
    return found


def _originals(inbox: str, hashes: Sequence[str]) -> sa.Select[Any]:
    images, contents = tables.images, tables.contents
    first = (
        sa.select(sa.func.min(images.c.id).label("id"))
        .join_from(contents, images, images.c.id == contents.c.image_id)
        .where(contents.c.inbox == inbox, contents.c.sha256.in_(hashes))
        .where(images.c.status.in_([status.value for status in _STANDING]))
        .group_by(contents.c.sha256)
        .subquery()
    )
    return sa.select(images.c.sha256, images.c.id, images.c.destination).join(first, first.c.id == images.c.id)


def _know(dialect: Dialect) -> Prepared:
    """What stands, of the rows of an inbox between two ids."""
    images, contents = tables.images, tables.contents
    insert = insert_of(dialect)
    standing = sa.select(images.c.inbox, images.c.sha256, images.c.id).where(
        images.c.id > sa.bindparam("b_from"),
        images.c.id <= sa.bindparam("b_to"),
        images.c.inbox == sa.bindparam("b_inbox"),
        images.c.sha256.is_not(None),
        sa.or_(*(images.c.status == state.value for state in _STANDING)),
        sa.or_(*(images.c.outcome == kind.value for kind in _ORIGINAL)),
    )
    columns = ("inbox", "sha256", "image_id")
    return Prepared.compile(insert(contents).from_select(columns, standing).on_conflict_do_nothing(), dialect)


def _known_to(dialect: Dialect) -> Prepared:
    """Up to which id that is done."""
    inboxes = tables.inboxes
    return Prepared.compile(
        sa.update(inboxes)
        .where(inboxes.c.name == sa.bindparam("b_inbox"), inboxes.c.contents_to < sa.bindparam("b_known"))
        .values(contents_to=sa.bindparam("b_known")),
        dialect,
    )
