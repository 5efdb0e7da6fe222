"""`run --once`: all that was there at start, and then an end. The clock runs while the run waits."""

from __future__ import annotations

import errno
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeClock, make_tree, png
from pigeonholed import watching
from pigeonholed.images import ImageFile
from pigeonholed.onerun import OneRun
from pigeonholed.settling import Window
from pigeonholed.watching import Rules, Watch

WHOLE = png()


class _Names:
    def ignores(self, relative_path: str) -> bool:
        return False

    def prunes(self, folder_name: str) -> bool:
        return False


@dataclass
class _Claimer:
    """Takes files away as the real one does, without ledger and engine."""

    watches: Sequence[Watch]
    clock: FakeClock
    limit: int = 64
    taken: list[ImageFile] = field(default_factory=list)

    def blocked(self) -> list[str]:
        return []

    def turn(self) -> bool:
        files = [file for watch in self.watches for file in watch.take(self.clock(), self.limit)]
        for file in files:
            root = next(watch.rules.root for watch in self.watches if watch.rules.name == file.inbox)
            os.unlink(os.path.join(root, file.path))
        self.taken += files
        return bool(files)


class _Stop(threading.Event):
    """Waiting lets the clock run, and things happen meanwhile."""

    def __init__(self, clock: FakeClock, happens: Callable[[float], None]) -> None:
        super().__init__()
        self._clock = clock
        self._happens = happens

    def wait(self, timeout: float | None = None) -> bool:
        assert self._clock.advance(timeout or 0.0) < 5000.0, "it never ends"
        self._happens(self._clock())
        return self.is_set()


@dataclass
class Desk:
    tmp_path: Path
    clock: FakeClock
    began_s: float = 1000.0

    def watch(self, tree: dict[str, Any], name: str = "camera", *, marked: bool = True, **rules: float) -> Watch:
        root = make_tree(self.tmp_path / name, tree)
        chosen: dict[str, Any] = {"settle_s": 5.0, "incomplete_s": 60.0, "rescan_s": 30.0, "recursive": True} | rules
        # The file system's clock runs with ours from now on: what is there is older than every mark.
        # Unmarked, its clock is of long ago and proves nothing: a file is looked at twice.
        start_ns = max([os.stat(path).st_ctime_ns for path in root.rglob("*")], default=0) + 1 if marked else 0
        return Watch(
            Rules(name, str(root), **chosen), _Names(), lambda: start_ns + int((self.clock() - self.began_s) * 1e9)
        )

    def run(
        self, *watches: Watch, happens: Callable[[float], None] = lambda _now_s: None, limit: int = 64
    ) -> tuple[list[str], list[str], float]:
        """What was taken, what was left, and how long it took."""
        claimer = _Claimer(watches, self.clock, limit)
        run = OneRun(claimer, watches, self.clock)  # type: ignore[arg-type]
        run.run(_Stop(self.clock, happens))
        taken = sorted(f"{file.inbox}/{file.path}" for file in claimer.taken)
        return taken, run.left, self.clock() - self.began_s


@pytest.fixture
def desk(tmp_path: Path, clock: FakeClock) -> Desk:
    return Desk(tmp_path, clock)


def test_all_that_is_there_is_taken_after_the_quiet_time(desk: Desk) -> None:
    taken, left, took_s = desk.run(desk.watch({"a.png": WHOLE, "s": {"b.png": WHOLE}}))
    assert (taken, left) == (["camera/a.png", "camera/s/b.png"], [])
    assert 5.0 <= took_s <= 6.0


def test_empty_inbox_ends_after_the_quiet_time(desk: Desk) -> None:
    taken, left, took_s = desk.run(desk.watch({}))
    assert (taken, left) == ([], [])
    assert took_s <= 6.0


def test_quiet_time_of_zero_takes_no_time(desk: Desk) -> None:
    taken, left, took_s = desk.run(desk.watch({"a.png": WHOLE}, settle_s=0.0))
    assert (taken, left) == (["camera/a.png"], [])
    assert took_s <= 0.5


def test_several_inboxes_are_all_emptied(desk: Desk) -> None:
    first = desk.watch({"a.png": WHOLE}, "one", settle_s=1.0)
    second = desk.watch({"b.png": WHOLE}, "two", settle_s=8.0)
    taken, left, _ = desk.run(first, second)
    assert (taken, left) == (["one/a.png", "two/b.png"], [])


@pytest.mark.parametrize("room", [1, 3, 40, 50])
def test_backlog_larger_than_the_window_is_taken_whole(desk: Desk, room: int) -> None:
    watch = desk.watch({f"{number}.png": WHOLE for number in range(40)})
    watch.window = Window(capacity=room)
    taken, left, took_s = desk.run(watch, limit=4)
    assert (len(taken), left) == (40, [])
    assert took_s <= 7.0  # a large backlog is not slept through


def test_file_that_found_no_room_is_taken_or_named_though_no_mark_proves_it_old(desk: Desk) -> None:
    watch = desk.watch({f"{number}.png": WHOLE for number in range(3)}, marked=False)
    watch.window = Window(capacity=1)
    taken, left, _ = desk.run(watch)
    assert left
    assert len(taken) >= 1
    while left:  # what is named is taken by the next run
        more, left, _ = desk.run(watch)
        taken += more
    assert len(taken) == 3


