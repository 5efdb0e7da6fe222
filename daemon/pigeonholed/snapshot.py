"""Reading the records without touching them: beside a daemon that works, and where none runs."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import database
from pigeonholed.tables import images

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sqlalchemy.engine import Connection

    from pigeonholed.settings import Settings

PAGE_ROWS = 500


@contextmanager
def snapshot(settings: Settings) -> Iterator[Connection]:
    """A connection that cannot write, on which everything is as it was at the first look.

    Nobody waits for it; but as long as it is open, what a daemon writes to SQLite's log is not taken over into the
    database itself, and the log grows.

    Raises:
        DatabaseUnavailable: there is no database yet, or it cannot be read; within the block too.
        SchemaMismatch: a newer or an older pigeonholed made it.
    """
    file = settings.database.file
    if file is not None and not file.exists():
        raise database.DatabaseUnavailable(f"there is no database {file} yet; 'pigeonholed run' makes it")
    engine = database.connect(settings.database.url, read_only=True)
    try:
        database.check_not_newer(engine)
        database.prepare(engine, may_upgrade=False)
        with engine.connect() as connection:
            if engine.dialect.name != "sqlite":
                connection.execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True)
            yield connection
    except sa.exc.DBAPIError as error:
        raise database.unavailable(engine, error) from error
    finally:
        engine.dispose()


def pages(
    connection: Connection,
    query: sa.Select[Any],
    *,
    newest_first: bool = False,
    most: int | None = None,
    size: int = PAGE_ROWS,
) -> Iterator[Sequence[sa.Row[Any]]]:
    """The rows of a query on `images` by their ids, a page in memory at a time; it must select `images.c.id`.

    Args:
        connection: for reading.
        query: without an order.
        newest_first: the highest id first.
        most: so many rows at most; None for all.
        size: rows of a page.
    """
    order = images.c.id.desc() if newest_first else images.c.id
    last: int | None = None
    left = most
    while left is None or left > 0:
        page = query.order_by(order).limit(size if left is None else min(size, left))
        if last is not None:
            page = page.where(images.c.id < last if newest_first else images.c.id > last)
        rows = connection.execute(page).all()
        if not rows:
            return
        yield rows
        last = rows[-1].id
        left = None if left is None else left - len(rows)
