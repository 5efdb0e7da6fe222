"""Commands on a Postgres database, as a user gives them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.engine import make_url

from auditor import audit
from records_of import change
from running import Workspace, drop_twenty, picture
from servers import OwnServer, Server, plain, programs


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, postgres: Server) -> Workspace:
    """Twenty files, filed in a database on the server."""
    workspace = Workspace.make(tmp_path_factory.mktemp("site") / "work", incomplete_s=0.0, url=postgres.make())
    drop_twenty(workspace)
    done = workspace.run("run", "--once", timeout_s=240)
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture
def with_programs() -> dict[str, str]:
    return {"PATH": f"{programs()}:{os.environ['PATH']}"}


def test_auditor_finds_what_was_dropped_filed_and_finds_what_is_wrong(site: Workspace, postgres: Server) -> None:
    assert site.audit() == []
    copy = postgres.make(site.url)
    change(plain(copy), "UPDATE images SET sha256 = repeat('0', 64) WHERE id = 1")
    assert len(audit(site.dropped, [site.inbox], site.output, plain(copy))) >= 2


def test_check_says_that_the_server_answers_and_shows_no_password(site: Workspace, postgres: Server) -> None:
    done = site.run("check", "--json", timeout_s=240)
    (found,) = [line for line in map(json.loads, done.stdout.splitlines()) if line["what"] == "database"]
    assert found["ok"], found
    assert f":***@{make_url(site.url).host}" in found["detail"]
    assert "answers, schema 0" in found["detail"]
    assert ("fsync = off" in found["detail"]) is isinstance(postgres, OwnServer)


def test_status_counts_without_a_daemon(site: Workspace) -> None:
    done = site.run("status", "--json")
    (camera,) = json.loads(done.stdout)["inboxes"]
    assert camera["filed"] == 20
    assert camera["last_filed_at"].endswith("Z")


def test_schema_is_named(site: Workspace) -> None:
    told = json.loads(site.run("db", "current", "--json").stdout)
    assert told["current"] == told["newest"]
    assert site.run("db", "upgrade").stdout == f"the schema is {told['newest']}\n"


def test_backup_can_be_restored_and_says_the_same(
    site: Workspace, postgres: Server, tmp_path: Path, with_programs: dict[str, str]
) -> None:
    file = tmp_path / "a backup.dump"
    done = site.run("db", "backup", str(file), environ=with_programs)
    assert done.returncode == 0, done.stderr
    assert f"({file.stat().st_size:,} bytes)" in done.stdout
    restored = plain(postgres.make())
    subprocess.run([programs() / "pg_restore", "--no-owner", f"--dbname={restored}", file], check=True)
    assert audit(site.dropped, [site.inbox], site.output, restored) == []
    again = site.run("db", "backup", str(file), environ=with_programs)
    assert again.returncode == 69
    assert "there is a file of that name" in again.stderr
    assert list(tmp_path.iterdir()) == [file]


def test_backup_without_pg_dump_names_the_command_without_the_password(site: Workspace, tmp_path: Path) -> None:
    done = site.run("db", "backup", str(tmp_path / "b"), environ={"PATH": str(tmp_path)})
    assert done.returncode == 69
    (line,) = [line for line in done.stderr.splitlines() if "pg_dump" in line]
    assert f"run: pg_dump --format=custom --file={tmp_path / 'b'} '--dbname=" in line
    assert "l@t" not in line
    assert list(tmp_path.iterdir()) == []


def test_backup_that_fails_leaves_nothing_and_says_why(site: Workspace, tmp_path: Path) -> None:
    false = tmp_path / "pg_dump"
    false.write_text("#!/bin/sh\necho 'pg_dump: error: it' >&2\necho cannot be >&2\nexit 1\n")
    false.chmod(0o755)
    done = site.run("db", "backup", str(tmp_path / "b"), environ={"PATH": f"{tmp_path}:{os.environ['PATH']}"})
    assert done.returncode == 69
    assert f"cannot write a backup to {tmp_path / 'b'}: pg_dump: error: it cannot be" in done.stderr
    assert list(tmp_path.iterdir()) == [false]


@pytest.fixture
def poor_role(site: Workspace, postgres: Server) -> Iterator[str]:
    """A role that may enter and no more."""
    postgres.execute("CREATE ROLE poor LOGIN PASSWORD 'of me'")
    yield "poor"
    postgres.execute("DROP ROLE poor")


def test_password_may_come_from_the_environment_or_a_file(site: Workspace, tmp_path: Path, postgres: Server) -> None:
    url = make_url(site.url)
    without = url._replace(password=None).render_as_string()
    bare = Workspace(tmp_path)
    bare.config.write_text(site.config.read_text().replace(str(site.url), without))
    assert bare.run("db", "current").returncode == 69
    assert bare.run("db", "current", environ={"PGPASSWORD": str(url.password)}).returncode == 0
    file = tmp_path / "pass"
    escaped = str(url.password).replace("\\", "\\\\").replace(":", "\\:")
    file.write_text(f"*:*:*:*:{escaped}\n")
    file.chmod(0o600)
    assert bare.run("db", "current", environ={"PGPASSFILE": str(file)}).returncode == 0


def test_role_without_rights_is_one_clear_sentence(site: Workspace, tmp_path: Path, poor_role: str) -> None:
    poor = make_url(site.url).set(username=poor_role, password="of%20me").render_as_string(hide_password=False)
    poor = poor.replace("of%2520me", "of%20me")
    bare = Workspace(tmp_path)
    bare.config.write_text(site.config.read_text().replace(str(site.url), poor))
    for command in (["run", "--once"], ["db", "current"], ["status"]):
        done = bare.run(*command)
        assert done.returncode == 69, (command, done.stderr)
        assert "permission denied" in done.stderr
        assert "Traceback" not in done.stderr


def test_reviews_are_exported_for_training(site: Workspace, tmp_path: Path) -> None:
    first = site.rows("SELECT id, label FROM images WHERE outcome = 'sorted' ORDER BY id")[0]
    with psycopg.connect(plain(str(site.url))) as connection:
        connection.execute(
            "INSERT INTO reviews (image_id, label, previous_label, reviewed_at) VALUES (%s, %s, %s, now())",
            (first["id"], first["label"], first["label"]),
        )
    program = [os.path.join(os.path.dirname(site.command()[0]), "pigeonholed-train")]
    done = subprocess.run(
        [*program, "dataset", "export", str(tmp_path / "set"), "--config", str(site.config)],
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list((tmp_path / "set").rglob("*.png"))) == 1


def test_texts_of_every_kind_are_stored(site: Workspace) -> None:
    """Names that are no UTF-8, and explanations of broken pictures, go where no NUL and no half a character may."""
    assert site.drop(os.fsdecode(b"caf\xe9\n\\x00.png"), picture(220, 60, 40, 901))
    assert site.drop("nul.png", b"\x89PNG\r\n\x1a\n\0\0\0\0text\0\xff")
    done = site.run("run", "--once", timeout_s=240)
    assert done.returncode == 0, done.stderr
    assert site.audit() == []
