"""One inbox, watched: each test looks when it likes and never sleeps."""

from __future__ import annotations

import errno
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeClock, chain_of_folders, make_tree, png
from pigeonholed import peeking, watching
from pigeonholed.hints import Hints
from pigeonholed.ignoring import NameFilter
from pigeonholed.metrics import Ineligible
from pigeonholed.settling import Window
from pigeonholed.watching import Rules, Watch

WHOLE = png()
CUT = png()[:-20]


@dataclass
class Yard:
    """An inbox with a watch on it; the file system's time runs with the fake clock."""

    root: Path
    clock: FakeClock
    rules: dict[str, Any] = field(default_factory=dict)
    stopwatch: Callable[[], float] = lambda: 0.0
    held: set[str] = field(default_factory=set)
    ages_s: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        os.makedirs(self.root, exist_ok=True)
        wanted = {"settle_s": 5.0, "incomplete_s": 60.0, "rescan_s": 30.0, "recursive": True} | self.rules
        # A mark of the distant past: no file is ever proven old by it, unless a test asks for marks.
        self.fs_ns = 0
        rules = Rules("camera", str(self.root), **wanted)
        self.watch = Watch(
            rules,
            NameFilter(exclude=["*.txt"]),
            lambda: self.fs_ns,
            stopwatch=self.stopwatch,
            passes_over=self._is_held,
            on_complete=self.ages_s.append,
        )

    def _is_held(self, path: str, _size: int, _mtime_ns: int) -> bool:
        return path in self.held

    def take(self, seconds: float = 0.0, limit: int = 64) -> list[str]:
        """What is complete after some more seconds; time for the file system passes as well."""
        self.fs_ns += int(seconds * 1e9)
        files = self.watch.take(self.clock.advance(seconds), limit)
        assert all(file.inbox == "camera" for file in files)
        return sorted(file.path for file in files)

    def write(self, path: str, content: bytes = WHOLE) -> None:
        make_tree(self.root, {path: content})


@pytest.fixture
def yard(tmp_path: Path, clock: FakeClock) -> Yard:
    return Yard(tmp_path / "inbox", clock)


def _yard(tmp_path: Path, clock: FakeClock, **rules: Any) -> Yard:
    return Yard(tmp_path / "inbox", clock, rules)


