"""Questions to the database by whoever writes to it, each in a transaction of its own."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import entry_rows
from pigeonholed.companion_rows import companions_of
from pigeonholed.database import unavailable
from pigeonholed.postgres import passes

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy.engine import Engine

    from pigeonholed.entries import Filed


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
    return companions_of(ids, partial(read, engine))


def read_filed(engine: Engine, query: sa.Select[Any]) -> list[Filed]:
    """The results that a query on `images` selects, with what was filed with them.

    Raises:
        DatabaseUnavailable: the database is away.
    """
    rows = read(engine, query)
    companions = read_companions(engine, [row.id for row in rows])
    return [entry_rows.to_filed(row, companions.get(row.id, ())) for row in rows]
