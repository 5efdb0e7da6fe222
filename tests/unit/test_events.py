"""File events as hints. These tests wait for the kernel, never for a fixed time."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from helpers import FakeClock, chain_of_folders, make_tree
from kernel import shortened_event_queue
from pigeonholed import events, filesystems
from pigeonholed.events import Events
from pigeonholed.filesystems import gives_events
from pigeonholed.hints import Hints
from running import until

_LONG_S = 10.0


@dataclass
class Watched:
    """An inbox with events on it."""

    root: Path
    hints: Hints = field(default_factory=Hints)
    woken: threading.Event = field(default_factory=threading.Event)
    paths: set[str] = field(default_factory=set)
    lost: bool = False
    clock: FakeClock = field(default_factory=FakeClock)

    def __post_init__(self) -> None:
        self.events = Events(self.woken.set, clock=self.clock)

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
    assert watched.events.watch(str(watched.root), watched.hints, recursive=True)
    yield watched
    watched.events.close()


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


def test_inbox_that_was_replaced_is_watched_anew_and_scanned(watched: Watched, tmp_path: Path) -> None:
    assert not watched.events.tend()
    os.rename(watched.root, tmp_path / "away")
    watched.clock.advance(60.0)
    assert not watched.events.tend()  # it may come back as it was
    make_tree(watched.root, {})
    watched.clock.advance(60.0)
    assert watched.events.tend()
    assert watched.hints.take() == ([], True)
    make_tree(watched.root, {"a.png": b"1"})
    watched.until("a.png")


def test_inbox_that_was_removed_and_made_again_is_watched_anew(watched: Watched) -> None:
    (watched.root / "sub").rmdir()
    watched.root.rmdir()
    until(lambda: not watched.events.alive(), "the end of its thread")
    assert watched.events.tend()
    assert watched.events.alive()
    assert not watched.events.watches(str(watched.root))
    make_tree(watched.root, {})
    watched.clock.advance(60.0)
    assert watched.events.tend()
    make_tree(watched.root, {"a.png": b"1"})
    watched.until("a.png")


def test_inbox_that_was_missing_at_the_start_is_watched_once_it_is_there(watched: Watched, tmp_path: Path) -> None:
    hints = Hints()
    assert not watched.events.watch(str(tmp_path / "late"), hints, recursive=True)
    make_tree(tmp_path / "late", {})
    watched.clock.advance(60.0)
    assert watched.events.tend()
    make_tree(tmp_path / "late", {"a.png": b"1"})
    until(lambda: "a.png" in hints.take()[0], "a hint")


def test_network_file_system_is_watched_only_where_that_is_asked_for(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(filesystems, "type_of", lambda _path: "nfs4")
    root = str(make_tree(tmp_path / "export", {}))
    assert not watched.events.watch(root, Hints(), recursive=True, even_remote=False)
    assert watched.events.watch(root, Hints(), recursive=True, even_remote=True)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_thread_that_dies_is_replaced_and_every_inbox_scanned(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_handler: object, _event: object) -> None:
        raise RuntimeError("for a test")

    with monkeypatch.context() as patch:
        patch.setattr(events._Handler, "dispatch", fail)
        make_tree(watched.root, {"a.png": b"1"})
        until(lambda: not watched.events.alive(), "the end of the thread")
    assert watched.events.tend()
    assert watched.hints.take() == ([], True)
    make_tree(watched.root, {"b.png": b"1"})
    watched.until("b.png")


def test_threads_that_die_again_and_again_are_replaced_now_and_then(watched: Watched) -> None:
    for replaced in (True, False):
        watched.events.close()
        assert watched.events.tend() is replaced
    watched.clock.advance(60.0)
    assert watched.events.tend()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_folders_in_folders_without_end_do_not_end_the_watching_of_another_inbox(
    watched: Watched, tmp_path: Path
) -> None:
    """watchdog goes down a tree by calling itself, which Python 3.11 does a thousand times and no more."""
    other = make_tree(tmp_path / "other", {"n": {}})
    with chain_of_folders(other / "n", "d", beyond=2600):
        watched.events.watch(str(other), Hints(), recursive=True)
        os.rename(other / "n", watched.root / "n")  # and to the thread that reads
        make_tree(watched.root, {"a.png": b"1"})
        deadline_s = time.monotonic() + _LONG_S
        while "a.png" not in watched.paths and watched.events.alive():
            assert time.monotonic() < deadline_s
            watched.woken.wait(0.01)
            watched.paths |= set(watched.hints.take()[0])
        os.rename(watched.root / "n", other / "n")
        watched.events.tend()
        assert watched.events.alive()
        make_tree(watched.root, {"b.png": b"1"})
        watched.until("b.png")


@pytest.mark.parametrize(("most", "watched_at_all"), [(0, False), (1, True)])
def test_limit_on_watches_leaves_the_rest_to_rescans(tmp_path: Path, most: int, watched_at_all: bool) -> None:
    """In a user namespace, which has a limit of its own."""
    make_tree(tmp_path, {"a": {"b": {}}})
    script = (
        "import sys; from pigeonholed.events import Events; from pigeonholed.hints import Hints\n"
        "told = []\n"
        "events = Events(lambda: None, on_limit=told.append)\n"
        "watched = events.watch(sys.argv[1], Hints(), recursive=True)\n"
        "assert not events.watches(sys.argv[1]), 'not all of it is'\n"
        "assert len(told) == 1 and 'sysctl fs.inotify.max_user_watches=' in told[0], told\n"
        "print(watched, events.alive())"
    )
    limited = ["unshare", "--user", "--map-root-user", "sh", "-c"]
    limit = "echo $0 > /proc/sys/user/max_inotify_watches"
    if subprocess.run([*limited, limit, "1"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this test needs a user namespace of its own")
    told = subprocess.run(
        [*limited, f'{limit} && exec "$@"', str(most), sys.executable, "-c", script, str(tmp_path)],
        check=True,
        capture_output=True,
        text=True,
    )
    assert told.stdout.splitlines()[-1] == f"{watched_at_all} True"


def test_user_without_a_queue_of_events_left_is_served_by_rescans_until_there_is_one(tmp_path: Path) -> None:
    """In a user namespace, which has a limit of its own."""
    script = """