def test_inbox_that_waits_long_does_not_slow_another(desk: Desk) -> None:
    quick = desk.watch({f"{number}.png": WHOLE for number in range(100)}, "quick", settle_s=1.0)
    slow = desk.watch({"a.png": WHOLE}, "slow", settle_s=30.0)
    emptied_s: list[float] = []

    def happens(now_s: float) -> None:
        if not os.listdir(quick.rules.root):
            emptied_s.append(now_s)

    taken, left, _ = desk.run(quick, slow, happens=happens, limit=2)
    assert (len(taken), left) == (101, [])
    assert emptied_s[0] - desk.began_s <= 3.0


def test_many_settled_files_are_not_slept_between(desk: Desk) -> None:
    watch = desk.watch({f"{number}.png": WHOLE for number in range(200)})
    taken, _, took_s = desk.run(watch, limit=2)
    assert len(taken) == 200
    assert took_s <= 6.0


def test_file_that_still_changes_is_named_and_left(desk: Desk) -> None:
    watch = desk.watch({"a.png": WHOLE, "growing.bin": b"1"}, marked=False)

    def happens(now_s: float) -> None:
        with open(os.path.join(watch.rules.root, "growing.bin"), "ab") as file:
            file.write(b"1")

    taken, left, took_s = desk.run(watch, happens=happens)
    assert (taken, left) == (["camera/a.png"], ["camera/growing.bin"])
    assert took_s <= 12.0


def test_file_that_arrives_later_is_not_waited_for(desk: Desk) -> None:
    watch = desk.watch({"a.png": WHOLE})

    def happens(now_s: float) -> None:
        make_tree(Path(watch.rules.root), {f"late-{now_s}.bin": b"1"})

    taken, left, took_s = desk.run(watch, happens=happens)
    assert "camera/a.png" in taken
    assert left == []
    assert took_s <= 12.0


def test_flood_of_new_files_does_not_keep_it_from_ending(desk: Desk) -> None:
    watch = desk.watch({"a.png": WHOLE}, settle_s=0.0)
    claimer = _Claimer([watch], desk.clock)
    original = claimer.turn

    def turn() -> bool:
        taken = original()
        make_tree(Path(watch.rules.root), {f"{len(claimer.taken)}.png": WHOLE})
        assert len(claimer.taken) < 500, "it never ends"
        return taken

    claimer.turn = turn  # type: ignore[method-assign]
    run = OneRun(claimer, [watch], desk.clock)  # type: ignore[arg-type]
    run.run(_Stop(desk.clock, lambda _now_s: None))
    assert run.left == []


def test_incomplete_picture_is_waited_for_as_long_as_the_settings_say_and_then_taken(desk: Desk) -> None:
    taken, left, took_s = desk.run(desk.watch({"a.png": WHOLE, "cut.png": WHOLE[:-20]}))
    assert (taken, left) == (["camera/a.png", "camera/cut.png"], [])
    assert 59.0 <= took_s <= 66.0


def test_incomplete_picture_is_waited_for_with_a_quiet_time_of_zero_too(desk: Desk) -> None:
    class Running(FakeClock):
        def __call__(self) -> float:
            return self.advance(0.0001)  # asking takes time, too

    desk.clock = Running()
    watch = desk.watch({"a.png": WHOLE, "cut.png": WHOLE[:-20]}, marked=False, settle_s=0.0, incomplete_s=9.0)
    taken, left, took_s = desk.run(watch)
    assert (taken, left) == (["camera/a.png", "camera/cut.png"], [])
    assert 9.0 <= took_s <= 10.0


def test_file_that_its_owner_takes_away_is_not_waited_for(desk: Desk) -> None:
    watch = desk.watch({"a.png": WHOLE, "b.png": WHOLE})

    def happens(now_s: float) -> None:
        Path(watch.rules.root, "b.png").unlink(missing_ok=True)

    taken, left, took_s = desk.run(watch, happens=happens)
    assert (taken, left) == (["camera/a.png"], [])
    assert took_s <= 7.0


@pytest.mark.parametrize("code", [errno.EACCES, errno.ENOENT])
def test_file_that_cannot_be_read_does_not_keep_it_from_ending(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    def peek(path: str, *_arguments: object, **_named: object) -> tuple[bool, bool]:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(watching, "peek", peek)
    taken, left, took_s = desk.run(desk.watch({"secret.png": WHOLE}))
    assert (taken, left) == ([], [])
    assert took_s <= 7.0


def test_told_to_stop_it_ends_and_names_what_is_left(desk: Desk) -> None:
    watch = desk.watch({"a.png": WHOLE})
    stop = _Stop(desk.clock, lambda _now_s: stop.set())
    run = OneRun(_Claimer([watch], desk.clock), [watch], desk.clock)  # type: ignore[arg-type]
    run.run(stop)
    assert run.left == ["camera/a.png"]
