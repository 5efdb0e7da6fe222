"""`pigeonholed reclassify`, the whole program: alone, and by a daemon that files new pictures meanwhile."""

from __future__ import annotations

import json
import signal
import sqlite3
import subprocess
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundles import make_bundle
from gauges import Scraped
from running import Running, Workspace, drop_twenty, picture, until


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    return Workspace.make(tmp_path, listen="127.0.0.1:0")


def rows(workspace: Workspace, query: str) -> list[tuple[object, ...]]:
    with closing(sqlite3.connect(f"file:{workspace.database}?mode=ro", uri=True)) as connection:
        return connection.execute(query).fetchall()


def publish_second(workspace: Workspace) -> None:
    """A version that calls cats dogs and dogs cats."""
    make_bundle(workspace.root / "second", labels=("dog", "cat"), publish_into=workspace.root / "models")


def drop_many(workspace: Workspace, number: int) -> None:
    for serial in range(number):
        workspace.drop(f"{serial}.png", picture(220, 60, 40, serial))


@contextmanager
def load(workspace: Workspace) -> Iterator[None]:
    """Pictures keep arriving while the block runs."""
    done = threading.Event()

    def drop() -> None:
        serial = 1000
        while not done.wait(0.02):
            workspace.drop(f"live/{serial}.png", picture(40, 60, 220, serial))
            serial += 1

    thread = threading.Thread(target=drop)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def told(done: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_alone_it_moves_what_changed_names_what_it_left_and_undo_takes_it_back(workspace: Workspace) -> None:
    drop_twenty(workspace)
    workspace.run("run", "--once")
    with closing(sqlite3.connect(workspace.database)) as connection, connection:
        (reviewed, path) = connection.execute("SELECT id, destination FROM images WHERE label = 'dog'").fetchone()
        (edited,) = connection.execute("SELECT destination FROM images WHERE label = 'cat'").fetchone()
        review = (reviewed, "dog", datetime.now(UTC).isoformat(" "))
        connection.execute("INSERT INTO reviews (image_id, label, reviewed_at) VALUES (?, ?, ?)", review)
    publish_second(workspace)
    good = (workspace.output / edited).read_bytes()
    (workspace.output / edited).write_bytes(b"edited by hand")

    tried = workspace.run("reclassify", "--dry-run")
    assert (tried.returncode, rows(workspace, "SELECT DISTINCT model_version FROM images")) == (1, [(1,), (None,)])
    assert "17" not in tried.stdout.split("pictures")[0]  # the reviewed one is not even looked at
    assert "16 pictures looked at by tiny 2: 15 would be moved, 0 would be renewed in place, 0 unchanged, 1 left" in (
        tried.stdout
    )
    done = workspace.run("reclassify")
    assert done.returncode == 1
    assert "16 pictures looked at by tiny 2: 15 moved, 0 renewed in place, 0 unchanged, 1 left" in done.stdout
    assert f"left: {edited}: its content has changed since it was filed" in done.stderr
    assert rows(workspace, f"SELECT model_version, destination FROM images WHERE id = {reviewed}") == [(1, path)]
    (workspace.output / edited).write_bytes(good)
    assert workspace.audit() == []

    again = workspace.run("reclassify", "--json")
    assert (again.returncode, [file["result"] for file in told(again)]) == (0, ["moved"])
    assert workspace.audit() == []
    assert "nothing for tiny 2 to look at" in workspace.run("reclassify").stdout

    assert json.loads(workspace.run("undo", "--last", "20", "--json").stdout)["back"] == 20
    assert {str(path.relative_to(workspace.inbox)) for path in workspace.inbox.rglob("*.png")} == {
        item.path.decode() for item in workspace.dropped
    }


def test_only_what_was_unsure_is_looked_at_again_by_the_version_that_is_named(workspace: Workspace) -> None:
    drop_twenty(workspace)
    publish_second(workspace)
    workspace.run("run", "--once")
    done = workspace.run("reclassify", "--only", "unsure", "--version", "1", "--json")
    assert {(file["outcome_before"], file["outcome"]) for file in told(done)} == {("unsure", "unsure")}
    found = rows(workspace, "SELECT DISTINCT outcome, model_version FROM images WHERE label IS NOT NULL ORDER BY 1")
    assert found == [("sorted", 2), ("unsure", 1)]
    assert workspace.audit() == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("--inbox", "x"), 2, "there is no inbox 'x'; there are camera"),
        (("--only", "rejected"), 2, "'rejected' is not one of 'sorted', 'unsure'"),
        (("--version", "7"), 78, "There is no version 7 of the model tiny"),
        (("--model", "a/b"), 78, "cannot be the name of a model"),
    ],
)
def test_mistakes_are_one_sentence(workspace: Workspace, arguments: tuple[str, ...], code: int, why: str) -> None:
    done = workspace.run("reclassify", *arguments)
    assert (done.returncode, "Traceback" in done.stderr) == (code, False)
    assert why in done.stderr