import sys
from pigeonholed.events import Events
from pigeonholed.hints import Hints

def allow(count):
    with open("/proc/sys/user/max_inotify_instances", "w") as file:
        file.write(str(count))

now_s, told, hints, root = [0.0], [], Hints(), sys.argv[1]
allow(0)
events = Events(lambda: None, on_limit=told.append, clock=lambda: now_s[0])
assert not events.watch(root, hints, recursive=True)
assert events.alive() and not events.watches(root)
assert len(told) == 1 and "sysctl fs.inotify.max_user_instances=" in told[0], told
assert not events.tend()
now_s[0] = 1000.0
assert not events.tend() and len(told) == 1, "it is no better yet, and nobody need be told again"
allow(8)
now_s[0] = 2000.0
assert events.tend() and events.watches(root) and hints.take() == ([], True)
events.close()
print("well")
"""
    limited = ["unshare", "--user", "--map-root-user"]
    if subprocess.run([*limited, "true"], check=False, capture_output=True).returncode != 0:
        pytest.skip("this test needs a user namespace of its own")
    told = subprocess.run(
        [*limited, sys.executable, "-c", script, str(tmp_path)], check=False, capture_output=True, text=True
    )
    assert told.stdout.splitlines()[-1:] == ["well"], told.stderr


@contextmanager
def mounted(folder: Path) -> Iterator[None]:
    """Something is mounted there; skips the test where that needs more rights."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs needs root")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def test_what_is_mounted_in_a_watched_inbox_is_watched_too_and_what_it_covered_when_it_is_gone(
    watched: Watched,
) -> None:
    with mounted(watched.root / "sub"):
        assert watched.events.tend()
        assert watched.hints.take() == ([], True)
        assert watched.events.silent(str(watched.root)) == ()
        make_tree(watched.root, {"sub/a.png": b"1"})
        watched.until("sub/a.png")
    watched.clock.advance(60.0)
    assert watched.events.tend()
    make_tree(watched.root, {"sub/b.png": b"1"})
    watched.until("sub/b.png")


def test_network_mount_in_a_local_inbox_is_known_to_tell_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The type is all that makes a network file system of this one."""
    monkeypatch.setattr(filesystems, "_TELL_NOTHING", {"tmpfs"})
    monkeypatch.setattr(events, "gives_events", lambda _path: True)
    root, name = str(tmp_path), "far away\n\\ caf\udce9"
    os.mkdir(os.path.join(root, name))
    watching = Events(lambda: None, clock=FakeClock())
    assert watching.watch(root, Hints(), recursive=True, even_remote=False)
    assert watching.silent(root) == ()
    with mounted(tmp_path / name):
        assert watching.tend()
        assert watching.watches(root)
        assert watching.silent(root) == (f"{name}/",)
        assert [mount.below for mount in filesystems.mounts_below(root)] == [name]
    watching.close()


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
        watching = Events(watched.woken.set, hold, watched.clock)
    watching.watch(str(watched.root), watched.hints, recursive=True)
    deadline_s = time.monotonic() + _LONG_S
    while not overflowed.is_set():
        assert time.monotonic() < deadline_s
        make_tree(watched.root, {f"{number}.png": b"1" for number in range(200)})
    make_tree(watched.root, {f"{number}.png": b"1" for number in range(200)})
    make_tree(watched.root, {"new": {}})
    go_on.set()
    while not watched.lost:
        watched.see()
    assert not watching.tend()  # not calm yet
    watched.clock.advance(60)
    assert watching.tend()
    make_tree(watched.root, {"new/a.png": b"1"})  # a folder whose creation was not told
    watched.until("new/a.png")
    watching.close()


def test_inbox_that_cannot_be_watched_is_left_to_rescans(tmp_path: Path) -> None:
    watching = Events(lambda: None)
    assert not watching.watch(str(tmp_path / "missing"), Hints(), recursive=True)
    assert watching.alive()
    watching.close()


def test_end_of_the_threads_is_noticed(tmp_path: Path) -> None:
    watching = Events(lambda: None)
    watching.watch(str(tmp_path), Hints(), recursive=True)
    assert watching.alive()
    watching.close()
    assert not watching.alive()


@pytest.mark.parametrize(("mounted", "gives"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False), ("", True)])
def test_network_file_systems_are_known_to_tell_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, mounted: str, gives: bool
) -> None:
    monkeypatch.setattr(filesystems, "type_of", lambda _path: mounted)
    assert gives_events(str(tmp_path)) is gives


def test_type_of_the_mount_is_found() -> None:
    assert filesystems.type_of("/proc") == "proc"
