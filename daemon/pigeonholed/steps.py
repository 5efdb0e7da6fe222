"""The statements of the delivery protocol; `Ledger` says when each is run."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import tables
from pigeonholed.images import STAYS, Status
from pigeonholed.statements import Prepared, insert_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect
    from sqlalchemy.sql import ClauseElement

_CLAIMED = (
    "id",
    "inbox",
    "source_path",
    "size_bytes",
    "mtime_ns",
    "status",
    "arrived_at",
    "arrival",
    "token",
)
_INGESTED = ("status", "sha256", "size_bytes", "mtime_ns")
_PLANNED = (
    "status",
    "sha256",
    "size_bytes",
    "mtime_ns",
    "width",
    "height",
    "outcome",
    "reason",
    "detail",
    "model",
    "model_version",
    "label",
    "confidence",
    "destination",
    "classified_at",
)


class HoldState(StrEnum):
    """How far the putting back of a file has come."""

    RETURNING = "returning"  # it is about to be put back, to be held there
    RETRYING = "retrying"  # it is about to be put back, to be taken again
    HELD = "held"  # it is back, and passed over


class Steps:
    """Each step, prepared for one kind of database. Running one twice is the same as running it once."""

    def __init__(self, dialect: Dialect) -> None:
        insert = insert_of(dialect)
        images, holds = tables.images, tables.holds
        this = images.c.id == sa.bindparam("b_id")
        mine = sa.and_(this, images.c.token == sa.bindparam("b_token"))
        held = holds.c.image_id == sa.bindparam("b_id")

        def in_state(*states: Status) -> Any:
            return sa.or_(*(images.c.status == state.value for state in states))

        def prepared(statement: ClauseElement) -> Prepared:
            return Prepared.compile(statement, dialect)

        def inserted(table: sa.Table, *columns: str) -> Prepared:
            return Prepared.inserting(table, dialect, columns)

        self.claim = inserted(images, *_CLAIMED)
        self.predict = inserted(tables.predictions)
        self.inbox = inserted(tables.inboxes, "name", "path")
        self.ingest = prepared(
            sa.update(images)
            .where(mine, in_state(Status.CLAIMED, Status.INGESTED))
            .values({name: sa.bindparam(f"b_{name}") for name in _INGESTED})
        )
        self.plan = prepared(
            sa.update(images)
            .where(mine, in_state(Status.CLAIMED, Status.INGESTED, Status.PLANNED))
            .values({name: sa.bindparam(f"b_{name}") for name in _PLANNED})
        )
        self.note = prepared(
            sa.update(images)
            .where(mine, in_state(Status.CLAIMED))
            .values({name: sa.bindparam(f"b_{name}") for name in (*_PLANNED, "filed_at")})
        )
        self.filed = prepared(
            sa.update(images)
            .where(mine, images.c.status == Status.PLANNED.value)
            .values(status=Status.FILED.value, filed_at=sa.bindparam("b_filed_at"))
        )
        remembered = insert(tables.copied)
        latest = {
            column.name: remembered.excluded[column.name] for column in tables.copied.columns if not column.primary_key
        }
        self.remember = Prepared.compile(
            remembered.on_conflict_do_update(index_elements=["inbox", "source_path"], set_=latest),
            dialect,
            tuple(column.name for column in tables.copied.columns),
        )
        copied = tables.copied
        path = sa.and_(copied.c.inbox == sa.bindparam("b_inbox"), copied.c.source_path == sa.bindparam("b_source_path"))
        version = (copied.c.size_bytes == sa.bindparam("b_size_bytes"), copied.c.mtime_ns == sa.bindparam("b_mtime_ns"))
        known = sa.select(copied.c.image_id).where(path, *version).scalar_subquery()
        self.supersede = prepared(
            sa.update(images)
            .where(images.c.id == known, images.c.token == STAYS, images.c.status == Status.FILED.value)
            .values(status=Status.RETURNED.value)
        )
        contents = tables.contents
        self.superseded_content = prepared(
            sa.delete(contents).where(
                contents.c.inbox == sa.bindparam("b_inbox"),
                contents.c.sha256 == sa.select(copied.c.sha256).where(path, *version).scalar_subquery(),
                contents.c.image_id == known,
                contents.c.image_id.in_(sa.select(images.c.id).where(images.c.id == known, images.c.token == STAYS)),
            )
        )
        looked_at = sa.select(images.c.id).where(images.c.token == STAYS)
        self.superseded = prepared(sa.delete(copied).where(path, copied.c.image_id.in_(looked_at)))
        self.forget = prepared(sa.delete(tables.copied).where(tables.copied.c.image_id == sa.bindparam("b_id")))
        self._prepare_contents(insert, dialect)
        sidecars = tables.sidecars
        part = sa.and_(sidecars.c.image_id == sa.bindparam("b_id"), sidecars.c.part == sa.bindparam("b_part"))
        self.companion = inserted(sidecars, "image_id", "part", "source_path", "size_bytes", "mtime_ns")
        self.companion_copied = prepared(
            sa.update(sidecars)
            .where(part)
            .values({name: sa.bindparam(f"b_{name}") for name in ("sha256", "size_bytes", "mtime_ns")})
        )
        self.companion_planned = prepared(
            sa.update(sidecars).where(part).values(destination=sa.bindparam("b_destination"))
        )
        self.attempt = prepared(sa.update(images).where(this).values(attempts=images.c.attempts + 1))
        # A number, not one more: said again after a lost acknowledgement, it is the same.
        self.deaths = prepared(sa.update(images).where(this).values(deaths=sa.bindparam("b_deaths")))
        self.close = prepared(
            sa.update(images).where(this).values(status=sa.bindparam("b_status"), detail=sa.bindparam("b_detail"))
        )
        self.hold = inserted(holds)
        self.back = prepared(sa.update(images).where(this).values(status=Status.RETURNED.value))
        self.held = prepared(
            sa.update(holds).where(held, holds.c.state == HoldState.RETURNING.value).values(state=HoldState.HELD.value)
        )
        self.retried = prepared(sa.delete(holds).where(held, holds.c.state == HoldState.RETRYING.value))
        self.unheld = prepared(sa.delete(holds).where(held))
        self.release = prepared(sa.delete(holds).where(holds.c.state == sa.bindparam("b_state")))

    def _prepare_contents(self, insert: Any, dialect: Dialect) -> None:
        """What is known of the contents that are filed."""
        images, contents = tables.images, tables.contents
        this = sa.bindparam("b_id", type_=sa.BigInteger)
        of_this = {
            name: sa.select(images.c[name]).where(images.c.id == this).scalar_subquery() for name in ("inbox", "sha256")
        }
        columns = ("inbox", "sha256", "image_id")
        self.content = Prepared.compile(insert(contents).on_conflict_do_nothing(), dialect, columns)
        # By the primary key: an index on image_id alone would cost more than the rest.
        self.discontent = Prepared.compile(
            sa.delete(contents).where(
                contents.c.inbox == of_this["inbox"],
                contents.c.sha256 == of_this["sha256"],
                contents.c.image_id == this,
            ),
            dialect,
        )
