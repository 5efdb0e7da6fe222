"""The one thread that writes, on a real database."""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.dialects.postgresql import psycopg
from sqlalchemy.engine import Engine

from pigeonholed import tables
from pigeonholed.database import DatabaseUnavailable
from pigeonholed.statements import Prepared
from pigeonholed.writer import Change, Stopped, Writer

_INSERTS = {
    dialect.name: Prepared.compile(tables.inboxes.insert(), dialect, ("name", "path"))
    for dialect in (sqlite.dialect(), psycopg.dialect())
}


def _change(db: Engine, *names: str) -> Change:
    return Change(_INSERTS[db.dialect.name], [{"name": name, "path": "/"} for name in names])


def _names(db: Engine) -> set[str]:
    with db.connect() as connection:
        return set(connection.scalars(sa.select(tables.inboxes.c.name)))


class _Commits:
    """Counts the transactions of an engine, and can hold one up, or make it fail."""

    def __init__(self, db: Engine) -> None:
        self.begun = 0
        self.done = 0
        self.gate = threading.Event()
        self.gate.set()
        self.entered = threading.Event()
        self.fail: Callable[[], None] = lambda: None
        sa.event.listen(db, "begin", self._begin)
        sa.event.listen(db, "commit", self._commit)

    def _begin(self, _connection: sa.Connection) -> None:
        self.begun += 1
        self.entered.set()
        assert self.gate.wait(10)
        self.fail()

    def _commit(self, _connection: sa.Connection) -> None:
        self.done += 1


