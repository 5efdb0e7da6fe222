"""The schema: made from nothing, taken back, the same as the tables of the code, and refused where it is not ours."""

from __future__ import annotations

import errno
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Engine

from pigeonholed import database, sqlite_file, tables
from pigeonholed.database import DatabaseUnavailable, SchemaMismatch
from pigeonholed.errors import Unavailable
from pigeonholed.ledger import Ledger
from pigeonholed.writer import Writer

# Contract, section 4: the minimum.
_CONTRACT = {
    "images": "id inbox source_path sha256 size_bytes mtime_ns width height status outcome reason detail model "
    "model_version label confidence destination arrived_at classified_at filed_at",
    "predictions": "image_id rank label confidence",
    "models": "id name version digest labels loaded_at",
    "reviews": "id image_id label previous_label reviewed_at reviewer",
}


@pytest.fixture
def empty(empty_url: str) -> Iterator[Engine]:
    engine = database.connect(empty_url)
    yield engine
    engine.dispose()


def _tables(engine: Engine) -> set[str]:
    return set(sa.inspect(engine).get_table_names())


def test_empty_database_is_brought_to_the_newest_schema(empty: Engine) -> None:
    assert database.current_revision(empty) is None
    assert database.upgrade(empty) == database.newest_revision() == database.current_revision(empty)
    inspector = sa.inspect(empty)
    for table, columns in _CONTRACT.items():
        assert set(columns.split()) <= {column["name"] for column in inspector.get_columns(table)}


def test_migrated_schema_is_the_one_the_code_speaks_of(db: Engine) -> None:
    with db.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
        assert compare_metadata(context, tables.metadata) == []


def test_schema_can_be_taken_back_to_nothing_and_made_again(empty: Engine) -> None:
    database.upgrade(empty)
    with empty.begin() as connection:
        command.downgrade(database._alembic(connection), "base")
    assert _tables(empty) == {"alembic_version"}
    database.upgrade(empty)
    assert set(_CONTRACT) <= _tables(empty)


def test_every_revision_can_be_taken_back_and_made_again_with_rows_in_it(empty: Engine) -> None:
    revisions = ["base", *reversed([script.revision for script in _scripts(empty).walk_revisions()])]
    for before, after in pairwise(revisions):
        with empty.begin() as connection:
            command.upgrade(database._alembic(connection), after)
        _fill(empty)
        kept = _contents(empty)
        with empty.begin() as connection:
            command.downgrade(database._alembic(connection), before)
        left = _contents(empty)
        assert {table: len(rows) for table, rows in left.items()} == {table: len(kept[table]) for table in left}, after
        with empty.begin() as connection:
            command.upgrade(database._alembic(connection), after)
        again = _contents(empty)
        for table, rows in left.items():
            assert [{name: row[name] for name in old} for row, old in zip(again[table], rows, strict=True)] == rows
    assert database.upgrade(empty) == revisions[-1]
    assert _contents(empty)["images"][0]["deaths"] == 0


def _scripts(engine: Engine) -> ScriptDirectory:
    return ScriptDirectory.from_config(database._alembic())


def _reflected(engine: Engine) -> dict[str, sa.Table]:
    metadata = sa.MetaData()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", sa.exc.SAWarning)  # what a partial index of SQLite says cannot be read back
        metadata.reflect(engine)
    return {name: table for name, table in metadata.tables.items() if name != "alembic_version"}


def _contents(engine: Engine) -> dict[str, list[dict[str, object]]]:
    """All rows as they are, table by table."""
    with engine.connect() as connection:
        return {
            name: [dict(row) for row in connection.execute(table.select().order_by(*table.primary_key)).mappings()]
            for name, table in _reflected(engine).items()
        }


def _fill(engine: Engine) -> None:
    """A row in every table that has none."""
    values: dict[type[sa.types.TypeEngine[Any]], object] = {
        sa.DateTime: datetime(2026, 1, 1, tzinfo=UTC if engine.dialect.name == "postgresql" else None),
        sa.JSON: ["cat"],
        sa.Integer: 7,
        sa.Float: 0.5,
        sa.Text: "x",
    }
    found = _reflected(engine)
    found.pop("refilings", None)  # a row of it forbids to go back
    for table in sorted(found.values(), key=lambda table: bool(table.foreign_keys)):
        row = {
            column.name: next((value for kind, value in values.items() if isinstance(column.type, kind)), "x")
            for column in table.columns
        }
        with engine.begin() as connection:
            if connection.scalar(sa.select(sa.func.count()).select_from(table)) == 0:
                connection.execute(table.insert().values(row))


