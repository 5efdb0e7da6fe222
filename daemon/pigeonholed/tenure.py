"""The right to write to a database on a server: one process at a time, however many machines can reach it.

Ids are given out by the process that writes, and rows lead from state to state as it says. Two such processes would
take the same ids for different files.

The right is a lock of the very connection that writes. Whoever loses that connection has lost the right with it, and
can do no harm; nothing of an earlier connection can still be committed once a later one has the lock. SQLite needs
none of this: its file is on one machine, where a lock of the kernel says who writes to it (`records`).
"""

from __future__ import annotations

import secrets
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed.database import DatabaseUnavailable, shown_of

if TYPE_CHECKING:
    from sqlalchemy.engine import Connection

# Two databases in one, in schemas of their own, have two locks.
_KEY = "(CAST(1885955943 AS bigint) << 32) | CAST(CAST('identity' AS regclass) AS oid)::bigint"
_TAKE = f"SELECT pg_try_advisory_lock({_KEY})"
_HOLDERS = (
    "FROM pg_locks AS held LEFT JOIN pg_stat_activity AS holder ON holder.pid = held.pid "  # noqa: S608
    "WHERE held.locktype = 'advisory' AND held.granted AND held.objsubid = 1 "
    "AND held.database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    f"AND (CAST(held.classid AS bigint) << 32) | CAST(held.objid AS bigint) = {_KEY}"
)


_ENDS_WITHIN_S = 1.0  # a process or a connection that is just ending
_LOOK_EVERY_S = 0.02


class Occupied(DatabaseUnavailable):
    """Another process writes to the database; the message says which."""


class Overtaken(DatabaseUnavailable):
    """Another process has written to the database since, or it is another one: what we know is no longer true."""


@dataclass(slots=True)
class Tenure:
    """The right of this process. Owned by the thread that writes.

    Attributes:
        name: of our connections, unlike any other process's.
    """

    name: str = field(default_factory=lambda: f"pigeonholed writer {secrets.token_hex(8)}")
    _mark: tuple[Any, ...] | None = None

    def take(self, connection: Connection) -> None:
        """Take the right for a new connection, outside a transaction; it lasts as long as the connection.

        Raises:
            Occupied: somebody else has it.
            Overtaken: somebody else has had it since we had it first.
            sqlalchemy.exc.DBAPIError: the server failed.
        """
        if connection.dialect.name != "postgresql":
            return
        with connection.begin():
            connection.execute(sa.select(sa.func.set_config("application_name", self.name, False)))
        gives_up_s = time.monotonic() + _ENDS_WITHIN_S
        while not self._lock(connection):
            if time.monotonic() >= gives_up_s:
                raise Occupied(_occupied(connection))
            time.sleep(_LOOK_EVERY_S)
        with connection.begin():
            if self._mark is None:
                # A new version of the row: its transaction is our mark, and stays until the next process does the same.
                connection.execute(sa.text("UPDATE identity SET id = id"))
        mark = _mark(connection)
        if self._mark is None:
            self._mark = mark
        elif self._mark != mark:
            raise Overtaken(
                f"another process has written to the database {shown_of(connection.engine)} since, or it is an older "
                "copy: beginning anew with what is in it"
            )

    def _lock(self, connection: Connection) -> bool:
        """Take the lock if it is free.

        A connection that we lost and the server still holds for alive, perhaps in the middle of a commit, is ended.
        """
        with connection.begin():
            if connection.scalar(sa.text(_TAKE)):
                return True
            connection.execute(
                sa.text(f"SELECT pg_terminate_backend(held.pid) {_HOLDERS} AND holder.application_name = :name"),
                {"name": self.name},
            )
        return False


def _mark(connection: Connection) -> tuple[Any, ...]:
    """Who wrote last, and on which line of history: a standby that took over may lack our last commits."""
    with connection.begin():
        writer = connection.scalar(sa.text("SELECT CAST(xmin AS text) FROM identity"))
    try:
        with connection.begin():
            line = connection.scalar(sa.text("SELECT left(pg_walfile_name(pg_current_wal_lsn()), 8)"))
    except (sa.exc.ProgrammingError, sa.exc.NotSupportedError):
        line = None  # some providers keep that to themselves
    return writer, line


def _occupied(connection: Connection) -> str:
    with connection.begin():
        holder = connection.execute(
            sa.text(
                "SELECT coalesce(host(holder.client_addr), 'the machine of the server') AS place, "
                f"to_char(holder.backend_start, 'YYYY-MM-DD HH24:MI:SS') AS since {_HOLDERS} LIMIT 1"
            )
        ).one_or_none()
    who = "another process"  # of other roles, the server tells no more than that
    if holder is not None and holder.since is not None:
        who = f"a process on {holder.place} (connected since {holder.since} UTC)"
    return (
        f"{who} already writes to the database {shown_of(connection.engine)}; "
        "stop it first, or give this one a database of its own"
    )
