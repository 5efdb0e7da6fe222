"""What is particular to a Postgres server: how connections are made, which errors pass, and the copy by `pg_dump`."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa
from sqlalchemy import event

from pigeonholed.database_url import redacted
from pigeonholed.errors import Unavailable

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from sqlalchemy.engine import URL, Connection, Engine

MIGRATING = 0x7069_6765_6F6E
"""Lock of who changes the schema; others wait for him."""

# A dead network is noticed in half a minute, by us and by the server, whose own default is two hours: until then it
# keeps the locks of a connection that is gone.
_IDLE_S, _INTERVAL_S, _COUNT = 10, 5, 3
_UNANSWERED_MS = 1000 * (_IDLE_S + _INTERVAL_S * _COUNT)
_OURS: dict[str, Any] = {
    "connect_timeout": 5,
    "keepalives": 1,
    "keepalives_idle": _IDLE_S,
    "keepalives_interval": _INTERVAL_S,
    "keepalives_count": _COUNT,
    "tcp_user_timeout": _UNANSWERED_MS,
    "application_name": "pigeonholed",
}
_OF_THE_SESSION: Mapping[str, str | int] = {
    "TimeZone": "UTC",
    "client_encoding": "UTF8",
    "default_transaction_isolation": "read committed",
    "tcp_keepalives_idle": _IDLE_S,
    "tcp_keepalives_interval": _INTERVAL_S,
    "tcp_keepalives_count": _COUNT,
    "tcp_user_timeout": _UNANSWERED_MS,
}
_PASSING = frozenset(
    {
        "25006",  # read_only_sql_transaction: a standby, until it is promoted
        "25P03",  # idle_in_transaction_session_timeout
        "57P05",  # idle_session_timeout
    }
)
"""States that psycopg does not call operational errors, and that pass nevertheless."""


class Missing(Unavailable):
    """The driver, or a program that was needed, is not installed."""


def connect(url: URL, *, read_only: bool = False) -> Engine:
    """Make an engine; nothing is opened until it is used.

    Commits are durable when they return, whatever the server, the role or the database have as their default. What
    the URL itself says in its query comes before our timeouts.

    Raises:
        Missing: the driver is not installed.
    """
    wanted = dict(_OURS)
    if not read_only:
        wanted["target_session_attrs"] = "read-write"  # of several hosts the one that is no standby
    arguments = {name: value for name, value in wanted.items() if name not in url.query}
    try:
        engine = sa.create_engine(url, connect_args=arguments, pool_pre_ping=True, hide_parameters=True)
    except ImportError as error:
        raise Missing(
            f"cannot use the database {redacted(url.render_as_string())}: its driver psycopg cannot be loaded "
            f"({str(error).splitlines()[0]}); install it: pip install pigeonholed[postgres]"
        ) from None

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _record: object) -> None:
        settings = dict(_OF_THE_SESSION)
        if read_only:
            settings["default_transaction_read_only"] = "on"
        connection.autocommit = True
        for name, value in settings.items():
            connection.execute("SELECT set_config(%s, %s, false)", (name, str(value)))
        # `remote_apply` waits for even more.
        connection.execute(
            "SELECT set_config('synchronous_commit', 'on', false) "
            "WHERE current_setting('synchronous_commit') <> 'remote_apply'"
        )
        connection.autocommit = False

    return engine


def passes(error: sa.exc.DBAPIError) -> bool:
    """Whether an error of the driver says that the server is away or busy now: the transaction may be tried again.

    Among the operational errors are deadlocks, serialization failures, timeouts of statements and locks, too many
    connections, full disks, and a server that starts or ends.
    """
    state = getattr(error.orig, "sqlstate", None)
    return isinstance(error, sa.exc.OperationalError) or error.connection_invalidated or state in _PASSING


def lock_for_migration(connection: Connection) -> None:
    """Wait until no other process migrates; until the end of the transaction none will."""
    connection.execute(sa.select(sa.func.pg_advisory_xact_lock(MIGRATING)))


def dump(engine: Engine, draft: Path, file: Path) -> None:
    """Write the database to the new file `draft`, in the custom format of `pg_dump`.

    Args:
        engine: which database.
        draft: where to.
        file: what it will be called in the end, for messages.

    Raises:
        Missing: there is no `pg_dump`; the message has the command to give where there is one.
        Unavailable: it failed.
    """
    from psycopg.conninfo import make_conninfo

    _arguments, given = engine.dialect.create_connect_args(engine.url)
    named: dict[str, Any] = {key: value for key, value in given.items() if key != "context"}
    password = named.pop("password", None)
    program = shutil.which("pg_dump")
    if program is None:
        shown = shlex.join(
            ["pg_dump", "--format=custom", f"--file={file}", f"--dbname={redacted(make_conninfo(**named))}"]
        )
        raise Missing(f"cannot write a backup to {file}: pg_dump is not installed here; where it is, run: {shown}")
    # Of the environment: anybody may read the arguments of a process.
    environment = os.environ | ({} if password is None else {"PGPASSWORD": str(password)})
    done = subprocess.run(
        [program, "--format=custom", "--no-password", f"--file={draft}", f"--dbname={make_conninfo(**_OURS | named)}"],
        check=False,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="backslashreplace",
        env=environment,
    )
    if done.returncode != 0:
        said = " ".join(done.stderr.split()) or f"exit code {done.returncode}"
        raise Unavailable(f"cannot write a backup to {file}: {redacted(said)}")