def test_two_processes_that_upgrade_at_once_make_one_schema(empty_url: str) -> None:
    program = f"from pigeonholed import database; print(database.upgrade(database.connect({empty_url!r})))"
    both = [
        subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for process in both:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out.strip() == database.newest_revision()
    engine = database.connect(empty_url)
    with engine.connect() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(tables.identity)) == 1
    engine.dispose()


def test_migration_that_is_killed_half_way_leaves_the_old_schema(empty_url: str) -> None:
    program = f"""
import os, signal, sqlalchemy as sa
from alembic import command
from pigeonholed import database
engine = database.connect({empty_url!r})
with engine.begin() as connection:
    command.upgrade(database._alembic(connection), "0001")
@sa.event.listens_for(engine, "after_cursor_execute")
def die(_connection, _cursor, statement, *_more):
    if "images_poison" in statement:
        os.kill(os.getpid(), signal.SIGKILL)
database.upgrade(engine)
"""
    done = subprocess.run([sys.executable, "-c", program], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == -signal.SIGKILL, done.stderr
    engine = database.connect(empty_url)
    assert database.current_revision(engine) == "0001"
    assert "deaths" not in {column["name"] for column in sa.inspect(engine).get_columns("images")}
    assert database.upgrade(engine) == database.newest_revision()
    engine.dispose()


def test_schema_is_not_taken_back_from_under_files_that_are_being_moved(empty: Engine) -> None:
    """An older service would take their rows for those of files that are lost."""
    database.upgrade(empty)
    with empty.begin() as connection:
        image = {"id": 7, "inbox": "camera", "source_path": "x", "status": "planned", "arrival": "a", "token": "t"}
        now = datetime.now(UTC)
        connection.execute(tables.images.insert().values(**image, arrived_at=now))
        said = {"outcome": "sorted", "model": "tiny", "model_version": 1, "label": "cat", "confidence": 0.5}
        times = {"classified_at": now, "filed_at": now}
        connection.execute(
            tables.refilings.insert().values(image_id=7, destination="x", predictions=[], **said, **times)
        )
    with empty.connect() as connection, pytest.raises(RuntimeError, match="'reclassify' was broken off"):
        command.downgrade(database._alembic(connection), "0003")
    assert database.current_revision(empty) == database.newest_revision()


def test_upgrading_twice_changes_nothing_and_keeps_the_identity(empty: Engine) -> None:
    database.upgrade(empty)
    identity = database.identity_of(empty)
    database.upgrade(empty)
    assert database.identity_of(empty) == identity
    assert identity is not None
    assert len(identity) == 32


def test_two_databases_have_two_identities(empty: Engine, tmp_path: Path) -> None:
    other = database.connect(f"sqlite:///{tmp_path / 'other.db'}")
    database.upgrade(empty)
    database.upgrade(other)
    assert database.identity_of(empty) != database.identity_of(other)
    other.dispose()


def test_migration_that_fails_leaves_the_database_as_it_was(empty: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_arguments: object) -> None:
        raise sa.exc.OperationalError("", {}, Exception("killed"))

    monkeypatch.setattr(secrets, "token_hex", fail)  # the last step of the transaction
    with pytest.raises(DatabaseUnavailable):
        database.upgrade(empty)
    assert _tables(empty) == set()


@pytest.mark.parametrize("missing", ["env.py", "versions/0003_copied.py"])
def test_own_file_that_cannot_be_found_is_told_in_a_sentence(
    empty: Engine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    """A disk that fails to answer looks the same to Alembic."""
    shutil.copytree(Path(__file__).parents[2] / "migrations", tmp_path / "migrations")
    (tmp_path / "migrations" / missing).unlink()
    (tmp_path / "migrations" / missing).symlink_to("nowhere.py")  # its folder lists it
    monkeypatch.setattr(database, "shipped_folder", lambda name: tmp_path / name)
    with pytest.raises(Unavailable, match=r"cannot read the files that bring .* install pigeonholed again"):
        database.prepare(empty)
    assert database.current_revision(empty) is None


def test_newer_schema_is_refused_and_left_alone(db: Engine) -> None:
    with db.begin() as connection:
        connection.execute(sa.text("UPDATE alembic_version SET version_num = '9999'"))
    for refuses in (database.check_not_newer, database.upgrade, database.prepare):
        with pytest.raises(SchemaMismatch, match="schema 9999, which a newer pigeonholed made"):
            refuses(db)
    assert database.current_revision(db) == "9999"


def test_older_schema_is_refused_where_upgrading_is_not_wanted(empty: Engine) -> None:
    with pytest.raises(SchemaMismatch, match="db upgrade"):
        database.prepare(empty, may_upgrade=False)
    assert _tables(empty) == set()
    database.prepare(empty)
    database.prepare(empty, may_upgrade=False)


def test_file_that_is_no_database_is_refused_and_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "broken.db"
    content = b"this is no database, but long enough to be one " * 30
    file.write_bytes(content)
    engine = database.connect(f"sqlite:///{file}")
    attempts: list[Callable[[], object]] = [
        lambda: database.wait_for(engine, threading.Event(), patience_s=None),
        lambda: database.prepare(engine),
        lambda: database.current_revision(engine),
    ]
    for refuses in attempts:
        with pytest.raises(DatabaseUnavailable, match=r"broken\.db.*not a database"):
            refuses()
    engine.dispose()
    assert file.read_bytes() == content
    assert list(tmp_path.iterdir()) == [file]


def test_damaged_database_is_refused_and_not_touched(tmp_path: Path, migrated_file: Path) -> None:
    file = tmp_path / "damaged.db"
    content = bytearray(migrated_file.read_bytes())
    content[4096:] = secrets.token_bytes(len(content) - 4096)
    file.write_bytes(content)
    engine = database.connect(f"sqlite:///{file}")
    with pytest.raises(DatabaseUnavailable, match=r"damaged\.db.*(malformed|corrupt)"):
        database.prepare(engine)
    engine.dispose()
    assert file.read_bytes() == content


def test_missing_folder_of_the_database_is_one_clear_sentence(tmp_path: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path / 'missing' / 'a.db'}")
    with pytest.raises(DatabaseUnavailable, match="unable to open database file"):
        database.wait_for(engine, threading.Event(), patience_s=0.0)


@pytest.mark.parametrize(("kind", "works"), [("ext4", True), ("", True), ("nfs4", False), ("cifs", False)])
def test_sqlite_file_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, works: bool
) -> None:
    monkeypatch.setattr(sqlite_file, "type_of", lambda folder: kind if folder == str(tmp_path) else "ext4")
    if works:
        sqlite_file.check_place(tmp_path / "a.db")
    else:
        with pytest.raises(DatabaseUnavailable, match=f"network file system \\({kind}\\)"):
            sqlite_file.check_place(tmp_path / "a.db")
    assert not (tmp_path / "a.db").exists()


def test_sqlite_commits_survive_a_power_cut_and_are_written_ahead(db: Engine) -> None:
    if db.dialect.name != "sqlite":
        pytest.skip("a pragma of SQLite")
    with db.connect() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
        assert connection.exec_driver_sql("PRAGMA synchronous").scalar() == 2
        assert connection.exec_driver_sql("PRAGMA foreign_keys").scalar() == 1


@pytest.mark.parametrize("name", ["plain.db", "a b%20c.db", "what?.db", "x#y.db"])
def test_read_only_engine_reads_any_file_name_and_cannot_write(tmp_path: Path, migrated_file: Path, name: str) -> None:
    file = tmp_path / name
    file.write_bytes(migrated_file.read_bytes())
    url = sa.URL.create("sqlite", database=str(file)).render_as_string()
    engine = database.connect(url.replace("%2F", "/"), read_only=True)
    assert database.current_revision(engine) == database.newest_revision()
    with engine.connect() as connection, pytest.raises(sa.exc.OperationalError, match="readonly"):
        connection.execute(tables.inboxes.insert().values(name="a", path="/"))
    engine.dispose()


def test_read_only_engine_makes_no_database(tmp_path: Path) -> None:
    engine = database.connect(f"sqlite:///{tmp_path / 'a.db'}", read_only=True)
    with pytest.raises(DatabaseUnavailable):
        database.current_revision(engine)
    assert list(tmp_path.iterdir()) == []


def test_row_in_flight_is_found_by_its_small_index(db: Engine) -> None:
    """At millions of filed rows, the start must not read them all."""
    if db.dialect.name != "sqlite":
        pytest.skip("reads the plan of SQLite")
    writer = Writer(db)
    writer.start()
    statements: list[str] = []
    sa.event.listen(db, "before_cursor_execute", lambda _c, _u, statement, *_more: statements.append(statement))
    Ledger(db, writer).in_flight(0.0)
    writer.stop()
    (query,) = [statement for statement in statements if "FROM images" in statement and "status" in statement]
    with db.connect() as connection:
        query = query.replace("(?, ?, ?)", "('claimed', 'ingested', 'planned')")
        plan = " ".join(str(row) for row in connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {query}"))
    assert "images_in_flight" in plan


def test_lock_of_a_file_is_given_back_where_its_owner_cannot_be_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The service begins anew after such a fault, and must not find itself in the way."""

    def fail(_fd: int, _user: int, _group: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    with monkeypatch.context() as faulty:
        faulty.setattr(os, "geteuid", lambda: 0)
        faulty.setattr(os, "fchown", fail)
        with pytest.raises(OSError, match="Input/output error"):
            sqlite_file.lock(tmp_path / "a.db", purpose="")
    sqlite_file.lock(tmp_path / "a.db", purpose="").release()
