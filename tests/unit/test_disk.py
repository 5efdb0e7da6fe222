"""Renames that never overwrite, and durability."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import FakeClock, make_tree, read_tree
from pigeonholed import disk as disks
from pigeonholed.disk import Disk, fs_time_ns, is_there


@pytest.fixture(params=["renameat2", "link"])
def disk(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Disk]:
    disk = Disk(str(tmp_path))
    if request.param == "link":
        disk._renameat2 = None
    yield disk
    disk.close()


def test_file_gets_its_new_name(disk: Disk, tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1", "b": {}})
    disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b/c"))
    assert read_tree(tmp_path) == {"b": {"c": b"1"}}


def test_taken_name_is_refused_and_nothing_changes(disk: Disk, tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1", "b": b"2"})
    with pytest.raises(FileExistsError):
        disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert read_tree(tmp_path) == {"a": b"1", "b": b"2"}


def test_another_name_of_the_same_file_counts_as_a_taken_name(tmp_path: Path) -> None:
    """rename(2) alone would say that it is done, and leave both names."""
    disk = Disk(str(tmp_path))
    make_tree(tmp_path, {"a": b"1"})
    os.link(tmp_path / "a", tmp_path / "b")
    with pytest.raises(FileExistsError):
        disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert read_tree(tmp_path) == {"a": b"1", "b": b"1"}
    disk.close()


def test_dangling_link_counts_as_a_taken_name(disk: Disk, tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1"})
    (tmp_path / "b").symlink_to("nowhere")
    with pytest.raises(FileExistsError):
        disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert os.readlink(tmp_path / "b") == "nowhere"


def test_missing_source_is_reported(disk: Disk, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))


def test_name_that_is_no_utf8_survives(disk: Disk, tmp_path: Path) -> None:
    source = os.path.join(os.fsencode(tmp_path), b"caf\xe9")
    with open(source, "wb") as file:
        file.write(b"1")
    disk.rename_new(os.fsdecode(source), os.fsdecode(source + b"\xff"))
    assert os.listdir(os.fsencode(tmp_path)) == [b"caf\xe9\xff"]


def test_file_system_without_the_flag_gets_the_other_way(disk: Disk, tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1"})

    def refuse(*_arguments: object) -> int:
        ctypes.set_errno(errno.EINVAL)
        return -1

    disk._renameat2 = refuse
    disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert read_tree(tmp_path) == {"b": b"1"}


def test_rename_killed_between_link_and_unlink_is_finished_when_repeated(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    disk._renameat2 = None
    make_tree(tmp_path, {"a": b"1"})
    os.link(tmp_path / "a", tmp_path / "b")
    disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert read_tree(tmp_path) == {"b": b"1"}
    disk.close()


class _Calls:
    """Stands in for the calls that make things durable, and remembers them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, disk: Disk, clock: FakeClock) -> None:
        self.synced: list[str] = []
        self.takes_s = 0.0
        self.each_takes_s = 0.0

        def syncfs(_fd: int) -> int:
            clock.advance(self.takes_s)
            self.synced.append("everything")
            return 0

        def fsync(fd: int) -> None:
            clock.advance(self.each_takes_s)
            self.synced.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

        if disk._syncfs is not None:
            disk._syncfs = syncfs
        monkeypatch.setattr(os, "fsync", fsync)

    def take(self) -> list[str]:
        synced, self.synced = self.synced, []
        return synced


def _batch(folder: Path, count: int) -> tuple[list[str], list[str]]:
    """So many empty files: their names, and their paths."""
    names = [f"{number:02}" for number in range(count)]
    make_tree(folder, dict.fromkeys(names, b""))
    return names, [str(folder / name) for name in names]


def test_few_files_are_synced_one_by_one_before_their_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    disk = Disk(str(tmp_path), clock)
    calls = _Calls(monkeypatch, disk, clock)
    make_tree(tmp_path, {"f": {"a": b"", "b": b""}})
    disk.sync([str(tmp_path / "f/a"), str(tmp_path / "f/b")], [str(tmp_path / "f")])
    assert calls.take() == ["a", "b", "f"]
    disk.close()