def _in_thread(work: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


@contextmanager
def _started(db: Engine, **options: Any) -> Iterator[Writer]:
    writer = Writer(db, **options)
    writer._FIRST_WAIT_S = 0.001
    writer._LONGEST_WAIT_S = 0.002
    writer.start()
    yield writer
    writer.stop()


def test_change_is_there_when_write_returns(db: Engine, writer: Writer) -> None:
    writer.write([_change(db, "a", "b")])
    assert _names(db) == {"a", "b"}


@pytest.mark.parametrize("count", [1, 7, 8, 9, 63, 64, 65, 199, 1000])
def test_however_many_rows_there_are_each_is_written_once(db: Engine, writer: Writer, count: int) -> None:
    """On SQLite, most go into one statement with others."""
    insert = Prepared.inserting(tables.inboxes, db.dialect, ("name", "path"))
    names = [f"inbox {number}" for number in range(count)]
    writer.write([Change(insert, [{"name": names[count // 2], "path": "before"}])])
    writer.write([Change(insert, [{"name": name, "path": f"/{name}"} for name in names])])
    with db.connect() as connection:
        rows = connection.execute(sa.select(tables.inboxes.c.name, tables.inboxes.c.path)).all()
    written = {row.name: row.path for row in rows}
    assert len(rows) == count
    assert written == {name: f"/{name}" for name in names} | {names[count // 2]: "before"}


def test_changes_without_rows_cost_no_transaction(db: Engine, writer: Writer) -> None:
    commits = _Commits(db)
    writer.write([Change(_INSERTS[db.dialect.name], [])])
    writer.write([])
    assert commits.begun == 0


def test_what_is_handed_over_during_a_commit_shares_the_next_one(db: Engine, writer: Writer) -> None:
    commits = _Commits(db)
    commits.gate.clear()
    first = _in_thread(lambda: writer.write([_change(db, "first")]))
    assert commits.entered.wait(10)
    others = [_in_thread(lambda name=name: writer.write([_change(db, name)])) for name in "abcdef"]  # type: ignore[misc]
    while writer._requests.qsize() < 6:
        threading.Event().wait(0.001)
    commits.gate.set()
    for thread in [first, *others]:
        thread.join(10)
    assert commits.done == 2
    assert _names(db) == {"first", *"abcdef"}


def test_several_changes_of_a_request_are_one_transaction(db: Engine, writer: Writer) -> None:
    with pytest.raises(sa.exc.IntegrityError):
        writer.write([_change(db, "a"), _change(db, "b", "b")])
    assert _names(db) == set()


def test_refused_change_is_raised_and_the_writer_goes_on(db: Engine, writer: Writer) -> None:
    writer.write([_change(db, "a")])
    with pytest.raises(sa.exc.IntegrityError):
        writer.write([_change(db, "a")])
    writer.write([_change(db, "b")])
    assert _names(db) == {"a", "b"}
    assert writer.reachable


def _away(times: int) -> Callable[[], None]:
    left = [times]

    def fail() -> None:
        if left[0]:
            left[0] -= 1
            raise sa.exc.OperationalError("BEGIN", {}, sqlite3.OperationalError("database or disk is full"))

    return fail


def test_database_that_is_away_is_waited_for_and_nothing_is_lost_or_doubled(db: Engine) -> None:
    commits = _Commits(db)
    seen: list[bool] = []
    with _started(db) as writer:
        fail = _away(5)

        def watched() -> None:
            seen.append(writer.reachable)
            fail()

        commits.fail = watched
        writer.write([_change(db, "a")])
        assert seen[0] is True
        # A new connection to a server begins with a look at who may write.
        assert seen[1:] == [False] * (5 if db.dialect.name == "sqlite" else len(seen) - 1)
        assert len(seen) > 5
        assert writer.reachable
    assert _names(db) == {"a"}


def test_each_wait_for_the_database_is_told_with_its_error(db: Engine) -> None:
    commits = _Commits(db)
    commits.fail = _away(3)
    told: list[Exception] = []
    with _started(db, on_retry=told.append) as writer:
        writer.write([_change(db, "a")])
    assert [type(error) for error in told] == [sa.exc.OperationalError] * 3


def test_patience_that_ends_is_reported_in_one_sentence_without_a_password(db: Engine) -> None:
    commits = _Commits(db)
    commits.fail = _away(10**9)
    with _started(db, patience_s=0.01) as writer:
        with pytest.raises(DatabaseUnavailable, match=r"cannot use the database .*disk is full"):
            writer.write([_change(db, "a")])
        assert not writer.reachable


def test_told_to_end_while_the_database_is_away_it_stops_after_the_time_of_grace(db: Engine) -> None:
    commits = _Commits(db)
    commits.fail = _away(10**9)
    stop = threading.Event()
    stop.set()
    with _started(db, stop=stop) as writer:
        writer._GRACE_S = 0.01
        with pytest.raises(Stopped):
            writer.write([_change(db, "a")])


def test_stop_finishes_what_was_handed_over(db: Engine) -> None:
    commits = _Commits(db)
    commits.gate.clear()
    writer = Writer(db)
    writer.start()
    threads = [_in_thread(lambda: writer.write([_change(db, "a")]))]
    assert commits.entered.wait(10)
    threads.append(_in_thread(lambda: writer.write([_change(db, "b")])))
    while writer._requests.qsize() < 1:
        threading.Event().wait(0.001)
    ending = _in_thread(writer.stop)
    commits.gate.set()
    for thread in [*threads, ending]:
        thread.join(10)
        assert not thread.is_alive()
    assert _names(db) == {"a", "b"}


def test_reader_sees_whole_transactions_while_the_writer_writes(db: Engine, writer: Writer) -> None:
    writer.write([_change(db, *(f"n{number}" for number in range(50)))])
    counts = set()

    def write() -> None:
        for number in range(20):
            writer.write([_change(db, f"{number}a", f"{number}b")])

    thread = _in_thread(write)
    while thread.is_alive():
        counts.add(len(_names(db)))
    assert all(count % 2 == 0 for count in counts)


def test_writer_that_has_ended_says_so_rather_than_let_anybody_wait(db: Engine) -> None:
    with _started(db) as writer:
        writer.write([_change(db, "a")])
    with pytest.raises(Stopped):
        writer.write([_change(db, "b")])
    assert _names(db) == {"a"}


def test_commit_that_hangs_is_no_good_sign_and_does_not_hold_up_the_end(db: Engine) -> None:
    """A server that keeps its connections and answers nothing: no error will ever come of it."""
    commits = _Commits(db)
    stop = threading.Event()
    writer = Writer(db, stop=stop)
    writer._SLOW_S = writer._GRACE_S = writer._LOOK_EVERY_S = 0.05
    writer.start()
    writer.begin()
    commits.gate.clear()
    outcome: list[BaseException] = []

    def write() -> None:
        try:
            writer.write([_change(db, "a")])
        except Stopped as stopped:
            outcome.append(stopped)

    writing = _in_thread(write)
    deadline = time.monotonic() + 10
    while writer.reachable:
        assert time.monotonic() < deadline
        threading.Event().wait(0.001)
    assert not outcome
    stop.set()
    writing.join(10)
    assert [str(stopped) for stopped in outcome] == ["stopped while the database did not answer"]
    writer.stop()
    assert writer._thread.is_alive()
    commits.gate.set()
    writer._thread.join(10)
    assert _names(db) == {"a"}, "what it handed over is as good as after a kill"
