"""`pigeonholed reclassify`, the whole program: alone, and by a daemon that files new pictures meanwhile."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from bundles import make_bundle
from forking import Forker, forking
from gauges import Scraped
from running import KEEPING, Running, Workspace, drop_twenty, environment, picture, until

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def forker() -> Iterator[Forker]:
    with forking(environment()) as forker:
        yield forker


@dataclass
class Site:
    """A working folder, and commands in processes that start in no time."""

    work: Workspace
    forker: Forker

    def begin(self, command: str, *arguments: str) -> int:
        return self.forker.start(self.work.root, *arguments, command=command)

    def end(self, pid: int) -> int:
        return self.forker.end(self.work.root, pid).code

    def run(self, command: str, *arguments: str) -> tuple[int, str]:
        """Exit code, and what was said, to stdout or stderr."""
        said_before = len(self.said())
        code = self.end(self.begin(command, *arguments))
        return code, self.said()[said_before:]

    def said(self) -> str:
        log = self.work.root / "daemon.log"
        return log.read_text() if log.exists() else ""

    def rows(self, query: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(f"file:{self.work.database}?mode=ro", uri=True)) as connection:
            return connection.execute(query).fetchall()

    def publish_second(self) -> None:
        """A version that calls cats dogs and dogs cats."""
        make_bundle(self.work.root / "second", labels=("dog", "cat"), publish_into=self.work.root / "models")

    def drop_many(self, number: int) -> None:
        for serial in range(number):
            self.work.drop(f"{serial}.png", picture(220, 60, 40, serial))

    def batches_of(self, size: int) -> None:
        self.work.config.write_text(f"{self.work.config.read_text()}[batching]\nmax_batch_size = {size}\n")


@pytest.fixture
def site(tmp_path: Path, forker: Forker) -> Iterator[Site]:
    yield Site(Workspace.make(tmp_path, listen="127.0.0.1:0"), forker)
    forker.abandon()


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


def told(said: str) -> list[dict[str, object]]:
    """What `--json` says."""
    return [json.loads(line) for line in said.splitlines() if line.startswith('{"image"')]


def test_alone_it_moves_what_changed_names_what_it_left_and_undo_takes_it_back(site: Site) -> None:
    drop_twenty(site.work)
    site.run("run", "--once")
    with closing(sqlite3.connect(site.work.database)) as connection, connection:
        (reviewed, path) = connection.execute("SELECT id, destination FROM images WHERE label = 'dog'").fetchone()
        (edited,) = connection.execute("SELECT destination FROM images WHERE label = 'cat'").fetchone()
        review = (reviewed, "dog", datetime.now(UTC).isoformat(" "))
        connection.execute("INSERT INTO reviews (image_id, label, reviewed_at) VALUES (?, ?, ?)", review)
    site.publish_second()
    good = (site.work.output / edited).read_bytes()
    (site.work.output / edited).write_bytes(b"edited by hand")

    code, said = site.run("reclassify", "--dry-run")
    assert (code, site.rows("SELECT DISTINCT model_version FROM images WHERE label IS NOT NULL")) == (1, [(1,)])
    assert "16 pictures looked at by tiny 2: 15 would be moved, 0 would be renewed in place" in said
    code, said = site.run("reclassify")
    assert code == 1
    assert "16 pictures looked at by tiny 2: 15 moved, 0 renewed in place, 0 unchanged, 1 left" in said
    assert f"left: {edited}: its content has changed since it was filed" in said
    assert site.rows(f"SELECT model_version, destination FROM images WHERE id = {reviewed}") == [(1, path)]
    (site.work.output / edited).write_bytes(good)
    assert site.work.audit() == []

    code, said = site.run("reclassify", "--json")
    assert (code, [file["result"] for file in told(said)]) == (0, ["moved"])
    assert site.work.audit() == []
    assert "nothing for tiny 2 to look at" in site.run("reclassify")[1]

    assert site.run("undo", "--last", "20") == (0, "20 files put back\n")
    assert {str(path.relative_to(site.work.inbox)) for path in site.work.inbox.rglob("*.png")} == {
        item.path.decode() for item in site.work.dropped
    }


def test_only_what_was_unsure_is_looked_at_again_by_the_version_that_is_named(site: Site) -> None:
    drop_twenty(site.work)
    site.publish_second()
    site.run("run", "--once")
    _code, said = site.run("reclassify", "--only", "unsure", "--version", "1", "--json")
    assert {(file["outcome_before"], file["outcome"]) for file in told(said)} == {("unsure", "unsure")}
    found = site.rows("SELECT DISTINCT outcome, model_version FROM images WHERE label IS NOT NULL ORDER BY 1")
    assert found == [("sorted", 2), ("unsure", 1)]
    assert site.work.audit() == []


def test_copies_are_filed_anew_and_their_originals_left_alone(tmp_path: Path, forker: Forker) -> None:
    site = Site(Workspace.make(tmp_path, variant=KEEPING), forker)
    drop_twenty(site.work)
    site.run("run", "--once")
    site.publish_second()
    assert site.run("reclassify")[0] == 0
    assert site.run("run", "--once")[0] == 0
    assert site.rows("SELECT DISTINCT model_version FROM images WHERE label IS NOT NULL") == [(2,)]
    assert site.work.audit() == []


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("--inbox", "x"), 2, "there is no inbox 'x'; there are camera"),
        (("--version", "7"), 78, "There is no version 7 of the model tiny"),
        (("--model", "a/b"), 78, "cannot be the name of a model"),
    ],
)
def test_mistakes_are_one_sentence(site: Site, arguments: tuple[str, ...], code: int, why: str) -> None:
    ended, said = site.run("reclassify", *arguments)
    assert (ended, len(said.splitlines())) == (code, 1)
    assert why in said


def test_daemon_does_it_under_load_while_others_have_their_turn_and_its_books_balance(site: Site) -> None:
    work = site.work
    site.drop_many(150)
    with work.serving() as daemon:
        daemon.await_event("service_ready")
        until(lambda: work.filed() == 150, "150 filed")
        site.publish_second()
        daemon.await_event("model_switched")
        with load(work):
            asked = site.begin("reclassify")
            until(lambda: work.filed() > 150, "pictures to be filed meanwhile")
            assert site.run("undo", "--last", "1")[0] == 0
            assert site.run("undo", "--release")[0] == 0
            assert site.end(asked) == 0
        until(lambda: work.filed() == len(work.dropped), "all filed")
        assert "150 moved" in site.said()
        _judge_books(daemon, moved=150)
        assert daemon.terminate() == 0
    assert work.audit() == []
    first = "SELECT DISTINCT label, model_version FROM images WHERE status = 'filed' AND source_path NOT LIKE 'live%'"
    assert site.rows(first) == [("dog", 2)]


def _judge_books(daemon: Running, moved: int) -> None:
    scraped = Scraped.of(daemon.fetch("/metrics")[1])
    assert scraped.series["reclassified_images_total", "camera", "moved"] == moved
    assert scraped.series["reclassified_images_total", "camera", "left"] == 0
    assert scraped.faults() == []
    assert scraped.total("in_flight_files") == 0


def test_daemon_that_is_killed_meanwhile_is_started_again_and_the_next_run_goes_on(site: Site) -> None:
    work = site.work
    site.drop_many(300)
    site.batches_of(4)
    with work.serving() as daemon:
        until(lambda: work.filed() == 300, "300 filed")
        site.publish_second()
        asked = site.begin("reclassify")
        daemon.await_event("files_reclassified")
        daemon.process.kill()
        daemon.process.wait()
        assert site.end(asked) == 69
        assert "Traceback" not in site.said()
    assert site.run("run", "--once")[0] == 0
    code, said = site.run("reclassify", "--json")
    assert code == 0
    assert 0 < len(told(said)) < 300
    assert work.audit() == []
    assert site.rows("SELECT DISTINCT label, model_version, status FROM images") == [("dog", 2, "filed")]


def test_broken_off_alone_it_says_how_to_go_on(site: Site) -> None:
    site.drop_many(200)
    site.run("run", "--once")
    site.publish_second()
    site.batches_of(1)
    asked = site.begin("reclassify")
    until(lambda: site.rows("SELECT 1 FROM images WHERE model_version = 2 LIMIT 1"), "the first")
    os.kill(asked, signal.SIGINT)
    assert site.end(asked) == 1
    assert site.said().endswith("broken off: run it again, and it goes on with what is left\n")
    assert "Traceback" not in site.said()
    assert site.work.audit() == []
    assert site.run("reclassify")[0] == 0
    assert site.rows("SELECT DISTINCT model_version FROM images") == [(2,)]
    assert site.work.audit() == []