def test_many_files_are_synced_at_once_unless_that_was_slow(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    disk = Disk(str(tmp_path), clock)
    calls = _Calls(monkeypatch, disk, clock)
    names, files = _batch(tmp_path, 9)
    disk.sync(files, [str(tmp_path)])
    assert calls.take() == ["everything"]
    calls.takes_s = 0.06
    disk.sync(files, [])
    calls.take()
    disk.sync(files, [str(tmp_path)])
    assert calls.take() == [*names, tmp_path.name]
    calls.takes_s = 0.0
    for _ in range(49):
        disk.sync(files, [])
    assert "everything" not in calls.take()
    disk.sync(files, [])
    assert calls.take() == ["everything"]
    disk.close()


def test_files_are_synced_at_once_where_one_by_one_takes_longer_still(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    disk = Disk(str(tmp_path), clock)
    calls = _Calls(monkeypatch, disk, clock)
    names, files = _batch(tmp_path, 30)
    calls.takes_s, calls.each_takes_s = 2**-4, 2**-8
    disk.sync(files, [str(tmp_path)])
    assert calls.take() == ["everything"]
    disk.sync(files, [str(tmp_path)])
    assert calls.take() == [*names[:17], "everything"]
    for _ in range(49):
        disk.sync(files, [str(tmp_path)])
    assert calls.take() == ["everything"] * 49
    disk.sync(files, [str(tmp_path)])  # it may be otherwise by now
    assert calls.take() == [*names[:17], "everything"]
    calls.each_takes_s = 0.001
    disk.sync(files[:8], [str(tmp_path)])
    assert calls.take() == [*names[:8], tmp_path.name]
    disk.close()


def test_everything_is_synced_at_once_where_renames_would_else_be_halved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    monkeypatch.setattr(disks, "_type_of", lambda _libc, _fd: 0x9123683E)
    disk = Disk(str(tmp_path), clock)
    calls = _Calls(monkeypatch, disk, clock)
    calls.takes_s = 0.06
    make_tree(tmp_path, {"a": b""})
    for _ in range(2):
        disk.sync([str(tmp_path / "a")], [str(tmp_path)])
        assert calls.take() == ["everything"]
    disk.close()


def test_type_of_a_file_system_is_the_one_that_the_kernel_names() -> None:
    disk = Disk("/proc")
    assert disks._type_of(disk._libc, disk._root_fd) == 0x9FA0
    assert disks._type_of(disk._libc, -1) == 0
    disk.close()


def test_name_that_is_gone_is_passed_over(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    make_tree(tmp_path, {"file": b""})
    disk.sync([str(tmp_path / "gone")], [str(tmp_path / "gone too"), str(tmp_path / "file"), str(tmp_path / "file/x")])
    disk.close()


def test_failing_disk_is_reported_and_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disk = Disk(str(tmp_path))
    make_tree(tmp_path, {"a": b""})
    tried: list[int] = []

    def fail(fd: int) -> None:
        tried.append(fd)
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync([str(tmp_path / "a")], [str(tmp_path)])
    assert len(tried) == 1
    disk.close()


def test_failing_sync_of_everything_is_reported(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))

    def fail(_fd: int) -> int:
        ctypes.set_errno(errno.EIO)
        return -1

    replaced: Any = fail
    disk._syncfs = replaced
    with pytest.raises(OSError, match="Input/output error"):
        disk.sync([str(tmp_path / str(number)) for number in range(9)], [])
    disk.close()


@pytest.mark.parametrize(
    ("release", "synced"),
    [
        ("4.19.0-27-amd64", [*map(str, range(9)), "f"]),  # its syncfs is silent about what it could not write
        ("5.7.19", [*map(str, range(9)), "f"]),
        ("5.8.0", ["everything", "f"]),  # it is silent when ext4 is shut down; fsync is not
        ("6.8.0-45-generic", ["everything", "f"]),
        ("6.13", ["everything"]),
        ("10.0.1", ["everything"]),
        ("no number", ["everything"]),
    ],
)
def test_sync_of_everything_is_believed_as_far_as_the_kernel_tells_of_its_faults(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock, release: str, synced: list[str]
) -> None:
    named = os.uname_result(("Linux", "host", release, "#1", "x86_64"))
    monkeypatch.setattr(os, "uname", lambda: named)
    names = [str(number) for number in range(9)]
    make_tree(tmp_path, {"f": dict.fromkeys(names, b"")})
    disk = Disk(str(tmp_path / "f"), clock)
    calls = _Calls(monkeypatch, disk, clock)
    disk.sync([str(tmp_path / "f" / name) for name in names], [str(tmp_path / "f")])
    assert calls.take() == synced
    disk.close()


def test_what_a_failed_sync_of_everything_left_in_memory_is_dropped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel takes it for written: whoever reads it next must read what is on the disk."""
    make_tree(tmp_path, {str(number): b"1" for number in range(9)})
    disk = Disk(str(tmp_path))
    disk._syncfs = lambda _fd: -1
    dropped: list[str] = []

    def fadvise(fd: int, start: int, length: int, advice: int) -> None:
        assert (start, length, advice) == (0, 0, os.POSIX_FADV_DONTNEED)
        dropped.append(os.path.basename(os.readlink(f"/proc/self/fd/{fd}")))

    monkeypatch.setattr(os, "posix_fadvise", fadvise)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(OSError):
        disk.sync([str(tmp_path / str(number)) for number in range(9)], [])
    assert sorted(dropped) == sorted(os.listdir(tmp_path))
    assert os.listdir("/proc/self/fd") == before
    disk.close()


def test_links_and_pipes_do_not_block_or_lead_away(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    (tmp_path / "link").symlink_to("/etc/hostname")
    with pytest.raises(OSError, match="symbolic links"):
        disk.sync([str(tmp_path / "link")], [])
    disk.close()


def test_time_of_the_file_system_only_goes_forward(tmp_path: Path) -> None:
    fd = os.open(tmp_path / "mark", os.O_CREAT | os.O_RDWR)
    first = fs_time_ns(fd)
    (tmp_path / "later").touch()
    assert first <= os.stat(tmp_path / "later").st_ctime_ns <= fs_time_ns(fd)
    os.close(fd)


def test_faults_that_pass_do_not_include_those_of_the_file() -> None:
    assert {errno.ENOSPC, errno.EMFILE, errno.EROFS, errno.ESTALE} <= disks.WAITED_FOR
    assert not {errno.EIO, errno.ENOENT, errno.EACCES, errno.ELOOP} & disks.WAITED_FOR


def test_writer_is_noticed_until_it_closes_the_file(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1"})
    with open(tmp_path / "a", "rb") as ours:
        assert not disks.is_written_to(ours.fileno())
        with open(tmp_path / "a", "ab"):
            assert disks.is_written_to(ours.fileno())
        assert not disks.is_written_to(ours.fileno())


def test_lease_is_given_back_at_once(tmp_path: Path) -> None:
    make_tree(tmp_path, {"a": b"1"})
    with open(tmp_path / "a", "rb") as ours:
        disks.is_written_to(ours.fileno())
        os.close(os.open(tmp_path / "a", os.O_WRONLY | os.O_NONBLOCK))  # would fail while a lease is held


def test_descriptor_that_can_have_no_lease_is_not_taken_for_written_to() -> None:
    reading, writing = os.pipe()
    assert not disks.is_written_to(reading)
    os.close(reading)
    os.close(writing)


def test_writer_that_comes_while_we_ask_does_not_kill_us(tmp_path: Path) -> None:
    """The kernel tells a lease's holder by a signal, and the default one ends the process."""
    program = """
import fcntl, os, sys, threading
from pigeonholed import disk
path = sys.argv[1]
fd = os.open(path, os.O_RDONLY)
set_lease = fcntl.fcntl
writer = threading.Thread(target=lambda: os.close(os.open(path, os.O_WRONLY)))
def slow(descriptor, command, argument=0):
    if command == fcntl.F_SETLEASE and argument == fcntl.F_UNLCK:
        writer.start()
        writer.join(0.2)
        assert writer.is_alive()
    return set_lease(descriptor, command, argument)
disk.fcntl.fcntl = slow
disk.is_written_to(fd)
writer.join(5)
print("alive")
"""
    make_tree(tmp_path, {"a": b"1"})
    child = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "a")], capture_output=True, text=True, check=False, timeout=20
    )
    assert (child.returncode, child.stdout, child.stderr) == (0, "alive\n", "")


