"""File events as hints. These tests wait for the kernel, never for a fixed time."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers import make_tree
from kernel import shortened_event_queue
from pigeonholed import events as events_module
from pigeonholed.events import Events, gives_events
from pigeonholed.watching import Hints

_LONG_S = 10.0


@dataclass
class Watched:
    """An inbox with events on it."""

    root: Path
    hints: Hints = field(default_factory=Hints)
    woken: threading.Event = field(default_factory=threading.Event)
    paths: set[str] = field(default_factory=set)
    lost: bool = False

    def see(self) -> None:
        """Wait for the next wake, and gather what it came with."""
        assert self.woken.wait(_LONG_S)
        self.woken.clear()
        paths, lost = self.hints.take()
        self.paths |= set(paths)
        self.lost = self.lost or lost

    def until(self, path: str) -> None:
        while path not in self.paths:
            self.see()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    watched = Watched(make_tree(tmp_path / "inbox", {"sub": {}}))
    events = Events(watched.woken.set)
    assert events.watch(str(watched.root), watched.hints, recursive=True)
    yield watched
    events.close()


def test_written_file_is_hinted_by_its_path_in_the_inbox(watched: Watched) -> None:
    make_tree(watched.root, {"sub/a.png": b"1"})
    watched.until("sub/a.png")


def test_file_that_is_moved_in_is_hinted(watched: Watched, tmp_path: Path) -> None:
    make_tree(tmp_path, {"elsewhere": b"1"})
    os.rename(tmp_path / "elsewhere", watched.root / "a.png")
    watched.until("a.png")


def test_upload_that_is_renamed_in_place_is_hinted_under_its_new_name(watched: Watched) -> None:
    make_tree(watched.root, {".a.png.part": b"1"})
    os.rename(watched.root / ".a.png.part", watched.root / "a.png")
    watched.until("a.png")


def test_tree_that_is_moved_in_causes_a_scan(watched: Watched, tmp_path: Path) -> None:
    make_tree(tmp_path, {"album": {"a.png": b"1"}})
    os.rename(tmp_path / "album", watched.root / "album")
    while not watched.lost:
        watched.see()


def test_name_that_is_no_utf8_is_hinted_as_it_is(watched: Watched) -> None:
    with open(os.path.join(os.fsencode(watched.root), b"caf\xe9.png"), "wb"):
        pass
    watched.until(os.fsdecode(b"caf\xe9.png"))


def test_claim_out_of_the_inbox_holds_nothing_back(watched: Watched, tmp_path: Path) -> None:
    """watchdog would wait half a second for the other half of each move that leaves."""
    make_tree(watched.root, {"a.png": b"1"})
    watched.until("a.png")
    os.rename(watched.root / "a.png", tmp_path / "claimed")
    make_tree(watched.root, {"b.png": b"1"})
    assert watched.woken.wait(0.3)
    watched.until("b.png")
    assert not watched.lost


def test_overflow_of_the_kernels_queue_causes_a_scan_and_is_counted(tmp_path: Path) -> None:
    """The real queue: more happens than it can hold, and then its reader is held up while a folder comes."""
    watched = Watched(make_tree(tmp_path / "inbox", {}))
    overflowed, go_on = threading.Event(), threading.Event()

    def hold() -> None:
        overflowed.set()
        go_on.wait(_LONG_S)

    with shortened_event_queue(16):
        events = Events(watched.woken.set, hold)
    events.watch(str(watched.root), watched.hints, recursive=True)
    deadline_s = time.monotonic() + _LONG_S
    while not overflowed.is_set():
        assert time.monotonic() < deadline_s
        make_tree(watched.root, {f"{number}.png": b"1" for number in range(200)})
    make_tree(watched.root, {f"{number}.png": b"1" for number in range(200)})
    make_tree(watched.root, {"new": {}})
    go_on.set()
    while not watched.lost:
        watched.see()
    events.tend(0.0)  # not calm yet
    events.tend(60.0)
    events.tend(120.0)
    make_tree(watched.root, {"new/a.png": b"1"})  # a folder whose creation was not told
    watched.until("new/a.png")
    events.close()


def test_inbox_that_cannot_be_watched_is_left_to_rescans(tmp_path: Path) -> None:
    events = Events(lambda: None)
    assert not events.watch(str(tmp_path / "missing"), Hints(), recursive=True)
    assert events.alive()
    events.close()


def test_end_of_the_threads_is_noticed(tmp_path: Path) -> None:
    events = Events(lambda: None)
    events.watch(str(tmp_path), Hints(), recursive=True)
    assert events.alive()
    events.close()
    assert not events.alive()


@pytest.mark.parametrize(("mounted", "gives"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False), ("", True)])
def test_network_file_systems_are_known_to_tell_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounted: str, gives: bool
) -> None:
    monkeypatch.setattr(events_module, "_file_system_of", lambda _path: mounted)
    assert gives_events(str(tmp_path)) is gives


def test_type_of_the_mount_is_found() -> None:
    assert events_module._file_system_of("/proc") == "proc"