@pytest.mark.slow
def test_daemon_does_it_under_load_while_others_have_their_turn_and_its_books_balance(workspace: Workspace) -> None:
    drop_many(workspace, 150)
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        until(lambda: workspace.filed() == 150, "150 filed")
        publish_second(workspace)
        daemon.await_event("model_switched")
        with load(workspace):
            asked = subprocess.Popen(
                [*workspace.command("reclassify"), "--config", str(workspace.config)], stdout=subprocess.PIPE, text=True
            )
            assert workspace.run("undo", "--last", "1").returncode == 0
            assert workspace.run("undo", "--release").returncode == 0
            said, _ = asked.communicate(timeout=60)
            filed = workspace.filed()
            until(lambda: workspace.filed() > filed, "pictures to be filed meanwhile")
        assert asked.returncode == 0
        assert "150 moved" in said
        until(lambda: workspace.filed() == len(workspace.dropped), "all filed")
        _judge_books(daemon, moved=150)
        assert daemon.terminate() == 0
    assert workspace.audit() == []
    first = "SELECT DISTINCT label, model_version FROM images WHERE status = 'filed' AND source_path NOT LIKE 'live%'"
    assert rows(workspace, first) == [("dog", 2)]


def _judge_books(daemon: Running, moved: int) -> None:
    scraped = Scraped.of(daemon.fetch("/metrics")[1])
    assert scraped.series["reclassified_images_total", "camera", "moved"] == moved
    assert scraped.series["reclassified_images_total", "camera", "left"] == 0
    assert scraped.faults() == []
    assert scraped.total("in_flight_files") == 0


@pytest.mark.slow
def test_daemon_that_is_killed_meanwhile_is_started_again_and_the_next_run_goes_on(workspace: Workspace) -> None:
    drop_many(workspace, 300)
    config = workspace.config.read_text()
    workspace.config.write_text(config + "[batching]\nmax_batch_size = 4\n")
    with workspace.serving() as daemon:
        until(lambda: workspace.filed() == 300, "300 filed")
        publish_second(workspace)
        asked = subprocess.Popen(
            [*workspace.command("reclassify"), "--config", str(workspace.config)], stderr=subprocess.PIPE, text=True
        )
        daemon.await_event("files_reclassified")
        daemon.process.kill()
        daemon.process.wait()
        _, said = asked.communicate(timeout=60)
        assert (asked.returncode, "Traceback" in said) == (69, False), said
    with workspace.serving() as daemon:
        daemon.await_event("service_ready")
        done = workspace.run("reclassify", "--json")
        assert 0 < len(told(done)) < 300
        assert daemon.terminate() == 0
    assert workspace.audit() == []
    assert rows(workspace, "SELECT DISTINCT label, model_version, status FROM images") == [("dog", 2, "filed")]


@pytest.mark.slow
def test_broken_off_alone_it_says_how_to_go_on(workspace: Workspace) -> None:
    drop_many(workspace, 200)
    workspace.config.write_text(workspace.config.read_text() + "[batching]\nmax_batch_size = 1\n")
    workspace.run("run", "--once")
    publish_second(workspace)
    asked = subprocess.Popen(
        [*workspace.command("reclassify"), "--config", str(workspace.config)],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    until(lambda: rows(workspace, "SELECT 1 FROM images WHERE model_version = 2 LIMIT 1"), "the first")
    asked.send_signal(signal.SIGINT)
    _, said = asked.communicate(timeout=60)
    assert (asked.returncode, "Traceback" in said) == (1, False), said
    assert "broken off: run it again" in said
    assert workspace.audit() == []
    workspace.run("reclassify")
    assert rows(workspace, "SELECT DISTINCT model_version FROM images") == [(2,)]
    assert workspace.audit() == []
