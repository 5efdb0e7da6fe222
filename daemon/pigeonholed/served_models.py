"""The record of model versions that have served: what was loaded once is not tried again, and its labels stay known."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import sqlalchemy as sa

from pigeonholed import tables
from pigeonholed.database import DatabaseUnavailable
from pigeonholed.reading import read
from pigeonholed.statements import Prepared
from pigeonholed.writer import Change

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from pigeonholed.writer import Writer

_LOADED = ("name", "version", "digest", "labels", "loaded_at")


class ServedModels:
    """The rows of `models`. Any thread.

    Args:
        engine: a database whose schema is the newest.
        writer: started, on the same engine.
    """

    def __init__(self, engine: Engine, writer: Writer) -> None:
        self._engine = engine
        self._writer = writer
        self._loaded = Prepared.inserting(tables.models, engine.dialect, _LOADED)

    def record(self, name: str, version: int, digest: str, labels: Sequence[str]) -> None:
        """Record that a version was loaded: one row each time."""
        row = {
            "name": name,
            "version": version,
            "digest": digest,
            "labels": list(labels),
            "loaded_at": datetime.now(UTC),
        }
        self._writer.write([Change(self._loaded, [row])])

    def has_served(self, digest: str) -> bool:
        """Whether the version of this digest was loaded before; False where no database answers."""
        query = sa.select(sa.exists().where(tables.models.c.digest == digest))
        try:
            ((served,),) = read(self._engine, query)
        except (DatabaseUnavailable, sa.exc.DBAPIError):
            return False
        return bool(served)

    def labels_of(self, model: str) -> set[str]:
        """Every label that a version of this model ever had, as far as one was loaded.

        Raises:
            DatabaseUnavailable: the database is away.
        """
        query = sa.select(tables.models.c.labels).where(tables.models.c.name == model)
        return {str(label) for row in read(self._engine, query) for label in row.labels}
