"""Taking files out of the inboxes: first the row, then the rename."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeClock, FakeLedger, make_tree, png, read_tree
from pigeonholed import claiming
from pigeonholed.channel import Closed
from pigeonholed.claiming import Claimer, Feed
from pigeonholed.disk import may_rename_out_of
from pigeonholed.images import Arrival, ImageFile
from pigeonholed.metrics import Metrics
from pigeonholed.output import Output
from pigeonholed.patience import Patience
from pigeonholed.progress import Task
from pigeonholed.watching import Rules, Watch


@dataclass
class _Engine:
    """Takes what is submitted."""

    taken: list[Arrival] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    closed: bool = False

    def submit(self, arrivals: Sequence[Arrival]) -> None:
        if self.closed:
            raise Closed
        self.taken.extend(arrivals)
        self.groups.append(len(arrivals))

    def handled(self, timeout_s: float | None) -> None:
        raise AssertionError("not for the claimer")

    def close(self) -> None:
        raise AssertionError("not for the claimer")

    def abort(self) -> None:
        raise AssertionError("not for the claimer")


class _AllNames:
    def ignores(self, relative_path: str) -> bool:
        return False

    def prunes(self, folder_name: str) -> bool:
        return False


@dataclass
class Desk:
    """A claimer over some inboxes, with a ledger that remembers."""

    tmp_path: Path
    output: Output
    clock: FakeClock
    patience: Patience
    ledger: FakeLedger = field(default_factory=FakeLedger)
    engine: _Engine = field(default_factory=_Engine)
    metrics: Metrics = field(default_factory=Metrics)

    def inbox(self, name: str, tree: dict[str, Any]) -> Feed:
        root = make_tree(self.tmp_path / name, tree)
        rules = Rules(name, str(root), 0.0, 60.0, 30.0, True)
        return Feed(Watch(rules, _AllNames(), self.output.now_ns), self.output)

    def claimer(self, *feeds: Feed, limit: int = 64, task: Task | None = None) -> Claimer:
        return Claimer(
            feeds, self.ledger, self.engine, self.patience, self.metrics, limit=limit, clock=self.clock, task=task  # type: ignore[arg-type]
        )  # fmt: skip


@pytest.fixture
def desk(tmp_path: Path, output: Output, clock: FakeClock, patience: Patience) -> Desk:
    return Desk(tmp_path, output, clock, patience)


def test_claimed_files_are_recorded_before_they_leave_the_inbox(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = desk.inbox("camera", {"a.png": png(), "s": {"b.png": png(mark=1)}})
    original = os.rename

    def rename(source: str, target: str, **folders: Any) -> None:
        desk.ledger.steps.append(("rename", os.path.basename(source)))
        original(source, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    assert desk.claimer(feed).turn()
    (claimed,) = desk.ledger.named("claim")
    assert sorted(claimed) == ["a.png", "s/b.png"]
    assert [step for step, _ in desk.ledger.steps] == ["claim", "rename", "rename"]
    assert read_tree(feed.watch.rules.root) == {"s": {}}


def test_each_file_waits_under_its_own_key_in_one_folder(desk: Desk) -> None:
    feed = desk.inbox("camera", {"a.png": b"A", "b.png": b"B"})
    desk.claimer(feed).turn()
    arrivals = desk.engine.taken
    assert len({arrival.key for arrival in arrivals}) == 2
    assert len({arrival.token for arrival in arrivals}) == 1
    assert {arrival.file.path: Path(desk.output.work_path(arrival)).read_bytes() for arrival in arrivals} == {
        "a.png": b"A",
        "b.png": b"B",
    }
    assert sorted(arrival.id for arrival in arrivals) == [1, 2]
    assert all(len(bytes.fromhex(arrival.key)) == 16 for arrival in arrivals)


def test_empty_inbox_makes_no_folder_and_no_row(desk: Desk) -> None:
    assert not desk.claimer(desk.inbox("camera", {})).turn()
    assert desk.ledger.steps == []
    assert desk.output.batch_folders() == []


def test_flooded_inbox_does_not_starve_another(desk: Desk) -> None:
    flooded = desk.inbox("flooded", {f"{number}.png": b"" for number in range(20)})
    quiet = desk.inbox("quiet", {"a.png": b""})
    desk.claimer(flooded, quiet, limit=4).turn()
    assert [arrival.file.inbox for arrival in desk.engine.taken].count("quiet") == 1
    assert desk.engine.groups == [4, 1]


def test_all_of_a_backlog_is_claimed_once_in_batches(desk: Desk) -> None:
    feed = desk.inbox("camera", {f"{number}.png": b"" for number in range(50)})
    claimer = desk.claimer(feed, limit=7)
    while claimer.turn():
        pass
    assert sorted(arrival.file.path for arrival in desk.engine.taken) == sorted(f"{n}.png" for n in range(50))
    assert [arrival.id for arrival in desk.engine.taken] == list(range(1, 51))
    assert max(desk.engine.groups) == 7
    assert claimer.claimed == 50


def test_file_that_vanishes_before_the_rename_ends_its_row_and_makes_no_noise(desk: Desk) -> None:
    feed = desk.inbox("camera", {"a.png": b""})
    gone = ImageFile("camera", "gone.png", 0, 0)
    here = ImageFile("camera", "a.png", 0, 0)
    claimer = desk.claimer(feed)
    assert [arrival.file for arrival in claimer.claim(feed, [gone, here])] == [here]
    assert desk.ledger.named("vanished") == [[1]]
    assert claimer.claim(feed, [gone]) == []
    assert len(desk.output.batch_folders()) == 1  # the folder of the claim that came to nothing is gone


def test_rename_that_happened_though_an_error_was_reported_is_believed_by_looking(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network file system may lose the answer; the repetition then finds no source."""
    feed = desk.inbox("camera", {"a.png": b"A"})
    original = os.rename
    answers = [errno.ESTALE]

    def rename(source: str, target: str) -> None:
        original(source, target)
        if answers:
            raise OSError(answers.pop(), "lost answer")

    monkeypatch.setattr(os, "rename", rename)
    desk.claimer(feed).turn()
    assert [arrival.file.path for arrival in desk.engine.taken] == ["a.png"]
    assert desk.ledger.named("vanished") == []


