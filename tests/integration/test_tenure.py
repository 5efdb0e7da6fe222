"""One process at a time writes to a database on a server, and the errors of a server that pass are waited for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Engine, make_url

from pigeonholed import database, tables
from pigeonholed.database import DatabaseAway, DatabaseUnavailable
from pigeonholed.errors import Unavailable
from pigeonholed.ledger import Ledger
from pigeonholed.postgres import passes
from pigeonholed.served_models import ServedModels
from pigeonholed.statements import Prepared
from pigeonholed.tenure import Occupied, Overtaken
from pigeonholed.writer import Change, Writer
from servers import Server, plain


@pytest.fixture
def url(postgres: Server, migrated_template: str) -> Iterator[str]:
    url = postgres.make(migrated_template)
    yield url
    postgres.drop(url)


@contextmanager
def _writing(url: str, *, begun: bool = True) -> Iterator[tuple[Engine, Writer]]:
    engine = database.connect(url)
    writer = Writer(engine, patience_s=20.0)
    writer._LONGEST_WAIT_S = 0.1
    writer._OCCUPIED_S = 0.2
    writer.start()
    try:
        if begun:
            writer.begin()
        yield engine, writer
    finally:
        writer.stop()


def _insert(engine: Engine, name: str) -> Change:
    statement = Prepared.compile(tables.inboxes.insert(), engine.dialect, ("name", "path"))
    return Change(statement, [{"name": name, "path": "/"}])


def _names(url: str) -> set[str]:
    with psycopg.connect(plain(url)) as connection:
        return {name for (name,) in connection.execute("SELECT name FROM inboxes")}


def test_second_writer_is_refused_for_as_long_as_the_first_is_there(url: str) -> None:
    with _writing(url), _writing(url, begun=False) as (_engine, second):
        with pytest.raises(Occupied, match=r"a process on .* already writes to the database .*:\*\*\*@"):
            second.begin()
        assert not second.reachable
    with _writing(url) as (_engine, third):
        assert third.reachable


def test_two_databases_and_two_schemas_of_one_have_a_writer_each(postgres: Server, url: str) -> None:
    other = postgres.make()
    with psycopg.connect(plain(other)) as connection:
        for schema in ("a", "b"):
            connection.execute(f"CREATE SCHEMA {schema}")  # type: ignore[call-overload]
    one, two = (f"{other}?options=-csearch_path%3D{schema}" for schema in ("a", "b"))
    for address in (one, two):
        engine = database.connect(address)
        database.upgrade(engine)
        engine.dispose()
    with _writing(url), _writing(one) as (engine, writer), _writing(two):
        writer.write([_insert(engine, "a")])
    assert _names(one) == {"a"}
    assert _names(two) == set()


def test_connection_that_is_lost_is_made_anew_and_nothing_is_doubled(postgres: Server, url: str) -> None:
    with _writing(url) as (engine, writer):
        for number in range(5):
            writer.write([_insert(engine, f"{number}")])
            postgres.cut_off(url, "pigeonholed writer%")
        writer.write([_insert(engine, "last")])
        assert writer.reachable
    assert _names(url) == {"0", "1", "2", "3", "4", "last"}


def test_whoever_was_overtaken_writes_no_more(postgres: Server, url: str) -> None:
    """Its ids may be taken by now: it has to begin anew with what is in the database."""
    with _writing(url) as (engine, first):
        first.write([_insert(engine, "a")])
        first._disconnect()  # as a network that is lost does; nobody writes meanwhile
        with _writing(url) as (_other, second):
            second.write([_insert(engine, "b")])
        for _ in range(2):
            with pytest.raises(Overtaken, match="another process has written"):
                first.write([_insert(engine, "c")])
    assert _names(url) == {"a", "b"}


def test_whoever_comes_between_is_waited_for_by_the_one_who_was_there(postgres: Server, url: str) -> None:
    with _writing(url) as (engine, first):
        first._disconnect()
        first._patience_s = 0.5
        with _writing(url), pytest.raises(DatabaseUnavailable, match="already writes"):
            first.write([_insert(engine, "c")])
    assert _names(url) == set()


def test_lost_connection_that_lives_on_at_the_server_is_ended_there(url: str) -> None:
    """Half a minute later the server would notice by itself; until then it holds the lock, perhaps in a commit."""
    with _writing(url) as (engine, writer):
        forgotten, writer._connection = writer._connection, None
        assert forgotten is not None
        transaction = forgotten.begin()
        forgotten.execute(tables.inboxes.insert().values(name="late", path="/"))
        started_s = time.monotonic()
        writer.write([_insert(engine, "a")])
        assert time.monotonic() - started_s < 15
        with pytest.raises(sa.exc.DBAPIError):
            transaction.commit()
        forgotten.close()
    assert _names(url) == {"a"}


@pytest.fixture
def modest(postgres: Server, url: str) -> Iterator[str]:
    """The address for a role that may do what the service does, where the provider keeps the log's place to itself."""
    postgres.execute("CREATE ROLE modest LOGIN PASSWORD 'm'")
    with psycopg.connect(plain(url)) as connection:
        connection.execute("GRANT ALL ON ALL TABLES IN SCHEMA public TO modest")
        connection.execute("GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO modest")
        connection.execute("REVOKE EXECUTE ON FUNCTION pg_current_wal_lsn() FROM PUBLIC")
    yield make_url(url).set(username="modest", password="m").render_as_string(hide_password=False)
    with psycopg.connect(plain(url)) as connection:
        connection.execute("DROP OWNED BY modest")
    postgres.execute("DROP ROLE modest")


