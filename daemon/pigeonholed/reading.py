"""Questions to the database by whoever writes to it, each in a transaction of its own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import entry_rows, tables
from pigeonholed.database import unavailable
from pigeonholed.postgres import passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from pigeonholed.entries import Filed

MANY = 500
"""So many values in one question at most."""


def read(engine: Engine, query: sa.Select[Any]) -> Sequence[Any]:
    """The rows that answer.

    Raises:
        DatabaseUnavailable: the database is away.
        sqlalchemy.exc.DBAPIError: it has failed for good.
    """
    try:
        with engine.connect() as connection:
            return connection.execute(query).all()
    except sa.exc.DBAPIError as error:
        if passes(error):
            raise unavailable(engine, error) from error
        raise


def read_companions(engine: Engine, ids: Sequence[int]) -> dict[int, list[Any]]:
    """The rows of companions, by the ids of their pictures; one look where no picture ever had any.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    found: dict[int, list[Any]] = {}
    columns = tables.sidecars.c
    if not ids or not read(engine, sa.select(columns.image_id).limit(1)):
        return found
    for start in range(0, len(ids), MANY):
        query = sa.select(tables.sidecars).where(columns.image_id.in_(ids[start : start + MANY]))
        for row in read(engine, query.order_by(columns.image_id, columns.part)):
            found.setdefault(row.image_id, []).append(row)
    return found


def read_filed(engine: Engine, query: sa.Select[Any]) -> list[Filed]:
    """The results that a query on `images` selects, with what was filed with them.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    rows = read(engine, query)
    companions = read_companions(engine, [row.id for row in rows])
    return [entry_rows.to_filed(row, companions.get(row.id, ())) for row in rows]
