"""The rows of a database that a daemon writes, read and changed behind its back, of whichever kind it is."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import psycopg
import psycopg.rows

ON_POSTGRES = os.environ.get("PIGEONHOLED_TEST_DATABASE", "sqlite") == "postgres"
"""Whether the tests of the whole program give each working folder a database on a server (`make test-postgres`)."""

Database = Path | str
"""The file of SQLite, or the address of a server's database as libpq takes it."""


class NotThere(Exception):
    """The database has no such table yet, or is not there."""


def read(database: Database, query: str) -> list[dict[str, Any]]:
    """The rows that a query gives.

    Raises:
        NotThere: it or its tables are not made yet.
    """
    if isinstance(database, str):
        try:
            with psycopg.connect(database, row_factory=psycopg.rows.dict_row) as connection:
                return connection.execute(query).fetchall()  # type: ignore[call-overload]
        except (psycopg.errors.UndefinedTable, psycopg.OperationalError) as error:
            raise NotThere(str(error)) from error
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            connection.row_factory = sqlite3.Row
            return [dict(row) for row in connection.execute(query)]
    except sqlite3.OperationalError as error:
        raise NotThere(str(error)) from error


def change(database: Database, statement: str) -> None:
    """Run a statement and commit."""
    if isinstance(database, str):
        with psycopg.connect(database) as server:
            server.execute(statement)  # type: ignore[call-overload]
        return
    with closing(sqlite3.connect(database)) as connection:
        connection.execute(statement)
        connection.commit()


def ask(database: Database, statement: str, *values: object) -> list[tuple[Any, ...]]:
    """Run a statement with a `?` for each value, and commit; the rows that it gives."""
    if isinstance(database, str):
        with psycopg.connect(database) as server:
            query = statement.replace("?", "%s") if values else statement
            cursor = server.execute(query, values or None)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []
    with closing(sqlite3.connect(database)) as connection, connection:
        return connection.execute(statement, values).fetchall()