def test_role_that_is_no_administrator_can_write_and_is_told_less_of_others(url: str, modest: str) -> None:
    with _writing(modest) as (engine, writer):
        writer.write([_insert(engine, "a")])
        writer._disconnect()
        writer.write([_insert(engine, "b")])
    with _writing(url), _writing(modest, begun=False) as (_engine, second), pytest.raises(Occupied) as told:
        second.begin()
    assert str(told.value).startswith("another process already writes to the database")
    assert _names(url) == {"a", "b"}


def test_commits_are_durable_whatever_the_server_says_and_readers_cannot_write(postgres: Server, url: str) -> None:
    name = make_url(url).database
    for setting in (
        "synchronous_commit = off",
        "default_transaction_isolation = 'serializable'",
        "TimeZone = 'Asia/Tokyo'",
    ):
        postgres.execute(f"ALTER DATABASE {name} SET {setting}")
    engine, reader = database.connect(url), database.connect(url, read_only=True)
    with engine.connect() as connection:
        found = {name: connection.scalar(sa.text(f"SHOW {name}")) for name in ("synchronous_commit", "TimeZone")}
        assert found == {"synchronous_commit": "on", "TimeZone": "UTC"}
        assert connection.scalar(sa.text("SHOW transaction_isolation")) == "read committed"
    with reader.connect() as connection, pytest.raises(sa.exc.DBAPIError, match="read-only"):
        connection.execute(tables.inboxes.insert().values(name="a", path="/"))
    engine.dispose()
    reader.dispose()


@pytest.mark.parametrize("limit", ["statement_timeout", "lock_timeout"])
def test_statement_that_is_timed_out_is_tried_again_with_its_whole_transaction(
    postgres: Server, url: str, limit: str
) -> None:
    postgres.execute(f"ALTER DATABASE {make_url(url).database} SET {limit} = 100")
    with _writing(url) as (engine, writer):
        with psycopg.connect(plain(url)) as other:
            other.execute("LOCK TABLE inboxes IN EXCLUSIVE MODE")
            writing = threading.Thread(target=writer.write, args=([_insert(engine, "a"), _insert(engine, "b")],))
            writing.start()
            ends_s = time.monotonic() + 30
            while writer.reachable:
                assert time.monotonic() < ends_s
                time.sleep(0.01)
        writing.join(30)
        assert not writing.is_alive()
        assert writer.reachable
    assert _names(url) == {"a", "b"}


