"""The one thread that writes to the database, and the commits it shares out.

Stages hand over changes and wait until they are durable. What several stages hand over while a commit runs goes into
the next one together: the cost of a sync is shared by all that wait for it.
"""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from pigeonholed.database import unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from sqlalchemy.engine import Connection, Engine

    from pigeonholed.statements import Prepared, Row

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Change:
    """One statement and the rows it is run for. Running it twice must be the same as running it once."""

    statement: Prepared
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class _Request:
    changes: Sequence[Change]
    done: Future[None] = field(default_factory=Future)


class Stopped(Exception):
    """The writer was stopped before the change was made; nothing of it is in the database."""


class Writer:
    """Runs changes in shared transactions, and waits for a database that is away.

    Args:
        engine: where to.
        patience_s: how long a database may be away before a change fails; None waits for ever.
        stop: set when the process should end; a database that is away is then waited for only `_GRACE_S` more.
        on_retry: called with the error before each wait.

    The connection is owned by the writer's thread; every other method may be called from any thread.
    """

    _FIRST_WAIT_S = 0.05
    _LONGEST_WAIT_S = 5.0
    _GRACE_S = 10.0

    def __init__(
        self,
        engine: Engine,
        *,
        patience_s: float | None = None,
        stop: threading.Event | None = None,
        on_retry: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stop = stop or threading.Event()
        self._on_retry = on_retry
        self._away_since: float | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to write succeeded."""
        return self._away_since is None

    def start(self) -> None:
        """Begin to take changes."""
        self._thread.start()

    def write(self, changes: Sequence[Change]) -> None:
        """Return when the changes are durable.

        Raises:
            DatabaseUnavailable: it was away for longer than `patience_s`.
            Stopped: the writer was stopped while it waited for the database.
            sqlalchemy.exc.DBAPIError: the database refused the change for good.
        """
        changes = [change for change in changes if change.rows]
        if not changes:
            return
        if not self._thread.is_alive():
            raise Stopped("the writer has ended")
        request = _Request(changes)
        self._requests.put(request)
        request.done.result()

    def stop(self) -> None:
        """Finish what was handed over, if the database is there, and end the thread."""
        self._requests.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            self._serve()
        finally:
            self._disconnect()

    def _serve(self) -> None:
        while (first := self._requests.get()) is not None:
            group = [first]
            ending = False
            while not self._requests.empty():
                request = self._requests.get()
                if request is None:
                    ending = True
                    break
                group.append(request)
            self._commit(group)
            if ending:
                return

    def _commit(self, group: list[_Request]) -> None:
        wait_s = self._FIRST_WAIT_S
        while True:
            try:
                connection = self._connected()
                with connection.begin():
                    for request in group:
                        _execute(connection, request.changes)
            except sa.exc.OperationalError as error:
                if not self._wait(group, error, wait_s):
                    return
                wait_s = min(wait_s * 2, self._LONGEST_WAIT_S)
            except Exception as error:
                for request in group:
                    request.done.set_exception(error)
                return
            else:
                self._recovered()
                for request in group:
                    request.done.set_result(None)
                return

    def _connected(self) -> Connection:
        """The one connection that writes; kept, because a new one for each commit costs as much as the commit."""
        if self._connection is None:
            self._connection = self._engine.connect()
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                self._connection.close()
            self._connection = None
        self._engine.dispose()

    def _wait(self, group: list[_Request], error: sa.exc.OperationalError, wait_s: float) -> bool:
        """Wait for a database that is away; False when it is given up and everybody has been told."""
        now = time.monotonic()
        if self._away_since is None:
            self._away_since = now
            log.warning("database_lost", error=str(unavailable(self._engine, error)))
        self._disconnect()
        failure: Exception | None = None
        if self._patience_s is not None and now - self._away_since > self._patience_s:
            failure = unavailable(self._engine, error)
        elif self._stop.is_set() and now - self._away_since > self._GRACE_S:
            failure = Stopped("stopped while the database was away")
        else:
            self._on_retry(error)
            threading.Event().wait(wait_s)
        if failure is None:
            return True
        for request in group:
            request.done.set_exception(failure)
        return False

    def _recovered(self) -> None:
        if self._away_since is not None:
            log.info("database_recovered", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None


def _execute(connection: Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        change.statement.execute(connection, change.rows)
