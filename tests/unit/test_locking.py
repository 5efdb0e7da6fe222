"""Locks that say who holds them."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pigeonholed.locking import Held, Lock


def test_second_taker_is_refused_and_told_the_pid(tmp_path: Path) -> None:
    path = str(tmp_path / "lock")
    lock = Lock.take(path)
    with pytest.raises(Held) as refused:
        Lock.take(path)
    assert refused.value.holder == str(os.getpid())
    assert refused.value.path == path
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