def test_what_a_disk_does_not_say_is_no_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    names = ("file", "link", "missing", "file/below")
    assert [is_there(str(tmp_path / name)) for name in names] == [True, True, False, False]

    def fail(*_arguments: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "lstat", fail)
    with pytest.raises(OSError, match="Input/output error"):
        is_there(str(tmp_path / "file"))


def test_out_of_descriptors_everything_is_synced_by_the_one_that_is_open(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clock: FakeClock
) -> None:
    make_tree(tmp_path, {"a": b"1"})
    disk = Disk(str(tmp_path), clock)
    calls = _Calls(monkeypatch, disk, clock)
    opened = os.open

    def refuse(path: str, *more: int, **named: int) -> int:
        if path == str(tmp_path / "a"):
            raise OSError(errno.EMFILE, "Too many open files")
        return opened(path, *more, **named)

    monkeypatch.setattr(os, "open", refuse)
    disk.sync([str(tmp_path / "a")], [str(tmp_path)])
    assert calls.take() == ["everything"]
    disk._syncfs = None
    with pytest.raises(OSError, match="Too many open files"):
        disk.sync([str(tmp_path / "a")], [str(tmp_path)])
    disk.close()


def test_folder_that_is_not_the_one_that_was_opened_is_found_out(tmp_path: Path) -> None:
    """Files that seem to be missing there are not lost."""
    root = make_tree(tmp_path / "root", {})
    disk = Disk(str(root))
    assert disk.holds(str(root))
    root.rename(tmp_path / "away")
    assert not disk.holds(str(root))
    root.mkdir()
    assert not disk.holds(str(root))
    disk.close()


def test_other_file_of_the_new_name_is_not_taken_for_half_a_rename(tmp_path: Path) -> None:
    disk = Disk(str(tmp_path))
    disk._renameat2 = None
    make_tree(tmp_path, {"a": b"1", "b": b"2"})
    with pytest.raises(FileExistsError):
        disk.rename_new(str(tmp_path / "a"), str(tmp_path / "b"))
    assert read_tree(tmp_path) == {"a": b"1", "b": b"2"}
    disk.close()
