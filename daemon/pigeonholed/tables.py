"""The tables of the contract, as SQLAlchemy Core sees them; Alembic's versions make them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    DateTime,
    Float,
    ForeignKey,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    text,
)
from sqlalchemy.types import TypeDecorator

if TYPE_CHECKING:
    from sqlalchemy.engine import Dialect

metadata = MetaData()

MANY = 500
"""So many values in one question at most."""


class UtcDateTime(TypeDecorator[datetime]):
    """An aware datetime in UTC; SQLite, which knows no zones, keeps it as UTC text."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> Any:
        """To the database."""
        if value is None or dialect.name != "sqlite":
            return value
        return value.astimezone(UTC).replace(tzinfo=None)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:  # noqa: ARG002
        """From the database."""
        if value is None or value.tzinfo is not None:
            return value
        return value.replace(tzinfo=UTC)


# Ids are given by the one writer, never by the database: a batch knows its ids before it is inserted.
images = Table(
    "images",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True, autoincrement=False),
    Column("inbox", Text, nullable=False),
    Column("source_path", Text, nullable=False),
    Column("sha256", String(64)),
    Column("size_bytes", BigInteger),
    Column("mtime_ns", BigInteger),
    Column("width", Integer),
    Column("height", Integer),
    Column("status", String(16), nullable=False),
    Column("outcome", String(16)),
    Column("reason", String(16)),
    Column("detail", Text),
    Column("model", Text),
    Column("model_version", Integer),
    Column("label", Text),
    Column("confidence", Float),
    Column("destination", Text),
    Column("arrived_at", UtcDateTime, nullable=False),
    Column("classified_at", UtcDateTime),
    Column("filed_at", UtcDateTime),
    # Delivery: the name of the file in the work folder, the folder that holds it, and how often it was begun.
    Column("arrival", String(32), nullable=False),
    Column("token", String(32), nullable=False),
    Column("attempts", Integer, nullable=False, server_default="1"),
    # How many processes that decoded it alone have died of it; the death of the daemon itself is never counted.
    Column("deaths", Integer, nullable=False, server_default="0"),
)

# Only the handful of rows in flight are in this index, so it costs next to nothing at millions of rows.
_IN_FLIGHT = text("status IN ('claimed', 'ingested', 'planned')")
Index("images_in_flight", images.c.status, sqlite_where=_IN_FLIGHT, postgresql_where=_IN_FLIGHT)

# The same bytes are not decoded beside others again, under whatever name they come.
IS_POISON = text("reason = 'poison'")
Index("images_poison", images.c.sha256, sqlite_where=IS_POISON, postgresql_where=IS_POISON)

predictions = Table(
    "predictions",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("rank", Integer, primary_key=True, autoincrement=False),
    Column("label", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    sqlite_with_rowid=False,
)

models = Table(
    "models",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("name", Text, nullable=False),
    Column("version", Integer, nullable=False),
    Column("digest", String(64), nullable=False),
    Column("labels", JSON, nullable=False),
    Column("loaded_at", UtcDateTime, nullable=False),
)

reviews = Table(
    "reviews",
    metadata,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), nullable=False, index=True),
    Column("label", Text, nullable=False),
    Column("previous_label", Text),
    Column("reviewed_at", UtcDateTime, nullable=False),
    Column("reviewer", Text),
)

# Files that travel with a picture. Only a copy that is durable has a hash; what was never taken has no destination.
sidecars = Table(
    "sidecars",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("part", Integer, primary_key=True, autoincrement=False),
    Column("source_path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("sha256", String(64)),
    Column("destination", Text),
    sqlite_with_rowid=False,
)

# Files that were put back, or are being put back: the intent is durable before anything moves. The daemon passes over
# a held file until it changes or is released; `retrying` ones are only remembered until they are back.
holds = Table(
    "holds",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("inbox", Text, nullable=False),
    Column("source_path", Text, nullable=False),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("state", String(16), nullable=False),
)

# Files that are being moved within the output, and what their rows said before: it comes with the plan of the move and
# goes with its result, so that a move which cannot be finished can be taken back.
refilings = Table(
    "refilings",
    metadata,
    Column("image_id", ForeignKey("images.id", ondelete="CASCADE"), primary_key=True, autoincrement=False),
    Column("destination", Text, nullable=False),
    Column("outcome", String(16), nullable=False),
    Column("model", Text, nullable=False),
    Column("model_version", Integer, nullable=False),
    Column("label", Text, nullable=False),
    Column("confidence", Float, nullable=False),
    Column("predictions", JSON, nullable=False),
    Column("classified_at", UtcDateTime, nullable=False),
    Column("filed_at", UtcDateTime, nullable=False),
)

# Files that were copied, or only looked at, and are still in their inboxes. It outlives the rows of `images`: a history
# that is cut down must not make them arrive again.
copied = Table(
    "copied",
    metadata,
    Column("inbox", Text, primary_key=True),
    Column("source_path", Text, primary_key=True),
    Column("size_bytes", BigInteger, nullable=False),
    Column("mtime_ns", BigInteger, nullable=False),
    Column("ctime_ns", BigInteger, nullable=False),
    Column("inode", BigInteger, nullable=False),
    Column("sha256", String(64), nullable=False),
    Column("image_id", BigInteger, nullable=False, index=True),
    sqlite_with_rowid=False,
)

# An inbox that was seen before may be missing for a while (a lost mount); one that never was is a mistake.
# `contents_to`: of rows up to this id, `contents` holds all that it should.
inboxes = Table(
    "inboxes",
    metadata,
    Column("name", Text, primary_key=True),
    Column("path", Text, nullable=False),
    Column("contents_to", BigInteger, nullable=False, server_default="0"),
)

# Which contents are filed (or on their way there by a plan), for inboxes that set duplicates aside; only those pay for
# it. Duplicates themselves and rejected files are not in it.
contents = Table(
    "contents",
    metadata,
    Column("inbox", Text, primary_key=True),
    Column("sha256", String(64), primary_key=True),
    Column("image_id", BigInteger, primary_key=True, autoincrement=False),
    sqlite_with_rowid=False,
)

# One row: who this database is, so that two databases never share an output folder.
identity = Table("identity", metadata, Column("id", String(32), primary_key=True))