def test_full_disk_is_waited_for_and_no_file_is_blamed(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = desk.inbox("camera", {"a.png": b"A"})
    original, faults = os.mkdir, [errno.ENOSPC, errno.EDQUOT]

    def mkdir(path: str, mode: int = 0o777) -> None:
        if faults:
            raise OSError(faults.pop(), "full")
        original(path, mode)

    monkeypatch.setattr(os, "mkdir", mkdir)
    assert desk.claimer(feed).turn()
    assert [arrival.file.path for arrival in desk.engine.taken] == ["a.png"]


def test_file_that_cannot_be_taken_blocks_its_folder_for_a_while_only(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    feed = desk.inbox("camera", {"stuck": {"a.png": b"A"}, "b.png": b"B"})
    claimer = desk.claimer(feed)
    original = os.rename

    def rename(source: str, target: str, **folders: Any) -> None:
        if source == "a.png":
            raise OSError(errno.EACCES, "Permission denied")
        original(source, target, **folders)

    monkeypatch.setattr(os, "rename", rename)
    claimer.turn()
    assert [arrival.file.path for arrival in desk.engine.taken] == ["b.png"]
    assert len(desk.ledger.named("vanished")) == 1
    desk.clock.advance(31.0)
    assert not claimer.turn()
    assert len(desk.ledger.named("claim")) == 1  # no row for what cannot be taken
    assert claimer.blocked() == [str(desk.tmp_path / "camera/stuck")]
    monkeypatch.undo()
    desk.clock.advance(31.0)
    claimer.turn()
    assert [arrival.file.path for arrival in desk.engine.taken] == ["b.png", "stuck/a.png"]
    assert claimer.blocked() == []


def test_folder_that_allows_no_rename_costs_no_row(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    feed = desk.inbox("camera", {"a.png": b"A"})
    monkeypatch.setattr(claiming, "may_rename_out_of", lambda _folder: False)
    assert not desk.claimer(feed).turn()
    assert desk.ledger.steps == []


def test_each_batch_of_copies_is_a_step(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """An hour of large files on a slow disk, none of which can be taken, is no standstill."""
    feed = desk.inbox("camera", {f"{number}.png": png(mark=number) for number in range(3)})
    monkeypatch.setattr(feed.custody, "copies", True)
    monkeypatch.setattr(claiming, "_COPIED_AT_ONCE_BYTES", 1)
    task = Task("taking files in", 10.0, clock=desk.clock)
    claimer = desk.claimer(feed, task=task)
    claimed: list[ImageFile] = []

    def claim(_feed: Feed, files: Sequence[ImageFile]) -> list[Arrival]:
        claimed.extend(files)
        desk.clock.advance(9.0)
        assert task.stuck() is None
        return []

    monkeypatch.setattr(claimer, "claim", claim)
    assert claimer.turn()
    assert len(claimed) == 3


def test_engine_that_is_torn_down_ends_the_claimer(desk: Desk) -> None:
    desk.engine.closed = True
    with pytest.raises(Closed):
        desk.claimer(desk.inbox("camera", {"a.png": b""})).turn()


def test_it_claims_until_it_is_told_to_stop(desk: Desk) -> None:
    feed = desk.inbox("camera", {f"{number}.png": b"" for number in range(9)})
    claimer = desk.claimer(feed, limit=2)
    stop = threading.Event()
    original = desk.engine.submit

    def submit(arrivals: Sequence[Arrival]) -> None:
        original(arrivals)
        if len(desk.engine.taken) >= 4:
            stop.set()

    desk.engine.submit = submit  # type: ignore[method-assign]
    claimer.run(stop)
    assert len(desk.engine.taken) == 4


def test_wake_ends_the_sleep_of_an_idle_claimer(desk: Desk) -> None:
    claimer = desk.claimer(desk.inbox("camera", {}))
    stop = threading.Event()
    claimer._LONGEST_SLEEP_S = 60.0
    thread = threading.Thread(target=claimer.run, args=(stop,), daemon=True)
    thread.start()
    thread.join(0.05)
    assert thread.is_alive()
    stop.set()
    claimer.wake()
    thread.join(5)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    ("mode", "owner", "user", "may"),
    [(0o40755, 1000, 1000, True), (0o41777, 1000, 1000, True), (0o41777, 0, 1000, False), (0o41777, 1000, 0, True)],
)
def test_sticky_folder_of_somebody_else_allows_no_rename(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mode: int, owner: int, user: int, may: bool
) -> None:
    status = os.stat_result((mode, 1, 1, 1, owner, owner, 0, 0, 0, 0))
    monkeypatch.setattr(os, "geteuid", lambda: user)
    monkeypatch.setattr(os, "stat", lambda _path: status)
    monkeypatch.setattr(os, "access", lambda _path, _mode: True)
    assert may_rename_out_of(str(tmp_path)) is may


def test_folder_that_is_gone_allows_no_rename(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert not may_rename_out_of(str(tmp_path / "gone"))


def test_rename_that_happened_though_it_was_refused_is_believed_by_looking(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else its row would end, and the file would wait in the work folder without one."""
    feed = desk.inbox("camera", {"a.png": b"A"})
    original = os.rename

    def rename(source: str, target: str) -> None:
        original(source, target)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "rename", rename)
    desk.claimer(feed).turn()
    assert [arrival.file.path for arrival in desk.engine.taken] == ["a.png"]
    assert feed.blocked == {}


def test_renamed_file_whose_name_is_dropped_again_is_a_new_one(desk: Desk) -> None:
    feed = desk.inbox("camera", {"a.png": b"A"})
    claimer = desk.claimer(feed)
    for _ in range(2):
        claimer.turn()
        assert not feed.custody.knows("a.png")
        make_tree(desk.tmp_path / "camera", {"a.png": b"A"})
        desk.clock.advance(31.0)
    assert len(desk.engine.taken) == 2


@pytest.mark.parametrize("during", ["turn", "look"])
def test_told_to_stop_it_sleeps_no_more(desk: Desk, during: str) -> None:
    feed = desk.inbox("camera", {})
    claimer = desk.claimer(feed)
    claimer._LONGEST_SLEEP_S = 3600.0
    stop = threading.Event()
    if during == "turn":
        claimer.turn = lambda: bool(stop.set())  # type: ignore[method-assign]
    else:
        feed.watch.next_look_s = lambda: stop.set() or 1e9  # type: ignore[method-assign,func-returns-value]
    claimer.run(stop)
    assert stop.is_set()
