"""Connections to the database, and its schema."""

from __future__ import annotations

import os
import secrets
import sqlite3
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import sqlalchemy as sa
import structlog
from sqlalchemy import event
from sqlalchemy.engine import make_url

from pigeonholed import postgres, tables
from pigeonholed.database_url import redacted
from pigeonholed.durable import sync
from pigeonholed.errors import Unavailable
from pigeonholed.resources import shipped_folder

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Any

    from alembic.config import Config
    from sqlalchemy.engine import Connection, Engine

log = structlog.get_logger()


WRITES = {"pigeonholed_writes": True}
"""Execution options of a connection whose transactions write; all others only read, and wait for no writer."""


class DatabaseUnavailable(Unavailable):
    """The database cannot be reached or opened; the message says which and why, without a password."""


class DatabaseAway(DatabaseUnavailable):
    """A server that does not serve now, and may again by itself: a service waits for it."""


class SchemaMismatch(Unavailable):
    """The schema is not the one this program works with; the message says what to do."""


def connect(url: str, *, read_only: bool = False) -> Engine:
    """Make an engine; nothing is opened until it is used.

    SQLite gets write-ahead logging with `synchronous=FULL`: under NORMAL a power cut may roll back commits that
    moves of files already rest upon. Read-only engines cannot checkpoint, so that one process does (SQLite's
    WAL-reset fault before 3.51.3 needs two).

    Raises:
        Missing: the driver of a server is not installed.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        return postgres.connect(parsed, read_only=read_only)
    if read_only:
        parsed = parsed.set(database=f"file:{quote(str(parsed.database))}", query={"mode": "ro", "uri": "true"})
    engine = sa.create_engine(parsed, connect_args={"timeout": 5.0, "check_same_thread": False}, hide_parameters=True)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # sqlite3 must not guess where transactions begin; `_begin` says it
        if not read_only:
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("PRAGMA synchronous=FULL")
        connection.execute("PRAGMA foreign_keys=ON")

    @event.listens_for(engine, "begin")
    def _begin(connection: Connection) -> None:
        # One that reads and then writes would be refused, and not kept waiting, where another has written meanwhile.
        writes = WRITES.keys() <= connection.get_execution_options().keys()
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _alembic(connection: Connection | None = None) -> Config:
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(shipped_folder("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    return config


@contextmanager
def _own_files() -> Iterator[None]:
    """Alembic says with an ImportError that a file of this program cannot be found, whatever the disk has said."""
    try:
        yield
    except ImportError as error:
        raise Unavailable(
            f"cannot read the files that bring a database up to date: {error}; "
            "try again, and if it stays so, install pigeonholed again"
        ) from error


def newest_revision() -> str:
    """The revision that this program works with.

    Raises:
        Unavailable: it cannot be read.
    """
    from alembic.script import ScriptDirectory

    with _own_files():
        head = ScriptDirectory.from_config(_alembic()).get_current_head()
    if head is None:
        raise SchemaMismatch("this installation holds no migrations; install pigeonholed again")
    return head


def current_revision(engine: Engine) -> str | None:
    """The revision of the database, None for an empty one.

    Raises:
        DatabaseUnavailable: it cannot be reached or is no database.
    """
    try:
        with engine.connect() as connection:
            if not sa.inspect(connection).has_table("alembic_version"):
                return None
            revision: str | None = connection.scalar(sa.text("SELECT version_num FROM alembic_version"))
            return revision
    except sa.exc.DBAPIError as error:
        raise unavailable(engine, error) from error


def wait_for(engine: Engine, stop: threading.Event, *, patience_s: float | None) -> None:
    """Return when the database can be written to.

    Raises:
        DatabaseUnavailable: it could not within `patience_s` (None: for ever), or `stop` was set.
    """
    started_s = time.monotonic()
    wait_s = 0.25
    while True:
        try:
            with engine.execution_options(**WRITES).connect() as connection:
                connection.execute(sa.text("SELECT 1"))
        except sa.exc.DBAPIError as error:
            fault = unavailable(engine, error)
            impatient = patience_s is not None and time.monotonic() - started_s >= patience_s
            if impatient or not postgres.passes(error) or stop.wait(wait_s):
                raise fault from error
            log.warning("database_awaited", error=str(fault))
            wait_s = min(wait_s * 2, 5.0)
        else:
            return


def backup(engine: Engine, file: Path) -> int:
    """Copy a database to a new file while it is in use; returns its size in bytes.

    Raises:
        Unavailable: the copy could not be made, or the program for it is missing; then nothing is left of it.
    """
    draft = file.with_name(f".{file.name}.{secrets.token_hex(4)}.tmp")
    try:
        if file.exists():
            raise DatabaseUnavailable(f"cannot write a backup to {file}: there is a file of that name")
        if engine.dialect.name == "sqlite":
            with engine.connect() as connection:
                # On the bare connection, outside a transaction: VACUUM INTO reads a snapshot of its own.
                connection.connection.cursor().execute("VACUUM INTO ?", (str(draft),))
        else:
            postgres.dump(engine, draft, file)
        sync(draft)
        os.link(draft, file)
        sync(file.parent)
        return file.stat().st_size
    except (sa.exc.DBAPIError, sqlite3.Error, OSError) as error:
        raise DatabaseUnavailable(f"cannot write a backup to {file}: {error}") from error
    finally:
        draft.unlink(missing_ok=True)


def shown_of(engine: Engine) -> str:
    """The database as a user knows it: the file of SQLite, else the address without its password."""
    name = engine.url.database or ""
    if engine.dialect.name != "sqlite":
        return redacted(engine.url.render_as_string(hide_password=True))
    return unquote(name.removeprefix("file:")) if name.startswith("file:") else name


def unavailable(engine: Engine, error: sa.exc.DBAPIError) -> DatabaseUnavailable:
    """Say in one sentence that the database cannot be used."""
    cause = redacted(" ".join(str(error.orig).split()))
    kind = DatabaseAway if is_away(error) else DatabaseUnavailable
    return kind(f"cannot use the database {shown_of(engine)}: {cause}")


def is_away(error: sa.exc.DBAPIError) -> bool:
    """Whether an error says that a server does not serve now."""
    return type(error.orig).__module__.partition(".")[0] == "psycopg" and postgres.passes(error)


def upgrade(engine: Engine) -> str:
    """Bring the schema to the newest revision in one transaction; returns that revision.

    Raises:
        DatabaseUnavailable: it cannot be reached or is no database.
        SchemaMismatch: it was made by a newer pigeonholed.
        Unavailable: the files of this program that do it cannot be read.
    """
    from alembic import command

    check_not_newer(engine)
    try:
        with _own_files(), engine.execution_options(**WRITES).begin() as connection:
            if engine.dialect.name == "postgresql":
                postgres.lock_for_migration(connection)
            command.upgrade(_alembic(connection), "head")
            if connection.scalar(sa.select(sa.func.count()).select_from(tables.identity)) == 0:
                connection.execute(tables.identity.insert().values(id=secrets.token_hex(16)))
    except sa.exc.DBAPIError as error:
        raise unavailable(engine, error) from error
    return newest_revision()


def identity_of(engine: Engine) -> str | None:
    """Who this database is; None for one without a schema."""
    if current_revision(engine) is None:
        return None
    try:
        with engine.connect() as connection:
            identity: str | None = connection.scalar(sa.select(tables.identity.c.id))
            return identity
    except sa.exc.DBAPIError as error:
        raise unavailable(engine, error) from error


def is_durable(engine: Engine) -> bool:
    """Whether the database syncs what it commits; a server may have been told not to.

    Raises:
        DatabaseUnavailable: it cannot be reached.
    """
    if engine.dialect.name == "sqlite":
        return True
    try:
        with engine.connect() as connection:
            return bool(connection.scalar(sa.text("SHOW fsync")) == "on")
    except sa.exc.DBAPIError as error:
        raise unavailable(engine, error) from error


def check_not_newer(engine: Engine) -> None:
    """Refuse a schema whose revision this program does not know.

    Raises:
        SchemaMismatch: a newer pigeonholed made it.
    """
    from alembic.script import ScriptDirectory

    current = current_revision(engine)
    with _own_files():
        known = {script.revision for script in ScriptDirectory.from_config(_alembic()).walk_revisions()}
    if current is not None and current not in known:
        shown = shown_of(engine)
        raise SchemaMismatch(
            f"the database {shown} has schema {current}, which a newer pigeonholed made; "
            f"this one knows {newest_revision()}: install the newer version again, or use another database"
        )


def prepare(engine: Engine, *, may_upgrade: bool = True) -> None:
    """Make sure that the schema is the newest one.

    Raises:
        DatabaseUnavailable: it cannot be reached or is no database.
        SchemaMismatch: it is newer, or older and `may_upgrade` is false.
    """
    check_not_newer(engine)
    current = current_revision(engine)
    newest = newest_revision()
    if current == newest:
        return
    if not may_upgrade:
        shown = shown_of(engine)
        raise SchemaMismatch(
            f"the database {shown} has schema {current or 'none'} and this pigeonholed needs {newest}: "
            "run 'pigeonholed db upgrade', or leave out --no-upgrade"
        )
    upgrade(engine)
