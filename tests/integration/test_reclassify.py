"""`pigeonholed reclassify`, the whole program: alone, and by a daemon that files new pictures meanwhile."""

from __future__ import annotations

import json
import os
import signal
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest

from arrivals import arriving
from bundles import make_bundle
from faults import Fault
from forking import Forker, forking
from gauges import Scraped
from helpers import read_tree
from records_of import ask
from running import (
    KEEPING,
    LOOKING,
    SETTING_ASIDE,
    Running,
    Workspace,
    drop_twenty,
    environment,
    picture,
    until,
)

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
        lines = self.work.said().splitlines(keepends=True)
        return "".join(line for line in lines if "database_not_durable" not in line)  # true of the server of tests

    def rows(self, query: str) -> list[tuple[object, ...]]:
        return ask(self.work.database, query)

    def publish_second(self) -> None:
        """A version that calls cats dogs and dogs cats."""
        make_bundle(self.work.root / "second", labels=("dog", "cat"), publish_into=self.work.root / "models")

    def versions(self) -> list[tuple[object, ...]]:
        return self.rows("SELECT DISTINCT model_version FROM images WHERE label IS NOT NULL ORDER BY 1")

    def labels(self) -> dict[object, object]:
        return dict(self.rows("SELECT source_path, label FROM images"))  # type: ignore[arg-type]

    def batches_of(self, size: int) -> None:
        self.work.config.write_text(f"{self.work.config.read_text()}[batching]\nmax_batch_size = {size}\n")


@pytest.fixture(scope="module")
def mould(tmp_path_factory: pytest.TempPathFactory, forker: Forker) -> Workspace:
    """What each test has a copy of: pictures that the first version has filed, and a second, current one."""
    site = Site(Workspace.make(tmp_path_factory.mktemp("mould") / "work", listen="127.0.0.1:0"), forker)
    drop_twenty(site.work)
    for serial in range(100, 200):
        site.work.drop(f"many/{serial}.png", picture(220, 60, 40, serial))
    assert site.run("run", "--once")[0] == 0
    site.publish_second()
    for version in ("2", "1"):  # so that no test waits for the trial of one
        assert site.run("reclassify", "--version", version)[0] == 0
    assert site.work.audit() == []
    return site.work


@pytest.fixture
def site(tmp_path: Path, mould: Workspace, forker: Forker) -> Iterator[Site]:
    yield Site(mould.copy(tmp_path / "work"), forker)
    forker.abandon()


def told(said: str) -> list[dict[str, object]]:
    """What `--json` says."""
    return [json.loads(line) for line in said.splitlines() if line.startswith('{"image"')]


def test_alone_it_moves_what_changed_names_what_it_left_and_undo_takes_it_back(site: Site) -> None:
    (reviewed, path) = site.rows("SELECT id, destination FROM images WHERE label = 'dog' ORDER BY id")[0]
    edited = str(site.rows("SELECT destination FROM images WHERE label = 'cat' ORDER BY id")[0][0])
    review = (reviewed, "dog", datetime.now(UTC).isoformat(" "))
    ask(site.work.database, "INSERT INTO reviews (image_id, label, reviewed_at) VALUES (?, ?, ?)", *review)
    good = (site.work.output / edited).read_bytes()
    (site.work.output / edited).write_bytes(b"edited by hand")

    code, said = site.run("reclassify", "--dry-run")
    assert (code, site.versions()) == (1, [(1,)])
    assert "116 pictures looked at by tiny 2: 115 would be moved, 0 would be renewed in place" in said
    code, said = site.run("reclassify")
    assert code == 1
    assert "116 pictures looked at by tiny 2: 115 moved, 0 renewed in place, 0 unchanged, 1 left" in said
    assert f"left: {edited}: its content has changed since it was filed" in said
    assert site.rows(f"SELECT model_version, destination FROM images WHERE id = {reviewed}") == [(1, path)]
    (site.work.output / edited).write_bytes(good)
    assert site.work.audit() == []

    code, said = site.run("reclassify", "--json")
    assert (code, [file["result"] for file in told(said)]) == (0, ["moved"])
    assert site.work.audit() == []
    assert "nothing for tiny 2 to look at" in site.run("reclassify")[1]

    assert site.run("undo", "--last", "120") == (0, "120 files put back\n")
    assert {str(path.relative_to(site.work.inbox)) for path in site.work.inbox.rglob("*.png")} == {
        item.path.decode() for item in site.work.dropped
    }


def test_only_what_was_unsure_is_looked_at_again(site: Site) -> None:
    _code, said = site.run("reclassify", "--only", "unsure", "--json")
    assert {(file["outcome_before"], file["outcome"]) for file in told(said)} == {("unsure", "unsure")}
    found = site.rows("SELECT DISTINCT outcome, model_version FROM images WHERE label IS NOT NULL ORDER BY 1")
    assert found == [("sorted", 1), ("unsure", 2)]
    assert site.work.audit() == []


def test_copies_are_filed_anew_and_their_originals_left_alone(tmp_path: Path, forker: Forker) -> None:
    site = Site(Workspace.make(tmp_path, variant=KEEPING), forker)
    drop_twenty(site.work)
    site.run("run", "--once")
    site.publish_second()
    assert site.run("reclassify")[0] == 0
    assert site.run("run", "--once")[0] == 0
    assert site.versions() == [(2,)]
    assert site.work.audit() == []


