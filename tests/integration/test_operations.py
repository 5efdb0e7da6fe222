"""Undo, release and retry: with a daemon under load, and without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from arrivals import arriving
from bundles import make_bundle
from running import Workspace, picture, until


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path, listen="127.0.0.1:0")


def rows(workspace: Workspace, query: str) -> list[tuple[object, ...]]:
    return [tuple(row.values()) for row in workspace.rows(query)]


def count(workspace: Workspace, status: str) -> int:
    (number,) = rows(workspace, f"SELECT count(*) FROM images WHERE status = '{status}'")[0]
    assert isinstance(number, int)
    return number


def drop_many(workspace: Workspace, number: int, first: int = 0) -> None:
    for serial in range(first, first + number):
        assert workspace.drop(f"{'ab'[serial % 2]}/{serial}.png", picture(220, 60, 40, serial))


@pytest.mark.slow
def test_undo_of_a_hundred_files_under_load_then_release_puts_each_through_once_more(workspace: Workspace) -> None:
    drop_many(workspace, 100)
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        until(lambda: count(workspace, "filed") == 100, "100 filed")
        hundred = {path for (path,) in rows(workspace, "SELECT source_path FROM images WHERE status = 'filed'")}
        with arriving(lambda serial: workspace.drop(f"live/{serial}.png", picture(40, 60, 220, 1000 + serial)), 100):
            done = workspace.run("undo", "--since", "2020-01-01T00:00")
            assert done.returncode == 0, done.stderr
            back = count(workspace, "returned")
            assert back >= 100
            assert all((workspace.inbox / str(path)).exists() for path in hundred), "held files stay where they are"
            released = json.loads(workspace.run("undo", "--release", "--json").stdout)["released"]
            assert released == back
        until(lambda: count(workspace, "filed") == len(workspace.dropped), "all filed again")
        assert daemon.terminate() == 0
    assert workspace.audit() == []
    again = rows(workspace, "SELECT source_path, count(*) FROM images WHERE status = 'filed' GROUP BY 1")
    assert all(number == 1 for path, number in again if path in hundred)
    assert count(workspace, "returned") == back


def test_undo_without_a_daemon_holds_the_files_through_the_next_run(workspace: Workspace) -> None:
    drop_many(workspace, 6)
    assert workspace.run("run", "--once").returncode == 0
    done = workspace.run("undo", "--last", "2", "--json")
    assert json.loads(done.stdout) == {"back": 2, "refused": []}
    assert workspace.run("run", "--once").returncode == 0
    assert (count(workspace, "filed"), count(workspace, "returned")) == (4, 2)
    assert json.loads(workspace.run("undo", "--release", "--json").stdout) == {"released": 2}
    assert workspace.run("run", "--once").returncode == 0
    assert (count(workspace, "filed"), count(workspace, "returned")) == (6, 2)
    assert workspace.audit() == []


def test_held_file_that_changes_is_taken(workspace: Workspace) -> None:
    drop_many(workspace, 1)
    workspace.run("run", "--once")
    workspace.run("undo", "--last", "1")
    changed = picture(40, 60, 220, 99)
    (workspace.inbox / "a/0.png").write_bytes(changed)
    assert workspace.run("run", "--once").returncode == 0
    assert rows(workspace, "SELECT label FROM images WHERE status = 'filed'") == [("dog",)]


def test_undo_never_overwrites_and_never_moves_what_has_changed(workspace: Workspace) -> None:
    drop_many(workspace, 3)
    workspace.run("run", "--once")
    assert workspace.drop("b/1.png", picture(40, 60, 220, 5))
    (workspace.output / "cat/a/2.png").write_bytes(b"edited by hand")
    done = workspace.run("undo", "--last", "3")
    assert done.returncode == 1
    assert "1 files put back" in done.stdout
    assert "its old place b/1.png is taken" in done.stderr
    assert "has changed since" in done.stderr
    assert (workspace.inbox / "b/1.png").read_bytes() == picture(40, 60, 220, 5)
    assert count(workspace, "filed") == 2


def test_rejected_files_are_listed_and_tried_again(workspace: Workspace) -> None:
    workspace.drop("letter.png", b"Dear all")
    workspace.drop("empty.png", b"")
    drop_many(workspace, 1)
    workspace.run("run", "--once")
    listed = [json.loads(line) for line in workspace.run("rejected", "list", "--json").stdout.splitlines()]
    assert {(entry["path"], entry["reason"]) for entry in listed} == {
        ("letter.png", "unsupported"),
        ("empty.png", "empty"),
    }
    done = workspace.run("rejected", "retry", "--reason", "unsupported", "--json")
    assert json.loads(done.stdout) == {"back": 1, "refused": []}
    assert not (workspace.output / "_rejected/unsupported/letter.png.reason.json").exists()
    workspace.run("run", "--once")
    assert workspace.audit() == []
    assert count(workspace, "returned") == 1


def test_faulty_new_version_is_refused_and_the_old_one_goes_on(workspace: Workspace) -> None:
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        version = workspace.root / "models/tiny/1"
        shutil.copytree(version, workspace.root / "models/tiny/2")
        (workspace.root / "models/tiny/2/model.keras").write_bytes(b"something else")
        (workspace.root / "models/tiny/CURRENT").write_text("2\n")
        assert daemon.await_event("model_refused")["serving"] == 1
        drop_many(workspace, 3)
        until(lambda: count(workspace, "filed") == 3, "filed by the old version")
        _status, metrics = daemon.fetch("/metrics")
        assert 'pigeonholed_model_reloads_total{model="tiny",result="refused"} 1.0' in metrics
    assert rows(workspace, "SELECT DISTINCT model_version FROM images") == [(1,)]


def test_use_refuses_a_version_that_is_not_there(workspace: Workspace) -> None:
    done = workspace.run("models", "use", "tiny", "7")
    assert done.returncode == 78
    assert (workspace.root / "models/tiny/CURRENT").read_text().strip() == "1"


@contextmanager
def maybe_serving(workspace: Workspace, *, daemon: bool) -> Iterator[None]:
    if not daemon:
        yield
        return
    with workspace.serving() as running:
        running.await_event("service_ready")
        yield
        assert running.terminate() == 0


@pytest.mark.slow
@pytest.mark.parametrize("daemon", [False, True], ids=["alone", "daemon"])
def test_each_command_does_the_same_with_a_daemon_and_without(workspace: Workspace, daemon: bool) -> None:
    make_bundle(workspace.root / "second", publish_into=workspace.root / "models")
    workspace.drop("letter.png", b"Dear all")
    drop_many(workspace, 2)
    assert workspace.run("run", "--once").returncode == 0

    def asked(*arguments: str) -> dict[str, object]:
        done = workspace.run(*arguments, "--json")
        assert done.returncode == 0, (arguments, done.stderr)
        answer: dict[str, object] = json.loads(done.stdout)
        return answer

    with maybe_serving(workspace, daemon=daemon):
        assert asked("status")["running"] is daemon
        assert asked("models", "rollback", "tiny")["version"] == 1
        assert asked("models", "use", "tiny", "2")["version"] == 2
        assert asked("rejected", "list")["reason"] == "unsupported"
        assert asked("undo", "--image", "2") == {"back": 1, "refused": []}
        assert asked("undo", "--release") == {"released": 1}
        backup = workspace.root / "backup.db"
        assert asked("db", "backup", str(backup))["file"] == str(backup)
        assert backup.stat().st_size > 0
        assert workspace.run("db", "backup", str(backup)).returncode == 69, "never over a file"
        assert asked("rejected", "retry") == {"back": 1, "refused": []}
        if daemon:
            until(lambda: count(workspace, "filed") == 3, "what was released and retried to be filed again")
    assert workspace.run("run", "--once").returncode == 0
    assert (count(workspace, "filed"), count(workspace, "returned")) == (3, 2)
    assert workspace.audit() == []


def test_dry_run_says_where_each_file_would_go_and_changes_nothing(workspace: Workspace) -> None:
    drop_many(workspace, 2)
    workspace.drop("x/letter.png", b"Dear all")
    workspace.drop("x/0.png", picture(40, 60, 220, 7))
    before = sorted(path.relative_to(workspace.root) for path in workspace.root.rglob("*"))
    done = workspace.run("run", "--dry-run", "--json")
    assert done.returncode == 0, done.stderr
    told = {entry["path"]: entry for entry in map(json.loads, done.stdout.splitlines())}
    assert {path: entry["destination"] for path, entry in told.items()} == {
        "a/0.png": "cat/a/0.png",
        "b/1.png": "cat/b/1.png",
        "x/0.png": "dog/x/0.png",
        "x/letter.png": "_rejected/unsupported/x/letter.png",
    }
    assert sorted(path.relative_to(workspace.root) for path in workspace.root.rglob("*")) == before
    assert workspace.run("run", "--once").returncode == 0
    filed = dict(rows(workspace, "SELECT source_path, destination FROM images WHERE status = 'filed'"))
    assert filed == {path: entry["destination"] for path, entry in told.items()}
