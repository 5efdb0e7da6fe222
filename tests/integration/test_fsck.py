"""Disk against database: what `fsck` finds, and what `--repair` makes of it."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from faults import Fault
from forking import Forker, forking
from pigeonholed.cli import cli
from pigeonholed.findings import Kind
from pigeonholed.paths import from_text
from records_of import ON_POSTGRES, ask
from running import Workspace, drop_twenty, environment, picture, until
from servers import shared_server


@pytest.fixture(scope="module")
def mould(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """Twenty files that the real program has filed."""
    workspace = Workspace.make(tmp_path_factory.mktemp("fsck") / "work")
    drop_twenty(workspace)
    done = workspace.run("run", "--once")
    assert done.returncode == 0, done.stderr
    return workspace


@pytest.fixture
def site(mould: Workspace, tmp_path: Path) -> Workspace:
    return mould.copy(tmp_path / "work")


def fsck(site: Workspace, *arguments: str, code: int | None = None) -> list[dict[str, Any]]:
    """The findings of a check; `code` is the exit code that it must end with, 1 where there are some left."""
    done = CliRunner().invoke(cli, ["fsck", "--json", *arguments, "--config", str(site.config)], catch_exceptions=False)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    left = [one for one in found if not one["mended"]]
    assert done.exit_code == (bool(left) if code is None else code), done.output
    return found


def kinds(found: Sequence[dict[str, Any]]) -> dict[str, list[str]]:
    """The paths of each kind."""
    told: dict[str, list[str]] = {}
    for one in found:
        told.setdefault(one["kind"], []).append(one["path"])
    return {kind: sorted(paths) for kind, paths in told.items()}


def query(site: Workspace, text: str, *values: object) -> list[tuple[Any, ...]]:
    return ask(site.database, text, *values)


def results(site: Workspace) -> dict[int, tuple[str, str, str]]:
    """Status, destination and hash of each row."""
    return {row[0]: row[1:] for row in query(site, "SELECT id, status, destination, sha256 FROM images")}


def id_of(site: Workspace, destination: str) -> int:
    ((number,),) = query(site, "SELECT id FROM images WHERE destination = ? AND status = 'filed'", destination)
    assert isinstance(number, int)
    return number


def backup_of(site: Workspace) -> Callable[[], None]:
    """Copy the database as it is now; what comes back puts the copy in its place."""
    if ON_POSTGRES:
        assert site.url is not None
        url = shared_server().make(site.url)

        def name_the_copy() -> None:
            site.config.write_text(site.config.read_text().replace(str(site.url), url))
            site.url = url

        return name_the_copy
    backup = site.root / "backup.db"
    query(site, "VACUUM INTO ?", str(backup))

    def replace() -> None:
        for suffix in ("", "-wal", "-shm"):
            Path(f"{site.database}{suffix}").unlink(missing_ok=True)
        backup.rename(site.database)

    return replace


def move(site: Workspace, source: str, target: str) -> None:
    (site.output / target).parent.mkdir(parents=True, exist_ok=True)
    (site.output / source).rename(site.output / target)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def spoil(site: Workspace) -> dict[str, list[str]]:
    """One of each that people and machines do to an output; what must be found."""
    out = site.output
    (out / "cat/0.png").unlink()
    move(site, "cat/9.png", "dog/by-hand.png")
    (out / "cat/a/b/2.png").parent.mkdir(parents=True, exist_ok=True)
    (out / "cat/12.png").write_bytes(b"x" * (out / "cat/12.png").stat().st_size)
    with (out / "cat/15.png").open("ab") as file:
        file.write(b"more")
    (out / "cat/new.png").write_bytes(picture(220, 60, 40, 77))
    (out / "letter.txt").write_text("in no folder of a class")
    (out / "_rejected/unsupported/6.png.reason.json").unlink()
    (out / "_rejected/truncated/a/13.png.reason.json").write_text('{"arrival": "somebody else"}')
    shutil.copy(out / "_rejected/empty/a/19.png.reason.json", out / "_rejected/empty/gone.png.reason.json")
    (out / ".pigeonholed/0123456789abcdef").mkdir()
    (out / ".pigeonholed/0123456789abcdef" / ("5" * 32)).write_bytes(b"whose?")
    (out / "cat/link.png").symlink_to("1.png")
    query(
        site,
        "INSERT INTO images (id, inbox, source_path, sha256, size_bytes, status, outcome, label, destination, "
        "arrived_at, filed_at, arrival, token) SELECT 900, inbox, 'twin.png', sha256, size_bytes, status, outcome, "
        "label, destination, arrived_at, filed_at, 'twin', token FROM images WHERE destination = 'dog/a/1.png'",
    )
    query(site, "UPDATE images SET status = 'lost', detail = 'nobody knows' WHERE destination = 'dog/a/7.png'")
    query(site, "UPDATE images SET status = 'planned' WHERE destination = 'dog/a/10.png'")
    return {
        "missing": ["cat/0.png"],
        "moved": ["cat/9.png"],
        "changed": ["cat/12.png", "cat/15.png"],
        "unexplained": ["cat/link.png", "cat/new.png", "dog/a/7.png", "letter.txt"],
        "reason-missing": ["_rejected/unsupported/6.png"],
        "reason-foreign": ["_rejected/truncated/a/13.png"],
        "reason-stray": ["_rejected/empty/gone.png.reason.json"],
        "left-over": [f".pigeonholed/0123456789abcdef/{'5' * 32}"],
        "twice": ["dog/a/1.png"],
        "lost": ["a/7.png"],
        "in-flight": ["a/10.png"],
    }


def test_what_is_as_it_was_filed_is_no_finding(site: Workspace) -> None:
    done = CliRunner().invoke(cli, ["fsck", "--config", str(site.config)])
    assert (done.exit_code, done.stdout) == (0, "")
    assert "20 results and 23 files looked at: disk and database agree" in done.stderr
    assert kinds(fsck(site, "--repair")) == {}


def test_every_kind_of_disagreement_is_found_and_nothing_is_changed(site: Workspace) -> None:
    expected = spoil(site)
    before = {path: path.lstat().st_mtime_ns for path in site.output.rglob("*")}, results(site)
    assert kinds(fsck(site)) == expected
    assert ({path: path.lstat().st_mtime_ns for path in site.output.rglob("*")}, results(site)) == before
    of_sidecars = {Kind.SIDECAR_MISSING, Kind.SIDECAR_MOVED}  # `test_fsck_beside.py`
    assert set(expected) == set(Kind) - {Kind.DATABASE, Kind.ROW, Kind.UNREADABLE} - of_sidecars


def test_the_independent_auditor_finds_nothing_that_fsck_does_not(site: Workspace) -> None:
    spoil(site)
    found = fsck(site)
    rows = {one["image"] for one in found} | {int(n) for one in found for n in re.findall(r"row (\d+)", one["what"])}
    paths = {one["path"] for one in found} | {one["found"] for one in found if one["found"]}
    counts = re.compile(r"(lost: )?sha256 \w+ was dropped")  # of contents, whose places are told beside
    judged = [finding for finding in site.audit(remade=True) if not counts.match(finding)]
    for finding in judged:
        row = re.search(r"\brow (\d+)", finding)
        batch = finding.removeprefix("left over in flight: ")
        assert (row and int(row[1]) in rows) or any(path in finding or batch in path for path in paths), finding
    assert len(judged) >= 10


def test_fast_looks_at_names_and_sizes_only(site: Workspace) -> None:
    spoil(site)
    assert kinds(fsck(site, "--fast"))["changed"] == ["cat/15.png"]


def test_repair_makes_rows_true_and_leaves_files_alone(site: Workspace) -> None:
    spoil(site)
    files = {path: hash_of(path) for path in site.output.rglob("*") if path.is_file()}
    twin, gone = 900, id_of(site, "cat/0.png")
    moved = id_of(site, "cat/9.png")
    found = fsck(site, "--repair", code=1)
    assert sorted(one["kind"] for one in found if one["mended"]) == [
        *("missing", "moved", "reason-missing", "twice", "unexplained", "unexplained")
    ]
    rows = results(site)
    assert (rows[gone][0], rows[twin][0]) == ("vanished", "filed"), "of two rows of one content the newest keeps it"
    assert rows[moved][:2] == ("filed", "dog/by-hand.png")
    made = dict(
        query(site, "SELECT destination, label FROM images WHERE model IS NULL AND label IS NOT NULL AND id > 900")
    )
    assert made == {"cat/new.png": "cat", "dog/a/7.png": "dog"}
    assert {path: hash_of(path) for path in files} == files
    sidecar = json.loads((site.output / "_rejected/unsupported/6.png.reason.json").read_text())
    assert (sidecar["path"], sidecar["reason"], sidecar["sha256"]) == (
        "6.png",
        "unsupported",
        rows[id_of(site, "_rejected/unsupported/6.png")][2],
    )
    # What is left needs a person, and is told again, nothing else.
    left = kinds(fsck(site, "--repair", code=1))
    assert set(left) == {"changed", "unexplained", "reason-foreign", "reason-stray", "left-over", "lost", "in-flight"}
    assert left["unexplained"] == ["cat/link.png", "letter.txt"]


def test_older_copy_of_the_database_is_made_true_again(site: Workspace) -> None:
    put_back = backup_of(site)
    for serial in range(100, 106):
        site.drop(f"later/{serial}.png", picture(220 - 30 * (serial % 2), 60, 40, serial))
    site.drop("later/grey.png", picture(120, 60, 120, 9))
    site.drop("later/broken.png", b"no picture at all")
    assert site.run("run", "--once").returncode == 0
    put_back()
    found = kinds(fsck(site))
    assert len(found["unexplained"]) == 8
    assert set(found) == {"unexplained"}
    fsck(site, "--repair", code=0)
    later = query(site, "SELECT source_path, outcome, label FROM images WHERE source_path LIKE 'later/%'")
    assert ("later/grey.png", "unsure", "dog") in later
    assert ("later/broken.png", "rejected", None) in later
    assert len(later) == 8
    assert site.run("run", "--once").returncode == 0
    assert kinds(fsck(site)) == {}
    assert site.audit(remade=True) == []


def test_repair_goes_through_a_running_daemon_and_its_undo_works_afterwards(site: Workspace) -> None:
    with site.serving() as daemon:
        daemon.await_event("service_ready")
        move(site, "cat/9.png", "kept/9.png")
        (site.output / "cat/0.png").unlink()
        (site.output / "cat/new.png").write_bytes(picture(220, 60, 40, 78))
        assert [one["mended"] for one in fsck(site, "--repair", code=0)] == [True] * 3
        site.drop("fresh.png", picture(220, 60, 40, 79))
        until((site.output / "cat/fresh.png").exists, "the daemon to go on with ids of its own")
        done = site.run("undo", "--image", str(id_of(site, "kept/9.png")))
        assert done.returncode == 0, done.stderr
        assert (site.inbox / "9.png").exists()
        assert daemon.terminate() == 0
    assert kinds(fsck(site)) == {}


def test_check_beside_a_daemon_under_load_tells_of_nothing(site: Workspace) -> None:
    with site.serving() as daemon:
        daemon.await_event("service_ready")
        found: list[dict[str, Any]] = []
        for serial in range(60):
            site.drop(f"load/{serial}.png", picture(220, 60, 40, 1000 + serial))
            if serial % 10 == 5:
                found += fsck(site)
        until(lambda: site.filed() == 80, "all filed")
        assert daemon.terminate() == 0
    assert found == []


def test_file_that_is_half_way_back_is_told_and_left_to_the_next_start(site: Workspace) -> None:
    number = id_of(site, "cat/0.png")
    query(site, "INSERT INTO holds SELECT id, inbox, source_path, size_bytes, mtime_ns, 'retrying' FROM images "
          "WHERE id = ?", number)  # fmt: skip
    move(site, "cat/0.png", "../inbox/0.png")
    (found,) = fsck(site)
    assert (found["kind"], found["path"], found["image"]) == ("in-flight", "0.png", number)
    assert site.run("run", "--once").returncode == 0
    assert fsck(site) == []
    assert results(site)[number][0] == "returned"


def test_one_inbox_is_compared_alone(site: Workspace) -> None:
    spoil(site)
    whole = fsck(site)
    assert fsck(site, "--inbox", "camera") == whole
    fsck(site, "--inbox", "none", code=2)
    query(site, "UPDATE images SET inbox = 'elsewhere' WHERE destination = 'cat/0.png'")
    done = CliRunner().invoke(cli, ["fsck", "--config", str(site.config)])
    assert "cat/0.png" not in done.stdout
    assert "1 results of the inbox elsewhere, which is not in the configuration, were not looked at" in done.stderr


def test_output_that_is_away_is_no_output_without_files(site: Workspace) -> None:
    shutil.move(site.output, site.root / "away")
    site.output.mkdir()
    done = CliRunner().invoke(cli, ["fsck", "--repair", "--config", str(site.config)])
    assert done.exit_code == 69
    assert "if its mount is away, mount it again" in done.stderr
    assert Counter(row[0] for row in results(site).values()) == {"filed": 20}


def test_row_whose_place_leads_out_of_the_output_is_told_and_never_followed(site: Workspace) -> None:
    number = id_of(site, "cat/0.png")
    query(site, "UPDATE images SET destination = '../inbox/x.png' WHERE id = ?", number)
    (site.inbox / "x.png").write_bytes((site.output / "cat/0.png").read_bytes())
    (site.output / "cat/0.png").unlink()
    assert kinds(fsck(site, "--repair", code=1)) == {"row": ["../inbox/x.png"]}
    assert results(site)[number][1] == "../inbox/x.png"


def test_names_that_would_paint_or_forge_are_printable_and_read_back(site: Workspace) -> None:
    name = os.fsdecode(b"cat/\x1b[31mred\n\xff\\.png")
    (site.output / name).write_bytes(picture(220, 60, 40, 80))
    done = CliRunner().invoke(cli, ["fsck", "--config", str(site.config)])
    assert len(done.stdout.splitlines()) == 1
    assert done.stdout.strip().isprintable()
    (found,) = fsck(site, "--repair", code=0)
    assert from_text(found["path"]) == name
    ((text,),) = query(site, "SELECT destination FROM images WHERE id = (SELECT max(id) FROM images)")
    assert from_text(text) == name


@pytest.mark.sqlite
def test_damaged_database_is_told(site: Workspace) -> None:
    query(site, "PRAGMA wal_checkpoint(TRUNCATE)")
    with closing(sqlite3.connect(site.database)) as connection:
        (page,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = 'images_poison'").fetchone()
        (size,) = connection.execute("PRAGMA page_size").fetchone()
    with site.database.open("r+b") as file:
        file.seek((page - 1) * size)
        file.write(b"\xaa" * 64)
    done = CliRunner().invoke(cli, ["fsck", "--json", "--config", str(site.config)])
    assert done.exit_code in {1, 69}
    assert "malformed" in done.output or '"kind": "database"' in done.output


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@pytest.mark.slow
def test_repair_that_is_killed_at_any_kind_of_call_leaves_every_row_true(
    mould: Workspace, forker: Forker, tmp_path: Path
) -> None:
    site = mould.copy(tmp_path / "whole")
    spoil(site)
    ended = forker.end(site.root, forker.start(site.root, "--repair", "--fast", fault=Fault(), command="fsck"))
    calls = [name for name in Counter(ended.calls) if "mending" in name or "writer" in name or "output" in name]
    site = mould.copy(tmp_path / "work")
    spoil(site)
    before, files = results(site), sorted(site.output.rglob("*.png"))
    older = id_of_twin(before)
    killed = 0
    for name in calls:  # in one folder: what a killed one has left is found by the next
        fault = Fault("kill", site=name)
        ended = forker.end(site.root, forker.start(site.root, "--repair", "--fast", fault=fault, command="fsck"))
        killed += ended.code == -signal.SIGKILL
        for row, (status, destination, sha256) in results(site).items():
            if before.get(row) != (status, destination, sha256):
                path = site.output / from_text(destination)
                there = path.is_file() and hash_of(path) == sha256
                assert there if status == "filed" else not there or row == older, (fault, row)
        assert sorted(site.output.rglob("*.png")) == files
    assert killed > len(calls) / 2 > 3, calls
    fsck(site, "--repair", code=1)
    assert not set(kinds(fsck(site))) & {"missing", "moved", "twice", "reason-missing"}


def id_of_twin(rows: dict[int, tuple[str, str, str]]) -> int:
    """The row that shares its file with row 900."""
    return next(number for number, row in rows.items() if number != 900 and row[1] == rows[900][1])
