"""Locks that say who holds them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from pigeonholed import locking
from pigeonholed.locking import COMMAND, Held, Lock, holder_of


def test_second_taker_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock.take(path)
    with pytest.raises(Held) as refused:
        Lock.take(path)
    assert refused.value.holder == str(os.getpid())
    assert refused.value.path == path
    assert str(refused.value) == f"{path} is held by process {os.getpid()}"
    lock.release()


def test_released_lock_can_be_taken_again_and_its_file_stays(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    Lock.take(str(path)).release()
    assert path.read_bytes() == b""
    Lock.take(str(path)).release()


def test_pid_of_an_earlier_holder_does_not_linger(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    path.write_text("99999999999999\n")
    lock = Lock.take(str(path))
    assert path.read_text() == f"{os.getpid()}\n"
    lock.release()


def test_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock.take(path)
    child = subprocess.Popen(
        [sys.executable, "-c", "print('up', flush=True); input()"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        close_fds=False,
        text=True,
    )
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "up\n"
        os.close(lock.fd)  # what the kernel does when the daemon dies
        Lock.take(path).release()
    finally:
        child.communicate("\n", timeout=10)


def test_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        Lock.take(str(tmp_path / "lock"))
    assert not (tmp_path / "elsewhere").exists()


def test_others_cannot_read_the_lock(tmp_path: Path) -> None:
    lock = Lock.take(str(tmp_path / "lock"))
    assert os.stat(lock.path).st_mode & 0o077 == 0
    lock.release()


@pytest.mark.parametrize("call", ["ftruncate", "pwrite"])
def test_disk_that_refuses_the_pid_is_not_taken_for_another_holder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    def fail(*_arguments: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(os, call, fail)
    with pytest.raises(PermissionError):
        Lock.take(str(tmp_path / "lock"))
    monkeypatch.undo()
    Lock.take(str(tmp_path / "lock")).release()


def test_full_disk_leaves_no_lock_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Else a daemon that waits for room would find itself in its own way."""
    path = str(tmp_path / "lock")

    def full(_fd: int, _data: bytes, _offset: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        Lock.take(path)
    monkeypatch.undo()
    Lock.take(path).release()


def test_command_that_holds_the_lock_is_waited_for_and_a_daemon_is_not(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    command = Lock.take(path, purpose=COMMAND)
    assert holder_of(path) == str(os.getpid())
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Lock.take_after_commands, path)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        command.release()
        daemon = waiting.result(10)
    with pytest.raises(Held):
        Lock.take_after_commands(path)
    daemon.release()


def test_holder_that_has_not_said_who_it_is_is_waited_for(tmp_path: Path) -> None:
    """A command that gives the lock back takes its name off first."""
    path = str(tmp_path / "lock")
    nameless = Lock.take(path, purpose=COMMAND)
    os.ftruncate(nameless.fd, 0)
    with pytest.raises(Held, match=r"lock is held by process \(unknown\)$"):
        Lock.take(path)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(Lock.take_after_commands, path)
        with pytest.raises(TimeoutError):
            waiting.result(0.2)
        nameless.release()
        waiting.result(10).release()


def test_command_that_does_not_end_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "_COMMANDS_END_WITHIN_S", 0.1)
    command = Lock.take(str(tmp_path / "lock"), purpose=COMMAND)
    with pytest.raises(Held):
        Lock.take_after_commands(command.path)
    command.release()


def test_nobody_holds_what_is_not_there_or_was_given_back(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    assert holder_of(path) is None
    Lock.take(path).release()
    assert holder_of(path) is None