class TestSettling:
    def test_file_is_reported_when_it_was_quiet_long_enough_and_not_before(self, yard: Yard) -> None:
        yard.write("a.png")
        assert yard.take() == []
        assert yard.take(4.9) == []
        assert yard.take(0.1) == ["a.png"]

    def test_file_growing_during_check_is_not_reported(self, yard: Yard) -> None:
        yard.write("a.png", WHOLE[:30])
        for end in range(31, 40):
            yard.watch.hints.add("a.png")
            assert yard.take(4.0) == []
            yard.write("a.png", WHOLE[:end])
        yard.write("a.png", WHOLE)
        yard.watch.hints.add("a.png")
        assert yard.take(4.0) == []
        assert yard.take(5.0) == ["a.png"]

    def test_preallocated_file_that_is_filled_later_is_not_reported(self, yard: Yard) -> None:
        yard.write("a.bin", bytes(100))
        yard.take()
        with open(yard.root / "a.bin", "r+b") as file:
            file.write(b"1")
        os.utime(yard.root / "a.bin", ns=(1, 1))
        assert yard.take(5.0) == []
        assert yard.take(5.0) == ["a.bin"]

    def test_quiet_time_of_zero_reports_at_once(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.write("a.png")
        assert yard.take() == ["a.png"]

    def test_old_modification_time_neither_hides_nor_hastens_a_file(self, yard: Yard) -> None:
        yard.write("a.png")
        os.utime(yard.root / "a.png", (978307200, 978307200))
        assert yard.take() == []
        assert yard.take(5.0) == ["a.png"]

    def test_backlog_is_settled_by_marks_without_memory_for_each_file(self, yard: Yard) -> None:
        yard.watch.window = Window(capacity=1)
        for number in range(20):
            yard.write(f"{number}.png")
        yard.fs_ns = os.stat(yard.root / "19.png").st_ctime_ns + 1
        assert yard.take() == []
        assert len(yard.watch.window) == 1
        assert len(yard.take(5.0)) == 20

    def test_complete_files_are_told_with_the_time_since_they_changed(self, yard: Yard) -> None:
        yard.write("a.png")
        yard.fs_ns = os.stat(yard.root / "a.png").st_ctime_ns
        assert yard.take(1.0) == []
        assert yard.take(6.0) == ["a.png"]
        assert yard.ages_s == [pytest.approx(7.0)]

    def test_without_the_file_systems_clock_no_such_time_is_told(self, yard: Yard) -> None:
        yard.write("a.png")
        assert yard.take() == []
        assert yard.take(5.0) == ["a.png"]
        assert yard.ages_s == []

    def test_file_that_is_taken_is_reported_as_it_was_seen(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.write("a.png")
        status = os.stat(yard.root / "a.png")
        (file,) = yard.watch.take(clock(), 1)
        assert (file.path, file.size, file.mtime_ns) == ("a.png", status.st_size, status.st_mtime_ns)


class TestIncomplete:
    def test_picture_whose_end_is_missing_is_waited_for_and_then_reported(self, yard: Yard) -> None:
        yard.write("a.png", CUT)
        yard.take()
        assert yard.take(5.0) == []
        assert yard.watch.window.incomplete() == ["a.png"]
        assert yard.take(54.9) == []
        assert yard.take(0.1) == ["a.png"]

    def test_picture_whose_end_comes_is_reported_without_the_long_wait(self, yard: Yard) -> None:
        yard.write("a.png", CUT)
        yard.take()
        yard.take(10.0)
        yard.write("a.png", WHOLE)
        yard.watch.hints.add("a.png")
        assert yard.take(1.0) == []
        assert yard.take(5.0) == ["a.png"]

    def test_file_that_somebody_has_open_for_writing_is_waited_for(self, yard: Yard) -> None:
        yard.write("a.png")
        with open(yard.root / "a.png", "r+b"):
            yard.take()
            assert yard.take(5.0) == []
            assert yard.take(1.0) == []
        assert yard.take(0.5) == ["a.png"]

    def test_file_that_is_kept_open_for_ever_is_reported_in_the_end(self, yard: Yard) -> None:
        yard.write("a.png")
        with open(yard.root / "a.png", "r+b"):
            yard.take()
            yard.take(5.0)
            assert yard.take(54.9) == []
            assert yard.take(0.5) == ["a.png"]

    def test_writer_that_has_long_been_idle_is_not_waited_for(self, yard: Yard) -> None:
        yard.write("a.png")
        with open(yard.root / "a.png", "r+b"):
            yard.fs_ns = os.stat(yard.root / "a.png").st_ctime_ns + 20 * 10**9
            yard.take()
            assert yard.take(5.0) == ["a.png"]

    def test_empty_file_is_reported_after_the_quiet_time(self, yard: Yard) -> None:
        yard.write("a.png", b"")
        yard.take()
        assert yard.take(5.0) == ["a.png"]

    def test_old_incomplete_picture_of_a_backlog_does_not_wait_anew(self, yard: Yard) -> None:
        yard.write("a.png", CUT)
        yard.fs_ns = os.stat(yard.root / "a.png").st_ctime_ns + 100 * 10**9
        assert yard.take() == []
        assert yard.take(5.0) == ["a.png"]


class TestScanning:
    def test_everything_below_is_found_and_nothing_twice(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"a.png": WHOLE, "b": {"a.png": WHOLE, "c": {"d.png": WHOLE}, "empty": {}}})
        yard.watch.hints.add("a.png")
        assert yard.take() == ["a.png", "b/a.png", "b/c/d.png"]

    def test_without_recursion_only_the_top_is_looked_at(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0, recursive=False)
        make_tree(yard.root, {"a.png": WHOLE, "b": {"a.png": WHOLE}})
        yard.watch.hints.add("b/a.png")
        assert yard.take() == ["a.png"]

    def test_large_inbox_comes_in_parts_and_whole(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        for number in range(100):
            yard.write(f"{number % 7}/{number}.png")
        found: list[str] = []
        while part := yard.take(limit=16):
            assert len(part) <= 16
            found += part
            for path in part:
                (yard.root / path).unlink()
        assert sorted(found) == sorted(f"{number % 7}/{number}.png" for number in range(100))

    def test_nothing_to_do_is_put_off_to_the_next_scan(self, yard: Yard) -> None:
        yard.take()
        assert yard.watch.next_look_s() == yard.clock() + 30.0

    def test_settling_file_sets_the_alarm(self, yard: Yard) -> None:
        yard.write("a.png")
        yard.take()
        assert yard.watch.next_look_s() == yard.clock() + 5.0

    def test_scan_that_was_expensive_is_followed_by_a_longer_pause(self, tmp_path: Path, clock: FakeClock) -> None:
        ticks = iter(range(1000))
        yard = Yard(tmp_path / "inbox", clock, stopwatch=lambda: float(next(ticks)) * 10)
        yard.take()
        yard.take(30.0)  # the cost of the first turn is only known when the second begins
        assert yard.watch.next_look_s() >= clock() + 200.0

    def test_file_without_a_hint_is_found_by_the_next_scan(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.take()
        yard.write("a.png")
        assert yard.take(29.0) == []
        assert yard.take(1.0) == ["a.png"]

    def test_full_window_is_scanned_again_soon(self, yard: Yard) -> None:
        yard.watch.window = Window(capacity=1)
        yard.write("a.png")
        yard.write("b.png")
        yard.take()
        assert yard.watch.next_look_s() <= yard.clock() + 5.0

    def test_missing_inbox_is_noticed_and_its_return_too(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.root.rmdir()
        assert yard.take() == []
        assert not yard.watch.available
        yard.write("a.png")
        assert yard.take(30.0) == ["a.png"]
        assert yard.watch.available

    def test_folder_that_vanishes_during_the_scan_harms_nothing(
        self, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"a": {"x.png": WHOLE}, "b.png": WHOLE})
        original = os.scandir

        def scandir(path: str) -> Any:
            if path.endswith("/a"):
                raise FileNotFoundError(path)
            return original(path)

        monkeypatch.setattr(os, "scandir", scandir)
        assert yard.take() == ["b.png"]
        assert yard.watch.available

    def test_scan_asked_for_during_a_scan_follows_it(self, tmp_path: Path, clock: FakeClock) -> None:
        """A new folder is announced while a long scan has already passed its place."""
        yard = _yard(tmp_path, clock, settle_s=0.0)
        for number in range(4):
            yard.write(f"{number}.png")
        assert len(yard.take(limit=2)) == 2
        yard.watch.hints.overflow()
        while yard.take(limit=2):
            pass
        scans = yard.watch.scans
        assert yard.watch.next_look_s() <= clock()
        yard.take()
        assert yard.watch.scans == scans + 1
        assert yard.watch.next_look_s() == clock() + 30.0


class TestHints:
    def test_files_that_no_event_announced_are_counted_but_for_the_backlog(self, yard: Yard) -> None:
        yard.write("backlog.png")
        yard.take()
        for path in yard.take(5.0):
            (yard.root / path).unlink()
        yard.write("announced.png")
        yard.watch.hints.add("announced.png")
        yard.take(1.0)
        assert yard.watch.recovered == 0
        yard.write("missed.png")
        yard.take(24.0)
        assert set(yard.take(5.0)) >= {"missed.png"}
        assert yard.watch.recovered == 1

    def test_hinted_file_is_looked_at_without_a_scan(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.take()
        yard.write("a.png")
        yard.write("b.png")
        yard.watch.hints.add("a.png")
        assert yard.take(1.0) == ["a.png"]

    def test_overflow_causes_a_scan(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.take()
        yard.write("a/b/c.png")
        yard.watch.hints.overflow()
        assert yard.take(1.0) == ["a/b/c.png"]

    def test_hints_beyond_the_bound_are_counted_as_lost(self) -> None:
        hints = Hints()
        for number in range(Hints._CAPACITY + 1):
            hints.add(str(number))
        paths, lost = hints.take()
        assert len(paths) == Hints._CAPACITY
        assert lost
        assert hints.take() == ([], False)

    def test_wrong_hint_has_no_effect(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"d": {}, ".hidden": {"a.png": WHOLE}})
        yard.take()
        for path in ("gone.png", "d", ".hidden/a.png", "d/gone.png"):
            yard.watch.hints.add(path)
        assert yard.take(1.0) == []

    def test_file_that_is_hinted_again_and_again_is_remembered_once(self, yard: Yard) -> None:
        """A camera that overwrites one file for weeks: neither memory nor work may grow with its events."""
        for number in range(200):
            yard.write("latest.png", png(mark=number))
            yard.watch.hints.add("latest.png")
            assert yard.take(1.0) == []
        assert len(yard.watch._due) <= 2
        assert yard.take(5.0) == ["latest.png"]


class TestLeftAlone:
    def test_excluded_and_irregular_files_are_counted_and_never_reported(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"a.txt": b"", ".hidden": b"", "b.part": b"", "c.png": WHOLE})
        os.mkfifo(yard.root / "pipe.png")
        (yard.root / "link.png").symlink_to(yard.root / "c.png")
        (yard.root / "folder").symlink_to(tmp_path)
        assert yard.take() == ["c.png"]
        assert yard.watch.ineligible[Ineligible.EXCLUDED] == 3
        assert yard.watch.ineligible[Ineligible.NOT_REGULAR] == 3

    def test_counts_say_what_is_there_now(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        yard.write(".hidden", b"")
        yard.take()
        assert yard.watch.ineligible[Ineligible.EXCLUDED] == 1
        yard.take(30.0)
        assert yard.watch.ineligible[Ineligible.EXCLUDED] == 1
        (yard.root / ".hidden").unlink()
        yard.take(30.0)
        assert yard.watch.ineligible[Ineligible.EXCLUDED] == 0

    def test_sockets_stay_and_folders_with_the_names_of_pictures_are_folders(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"folder.png": {"a.png": WHOLE}})
        os.mknod(yard.root / "socket.png", stat.S_IFSOCK | 0o600)
        assert yard.take() == ["folder.png/a.png"]
        assert yard.watch.ineligible[Ineligible.NOT_REGULAR] == 1

    def test_folder_too_deep_for_the_system_is_counted_and_what_is_above_it_is_found(
        self, tmp_path: Path, clock: FakeClock
    ) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"a.png": WHOLE, "n/a.png": WHOLE})
        with chain_of_folders(yard.root / "n"):
            assert yard.take() == ["a.png", "n/a.png"]
            assert yard.watch.ineligible[Ineligible.TOO_DEEP] == 1
        yard.take(30.0)
        assert yard.watch.ineligible[Ineligible.TOO_DEEP] == 0

    def test_folder_that_cannot_be_listed_is_counted_as_one_file(
        self, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        make_tree(yard.root, {"a.png": WHOLE, "theirs/b.png": WHOLE})
        scandir = os.scandir

        def refuse(path: str) -> object:
            if path.endswith("theirs"):
                raise PermissionError(errno.EACCES, "Permission denied", path)
            return scandir(path)

        monkeypatch.setattr(os, "scandir", refuse)
        assert yard.take() == ["a.png"]
        assert yard.watch.ineligible[Ineligible.PERMISSION] == 1

    @pytest.mark.parametrize("code", [errno.EACCES, errno.EPERM])
    def test_unreadable_file_stays_and_is_counted(
        self, tmp_path: Path, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, code: int
    ) -> None:
        yard = _yard(tmp_path, clock)
        yard.write("a.png")
        monkeypatch.setattr(watching, "peek", _refusing(code))
        yard.take()
        assert yard.take(5.0) == []
        assert yard.watch.ineligible[Ineligible.PERMISSION] == 1
        assert len(yard.watch.window) == 0  # nobody waits for it
        monkeypatch.undo()
        yard.take(30.0)
        assert yard.take(5.0) == ["a.png"]

    def test_disk_that_fails_to_read_is_left_to_the_decoder(self, yard: Yard, monkeypatch: pytest.MonkeyPatch) -> None:
        yard.write("a.png")
        yard.take()
        monkeypatch.setattr(watching, "peek", _refusing(errno.EIO))
        assert yard.take(5.0) == ["a.png"]

    @pytest.mark.parametrize("instead", ["nothing", "pipe", "link", "folder"])
    def test_file_that_goes_away_while_it_settles_is_forgotten(self, yard: Yard, instead: str) -> None:
        yard.write("a.png")
        yard.take()
        path = yard.root / "a.png"
        path.unlink()
        if instead == "pipe":
            os.mkfifo(path)
        elif instead == "link":
            path.symlink_to("/etc/hostname")
        elif instead == "folder":
            path.mkdir()
        assert yard.take(5.0) == []
        assert len(yard.watch.window) == 0

    def test_file_that_goes_away_before_its_end_is_read_is_forgotten(
        self, yard: Yard, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        yard.write("a.png")
        yard.take()
        monkeypatch.setattr(watching, "peek", _refusing(errno.ENOENT))
        assert yard.take(5.0) == []
        assert len(yard.watch.window) == 0

    def test_held_file_is_passed_over_until_it_is_let_go(self, yard: Yard) -> None:
        yard.write("a.png")
        yard.take()
        yard.held.add("a.png")
        assert yard.take(5.0) == []
        assert len(yard.watch.window) == 0  # nobody waits for it
        yard.held.clear()
        yard.take(30.0)
        assert yard.take(5.0) == ["a.png"]

    def test_name_that_is_no_utf8_is_reported_as_it_is(self, tmp_path: Path, clock: FakeClock) -> None:
        yard = _yard(tmp_path, clock, settle_s=0.0)
        with open(os.path.join(os.fsencode(yard.root), b"caf\xe9.png"), "wb") as file:
            file.write(WHOLE)
        assert [os.fsencode(path) for path in yard.take()] == [b"caf\xe9.png"]


def _refusing(code: int) -> Callable[..., tuple[bool, bool]]:
    def peek(path: str, *_arguments: object, **_named: object) -> tuple[bool, bool]:
        raise OSError(code, os.strerror(code), path)

    return peek


def test_peek_never_blocks_on_a_pipe_and_never_follows_a_link(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        peeking.peek(str(tmp_path / "link"), 10, ask_for_writers=True)
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="seek"):
        peeking.peek(str(tmp_path / "pipe"), 10, ask_for_writers=True)


@pytest.mark.parametrize("size", [20, 64, 65, 200, 4096, 4097, 9000])
def test_peek_sees_whether_the_end_of_a_picture_is_there(tmp_path: Path, size: int) -> None:
    content = b"\x89PNG\r\n\x1a\n".ljust(size - 12, b"x") + b"\0\0\0\0IEND\xaeB`\x82"
    for there in (content, content[:-8]):
        (tmp_path / "a").write_bytes(there)
        seen = peeking.peek(str(tmp_path / "a"), len(there), ask_for_writers=True)
        assert seen == (there != content, False)


@pytest.mark.parametrize("size", [100, 9000])
def test_peek_sees_whether_the_end_of_a_heif_picture_is_there(tmp_path: Path, size: int) -> None:
    """Its first bytes do not say how long it is: one that is still being written is waited for all the same."""
    mdat = struct.pack(">I", size) + b"mdat" + bytes(size - 8)
    content = b"\0\0\0\x14ftypheic\0\0\0\0heic" + b"\0\0\0\x0cmeta1234" + mdat
    for end in (len(content), len(content) - 1, 41, 32, 20):
        (tmp_path / "a").write_bytes(content[:end])
        missing, _written_to = peeking.peek(str(tmp_path / "a"), end, ask_for_writers=False)
        assert missing is (end not in (len(content), 32))


def test_peek_says_who_writes_only_when_asked(tmp_path: Path) -> None:
    with open(tmp_path / "a", "wb"):
        assert peeking.peek(str(tmp_path / "a"), 0, ask_for_writers=True)[1]
        assert not peeking.peek(str(tmp_path / "a"), 0, ask_for_writers=False)[1]


def test_file_that_no_event_could_announce_does_not_count_as_recovered(tmp_path: Path, clock: FakeClock) -> None:
    """A folder of the inbox is on another machine: its files are found by scans, as they are to be."""
    yard = _yard(tmp_path, clock, settle_s=0.0)
    yard.watch.silent = ("far/",)
    assert yard.take() == []
    yard.write("far/a.png")
    assert yard.take(30.0) == ["far/a.png"]
    assert yard.watch.recovered == 0
    yard.write("near.png")
    assert "near.png" in yard.take(30.0)
    assert yard.watch.recovered == 1