def test_pictures_that_stay_get_new_rows_and_nothing_else_is_touched(tmp_path: Path, forker: Forker) -> None:
    site = Site(Workspace.make(tmp_path, variant=LOOKING), forker)
    drop_twenty(site.work)
    site.run("run", "--once")
    before, labels = read_tree(site.work.inbox), site.labels()
    site.publish_second()
    assert site.run("reclassify")[0] == 0
    assert site.run("run", "--once")[0] == 0  # they are still known
    other = {"cat": "dog", "dog": "cat"}
    assert site.labels() == {path: other.get(label, label) for path, label in labels.items()}
    assert site.versions() == [(2,)]
    assert read_tree(site.work.inbox) == before
    assert not site.work.output.exists()
    assert site.work.audit() == []


def test_duplicates_that_were_set_aside_stay_where_they_are_and_know_their_originals(
    tmp_path: Path, forker: Forker
) -> None:
    site = Site(Workspace.make(tmp_path, variant=SETTING_ASIDE), forker)
    for name in ("one.png", "again.png", "s/again.png"):
        site.work.drop(name, picture(220, 60, 40, 1))
    site.work.drop("other.png", picture(40, 60, 220, 2))
    site.run("run", "--once")
    aside = site.rows("SELECT id, destination FROM images WHERE outcome = 'duplicate' ORDER BY id")
    site.publish_second()
    code, said = site.run("reclassify")
    assert code == 0, said
    assert "2 pictures looked at by tiny 2: 2 moved" in said
    assert site.rows("SELECT id, destination FROM images WHERE outcome = 'duplicate' ORDER BY id") == aside
    site.work.drop("late.png", picture(220, 60, 40, 1))  # of the picture that lies elsewhere now
    site.run("run", "--once")
    assert site.rows("SELECT outcome FROM images WHERE source_path = 'late.png'") == [("duplicate",)]
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
    filed = work.filed()
    with work.serving() as daemon:
        daemon.await_event("service_ready")
        with arriving(lambda serial: work.drop(f"live/{serial}.png", picture(40, 60, 220, 1000 + serial)), 50):
            until(lambda: work.filed() > filed, "the first to be filed")
            asked = site.begin("reclassify")
            assert site.run("undo", "--last", "1")[0] == 0
            assert site.run("undo", "--release")[0] == 0
            assert site.end(asked) == 0
            filed = work.filed()
            until(lambda: work.filed() > filed, "pictures to be filed on")
        until(lambda: work.filed() == len(work.dropped), "all filed")
        assert "117 moved" in site.said()
        _judge_books(daemon, moved=117)
        assert daemon.terminate() == 0
    assert work.audit() == []
    assert site.versions() == [(2,)]


def _judge_books(daemon: Running, moved: int) -> None:
    scraped = Scraped.of(daemon.fetch("/metrics")[1])
    assert scraped.series["reclassified_images_total", "camera", "moved"] == moved
    assert scraped.series["reclassified_images_total", "camera", "left"] == 0
    assert scraped.faults() == []
    assert scraped.total("in_flight_files") == 0


def test_daemon_that_is_killed_meanwhile_is_started_again_and_the_next_run_goes_on(site: Site) -> None:
    site.batches_of(2)
    with site.work.serving() as daemon:
        daemon.await_event("service_ready")
        asked = site.begin("reclassify")
        daemon.await_event("files_reclassified")
        daemon.process.kill()
        daemon.process.wait()
        assert site.end(asked) == 69
        assert "Traceback" not in site.said()
    assert site.run("run", "--once")[0] == 0
    code, said = site.run("reclassify", "--json")
    assert code == 0
    assert 0 < len(told(said)) < 117
    assert site.versions() == [(2,)]
    assert site.work.audit() == []


def test_broken_off_alone_it_says_how_to_go_on(site: Site) -> None:
    site.batches_of(1)
    for version in (2, 1, 2, 1, 2):
        asked = site.begin("reclassify", "--version", str(version))
        until(lambda version=version: (version,) in site.versions(), "the first")  # type: ignore[misc]
        os.kill(asked, signal.SIGINT)
        if (code := site.end(asked)) != 0:  # else it was done before we looked
            break
    assert code == 1
    assert site.said().endswith("broken off: run it again, and it goes on with what is left\n")
    assert "Traceback" not in site.said()
    assert site.work.audit() == []
    assert site.run("reclassify", "--version", str(version))[0] == 0
    assert site.versions() == [(version,)]
    assert site.work.audit() == []


def test_killed_at_calls_of_every_kind_nothing_is_lost_or_twice(site: Site) -> None:
    """Whatever the next process is: the service, or the same command."""
    root = site.work.root

    def reclassified(version: int, fault: Fault | None = None) -> tuple[int, list[str]]:
        started = site.forker.start(root, "--version", str(version), fault=fault, command="reclassify")
        ended = site.forker.end(root, started)
        assert ended.code in {0, -signal.SIGKILL}, ended.log[-3000:]
        return ended.code, ended.calls

    _code, calls = reclassified(2, Fault())
    counts = Counter(call for call in calls if call.startswith(("refiling.", "following.")) or "images" in call)
    assert {call.partition(":")[2] for call in counts} >= {"renameat2", "fsync"}, counts
    killed, version = 0, 1
    kills = [Fault("kill", site=call, first=number, after=after)
             for call, count in counts.items() for number, after in ((1, False), (count, True))]  # fmt: skip
    for number, fault in enumerate(kills):
        killed += reclassified(version, fault)[0] != 0
        if number % 4 == 0:
            assert site.run("run", "--once")[0] == 0
            assert site.work.audit() == [], fault.replay()
        reclassified(version)
        assert site.work.audit() == [], fault.replay()
        assert site.versions() == [(version,)]
        version = 3 - version
    assert killed > 0.7 * len(kills) > 5
