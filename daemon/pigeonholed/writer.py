"""The one thread that writes to the database, and the commits it shares out.

Stages hand over changes and wait until they are durable. What several stages hand over while a commit runs goes into
the next one together: the cost of a sync is shared by all that wait for it.
"""

from __future__ import annotations

import contextlib
import math
import queue
import threading
import time
from concurrent.futures import Future, wait
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import sqlalchemy as sa
import structlog

from pigeonholed.database import WRITES, unavailable
from pigeonholed.postgres import passes
from pigeonholed.tenure import Occupied, Tenure

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
    done: Future[None] = field(default_factory=Future)  # set by the writer's thread alone


class Stopped(Exception):
    """The writer was stopped before the change was made; nothing of it is in the database."""


class Writer:
    """Runs changes in shared transactions, and waits for a database that is away.

    Args:
        engine: where to.
        patience_s: how long a database may be away before a change fails; None waits for ever.
        stop: set when the process should end; a database that is away is then waited for only `_GRACE_S` more.
        tenure: the right to write, taken for each new connection.
        on_retry: called with the error before each wait.

    The connection is owned by the writer's thread; every other method may be called from any thread.
    """

    _FIRST_WAIT_S = 0.05
    _LONGEST_WAIT_S = 5.0
    _GRACE_S = 10.0
    _OCCUPIED_S = 10.0  # a process that was killed is still there for the server for a moment
    _SLOW_S = 10.0  # a commit that takes longer than that is no good sign
    _LOOK_EVERY_S = 1.0

    def __init__(
        self,
        engine: Engine,
        *,
        patience_s: float | None = None,
        stop: threading.Event | None = None,
        tenure: Tenure | None = None,
        on_retry: Callable[[Exception], None] = lambda _error: None,
    ) -> None:
        self._engine = engine
        self._patience_s = patience_s
        self._requests: queue.SimpleQueue[_Request | None] = queue.SimpleQueue()
        self._stop = stop or threading.Event()
        self._tenure = tenure or Tenure()
        self._has_begun = False
        self._on_retry = on_retry
        self._away_since: float | None = None
        self._busy_since: float | None = None
        self._connection: Connection | None = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @property
    def reachable(self) -> bool:
        """Whether the last attempt to write succeeded, and none hangs."""
        return self._away_since is None and self._hangs_s() < self._SLOW_S

    def start(self) -> None:
        """Begin to take changes."""
        self._thread.start()

    def begin(self) -> None:
        """Return when the database can be written to, by us alone.

        Raises:
            Occupied: another process writes to it.
            DatabaseUnavailable: it was away for longer than `patience_s`.
            Stopped: the writer was stopped while it waited.
        """
        self._hand_over(_Request([]))

    def write(self, changes: Sequence[Change]) -> None:
        """Return when the changes are durable.

        Raises:
            DatabaseUnavailable: it was away for longer than `patience_s`.
            Overtaken: another process has written to it meanwhile.
            Stopped: the writer was stopped while it waited for the database.
            sqlalchemy.exc.DBAPIError: the database refused the change for good.
        """
        changes = [change for change in changes if change.rows]
        if changes:
            self._hand_over(_Request(changes))

    def stop(self) -> None:
        """Finish what was handed over, if the database is there, and end the thread.

        One that hangs in a call to a server is left to itself: what it commits is as good after a kill.
        """
        self._requests.put(None)
        while self._thread.is_alive() and not self._is_given_up():
            self._thread.join(self._LOOK_EVERY_S)

    def _hand_over(self, request: _Request) -> None:
        if not self._thread.is_alive():
            raise Stopped("the writer has ended")
        self._requests.put(request)
        while not wait([request.done], self._LOOK_EVERY_S).done:
            if self._is_given_up():
                raise Stopped("stopped while the database did not answer")
        request.done.result()

    def _hangs_s(self) -> float:
        """How long the present attempt has taken so far."""
        busy_since = self._busy_since
        return 0.0 if busy_since is None else time.monotonic() - busy_since

    def _is_given_up(self) -> bool:
        return self._stop.is_set() and self._hangs_s() > self._GRACE_S

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
                self._attempt(group)
            except Exception as error:
                if not _passes(error):
                    self._disconnect()  # whatever state it is in
                    _fail(group, error)
                    return
                if not self._wait(group, error, wait_s):
                    return
                wait_s = min(wait_s * 2, self._LONGEST_WAIT_S)
            else:
                self._recovered()
                for request in group:
                    request.done.set_result(None)
                return

    def _attempt(self, group: list[_Request]) -> None:
        self._busy_since = time.monotonic()
        try:
            connection = self._connected()
            with connection.begin():
                for request in group:
                    _execute(connection, request.changes)
        finally:
            self._busy_since = None

    def _connected(self) -> Connection:
        """The one connection that writes; kept, because a new one for each commit costs as much as the commit."""
        if self._connection is None:
            self._connection = self._engine.connect().execution_options(**WRITES)
            self._connection.detach()  # from the pool: when it is closed, what it holds ends with it
            self._tenure.take(self._connection)
            self._has_begun = True
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(sa.exc.DBAPIError):
                self._connection.close()
            self._connection = None
        self._engine.dispose()

    def _wait(self, group: list[_Request], error: Exception, wait_s: float) -> bool:
        """Wait for a database that is away; False when it is given up and everybody has been told."""
        now = time.monotonic()
        fault = unavailable(self._engine, error) if isinstance(error, sa.exc.DBAPIError) else error
        if self._away_since is None:
            self._away_since = now
            log.warning("database_lost", error=str(fault))
        self._disconnect()
        failure: Exception | None = None
        if now - self._away_since > self._patience_with(error):
            failure = fault
        elif self._stop.is_set() and now - self._away_since > self._GRACE_S:
            failure = Stopped("stopped while the database was away")
        else:
            self._on_retry(error)
            threading.Event().wait(wait_s)
        if failure is None:
            return True
        _fail(group, failure)
        return False

    def _patience_with(self, error: Exception) -> float:
        """Another process is waited for without end only where it has come between."""
        patience_s = math.inf if self._patience_s is None else self._patience_s
        return min(patience_s, self._OCCUPIED_S) if isinstance(error, Occupied) and not self._has_begun else patience_s

    def _recovered(self) -> None:
        if self._away_since is not None:
            log.info("database_recovered", away_s=round(time.monotonic() - self._away_since, 1))
            self._away_since = None


def _passes(error: Exception) -> bool:
    return isinstance(error, Occupied) or (isinstance(error, sa.exc.DBAPIError) and passes(error))


def _fail(group: list[_Request], error: Exception) -> None:
    for request in group:
        request.done.set_exception(error)


def _execute(connection: Connection, changes: Sequence[Change]) -> None:
    for change in changes:
        change.statement.execute(connection, change.rows)
