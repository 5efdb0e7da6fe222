"""A private copy: what is said of it is true of it, and where that cannot be there is none."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from pigeonholed import copying
from pigeonholed.copying import Copier, Unfit

CONTENT = bytes(range(256)) * 9


@pytest.fixture
def source(tmp_path: Path) -> Iterator[int]:
    (tmp_path / "original").write_bytes(CONTENT)
    os.utime(tmp_path / "original", ns=(0, 5))
    fd = os.open(tmp_path / "original", os.O_RDWR)
    yield fd
    os.close(fd)


@pytest.fixture
def target(tmp_path: Path) -> str:
    return str(tmp_path / "copy")


def _shared(copy: int, _request: int, source: int) -> int:
    """FICLONE of a file system that has it."""
    os.pwrite(copy, os.pread(source, len(CONTENT), 0), 0)
    return 0


def _refused(code: int) -> object:
    def ioctl(_copy: int, _request: int, _source: int) -> int:
        raise OSError(code, os.strerror(code))

    return ioctl


@pytest.mark.parametrize("shares", [True, False])
def test_copy_is_what_its_fingerprint_says(
    source: int, target: str, monkeypatch: pytest.MonkeyPatch, shares: bool
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", _shared if shares else _refused(errno.EOPNOTSUPP))
    found = Copier().copy(source, target)
    assert Path(target).read_bytes() == CONTENT
    assert found.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert (found.size, found.mtime_ns) == (len(CONTENT), 5)
    assert os.stat(target).st_mtime_ns == 5


def test_hash_is_that_of_the_shared_copy_though_its_dropper_writes_on_and_sets_the_time_back(
    source: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That is not seen; the row must be true of the copy all the same."""

    def share_then_write(copy: int, request: int, original: int) -> int:
        _shared(copy, request, original)
        os.pwrite(original, b"other", 0)
        os.utime(original, ns=(0, 5))
        return 0

    monkeypatch.setattr(fcntl, "ioctl", share_then_write)
    assert Copier().copy(source, target).sha256 == hashlib.sha256(Path(target).read_bytes()).hexdigest()
    assert Path(target).read_bytes() == CONTENT


def test_file_system_that_cannot_share_is_asked_once(source: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    copier = Copier()
    monkeypatch.setattr(fcntl, "ioctl", _refused(errno.EOPNOTSUPP))
    copier.copy(source, target)
    monkeypatch.setattr(fcntl, "ioctl", None)
    copier.copy(source, target + "2")
    assert Path(target + "2").read_bytes() == CONTENT


def test_disk_that_fails_while_it_shares_is_not_taken_for_one_that_cannot(
    source: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fcntl, "ioctl", _refused(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        Copier().copy(source, target)
    assert not os.path.exists(target)


def test_original_that_is_written_to_meanwhile_leaves_no_copy(
    source: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write_on(copy: int, _request: int, original: int) -> int:
        os.pwrite(original, b"more", len(CONTENT))
        raise OSError(errno.EOPNOTSUPP, "cannot share")

    monkeypatch.setattr(fcntl, "ioctl", write_on)
    with pytest.raises(Unfit, match="still being written to"):
        Copier().copy(source, target)
    assert not os.path.exists(target)


def test_what_is_no_regular_file_is_not_copied(tmp_path: Path, target: str) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    try:
        with pytest.raises(Unfit, match="no regular file"):
            Copier().copy(fd, target)
    finally:
        os.close(fd)
    assert not os.path.exists(target)


def test_last_of_a_disk_stays_free_for_the_database(source: int, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copying, "_ROOM_BYTES", 1 << 62)
    space = os.statvfs_result((4096, 4096, 1000, 50, 50, 0, 0, 0, 0, 255))  # a twentieth is 50 blocks
    monkeypatch.setattr(os, "statvfs", lambda _folder: space)
    with pytest.raises(OSError, match="No space left") as full:
        Copier().copy(source, target)
    assert full.value.errno == errno.ENOSPC
    assert not os.path.exists(target)


def test_file_system_that_does_not_tell_its_size_is_not_taken_for_full(
    source: int, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "statvfs", lambda _folder: os.statvfs_result((0,) * 10))
    Copier().copy(source, target)
    assert Path(target).read_bytes() == CONTENT