def test_deadlock_is_tried_again_with_its_whole_transaction(postgres: Server, url: str) -> None:
    with _writing(url) as (engine, writer), psycopg.connect(plain(url)) as other:
        writer.write([_insert(engine, "x"), _insert(engine, "y")])
        touch = Prepared.compile(
            sa.update(tables.inboxes).where(tables.inboxes.c.name == sa.bindparam("b_name")).values(path="/z"),
            engine.dialect,
        )
        other.execute("SET deadlock_timeout = '1min'")  # so that it is the writer who is chosen
        other.execute("UPDATE inboxes SET path = '/o' WHERE name = 'y'")
        changes = [Change(touch, [{"b_name": name}]) for name in ("x", "y")]
        writing = threading.Thread(target=writer.write, args=(changes,))
        writing.start()
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        with psycopg.connect(plain(url), autocommit=True) as watching:
            ends_s = time.monotonic() + 30
            while watching.execute(waiting).fetchone() != (1,):
                assert time.monotonic() < ends_s
                time.sleep(0.01)
        other.execute("UPDATE inboxes SET path = '/o' WHERE name = 'x'")
        other.commit()
        writing.join(30)
        assert not writing.is_alive()
        with psycopg.connect(plain(url)) as reading:
            assert reading.execute("SELECT DISTINCT path FROM inboxes").fetchall() == [("/z",)]


@pytest.mark.parametrize(
    ("state", "waits"),
    [
        ("08006", True),  # connection_failure
        ("25006", True),  # read_only_sql_transaction
        ("40001", True),  # serialization_failure
        ("40P01", True),  # deadlock_detected
        ("53100", True),  # disk_full
        ("53300", True),  # too_many_connections
        ("55P03", True),  # lock_not_available
        ("57014", True),  # query_canceled
        ("57P01", True),  # admin_shutdown
        ("57P02", True),  # crash_shutdown
        ("57P03", True),  # cannot_connect_now
        ("57P05", True),  # idle_session_timeout
        ("58030", True),  # io_error
        ("23505", False),  # unique_violation
        ("42501", False),  # insufficient_privilege
        ("42P01", False),  # undefined_table
        ("XX001", False),  # data_corrupted
    ],
)
def test_what_passes_is_told_from_what_does_not(state: str, waits: bool) -> None:
    kind = psycopg.errors.lookup(state)
    error = sa.exc.DBAPIError.instance("SELECT 1", {}, kind("said"), psycopg.Error)
    assert isinstance(error, sa.exc.DBAPIError)
    assert passes(error) is waits


def test_reads_of_a_service_whose_server_is_away_say_so_without_a_password(url: str, postgres: Server) -> None:
    with _writing(url) as (engine, writer):
        ledger, served = Ledger(engine, writer), ServedModels(engine, writer)
        nowhere = make_url(url).set(port=1)
        ledger._engine = served._engine = database.connect(nowhere.render_as_string(hide_password=False))
        with pytest.raises(DatabaseAway, match=r"cannot use the database .*:\*\*\*@.*refused"):
            ledger.in_flight(0.0)
        with pytest.raises(TimeoutError):
            ledger.copied("camera", ["x"], looked_at=False)
        assert not served.has_served("d")


def test_read_that_fails_for_good_is_not_taken_for_an_outage(url: str) -> None:
    with _writing(url) as (engine, writer):
        ledger = Ledger(engine, writer)
        with psycopg.connect(plain(url)) as other:
            other.execute("DROP TABLE inboxes")
        with pytest.raises(sa.exc.ProgrammingError, match="does not exist"):
            ledger.known_inboxes()


def test_wrong_password_is_one_sentence_that_does_not_show_it(url: str) -> None:
    wrong = make_url(url).set(password="hunter2", query={"application_name": "x"})
    engine = database.connect(wrong.render_as_string(hide_password=False))
    with pytest.raises(DatabaseUnavailable, match="password authentication failed") as told:
        database.current_revision(engine)
    assert "hunter2" not in str(told.value)
    assert "\n" not in str(told.value)


def test_driver_that_is_not_installed_is_named_with_the_way_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*_arguments: object, **_named: object) -> None:
        raise ModuleNotFoundError("No module named 'psycopg'")

    monkeypatch.setattr(sa, "create_engine", missing)
    with pytest.raises(Unavailable, match=r"pip install pigeonholed\[postgres\]") as told:
        database.connect("postgresql+psycopg://me:hunter2@db/x?password=hunter2")
    assert "hunter2" not in str(told.value)
