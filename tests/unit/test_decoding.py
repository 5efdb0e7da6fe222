"""From a claimed file to pixels: hash and decode the same bytes, and blame the right one."""

from __future__ import annotations

import errno
import hashlib
import inspect
import os
import re
import time
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from helpers import make_arrival, png
from pigeonholed import decoding, imaging
from pigeonholed.decoding import Demand, examine
from pigeonholed.images import Decoded, Reason, Rejected, Status, Withdrawn
from pigeonholed.imaging import PixelSpec

_DEMAND = Demand(PixelSpec(4, 6), max_pixels=10_000, max_bytes=10_000)


def _examine(path: Path, demand: Demand = _DEMAND) -> Decoded | Rejected | Withdrawn:
    return examine(make_arrival(size=17, mtime_ns=3), str(path), demand, pause=_no_pause)


def _no_pause(_seconds: float) -> None:
    pass


def test_picture_is_decoded_to_the_wanted_size_and_hashed(tmp_path: Path) -> None:
    content = png("red", size=8)
    (tmp_path / "a").write_bytes(content)
    result = _examine(tmp_path / "a")
    assert isinstance(result, Decoded)
    assert result.pixels.shape == (4, 6, 3)
    assert tuple(result.pixels[0, 0]) == (200, 40, 40)
    assert (result.width, result.height) == (8, 8)
    status = os.stat(tmp_path / "a")
    assert result.fingerprint.sha256 == hashlib.sha256(content).hexdigest()
    assert (result.fingerprint.size, result.fingerprint.mtime_ns) == (len(content), status.st_mtime_ns)


def test_other_names_of_a_file_are_counted(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(png())
    for names in (1, 2, 3):
        result = _examine(tmp_path / "a")
        assert isinstance(result, Decoded)
        assert result.fingerprint.names == names
        os.link(tmp_path / "a", tmp_path / f"{names}")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", Reason.EMPTY),
        (b"just text", Reason.UNSUPPORTED),
        (png()[:-20], Reason.TRUNCATED),
        (png(size=200), Reason.TOO_LARGE),
    ],
)
def test_bad_picture_is_rejected_with_its_reason_and_hash(tmp_path: Path, content: bytes, reason: Reason) -> None:
    (tmp_path / "a").write_bytes(content)
    result = _examine(tmp_path / "a")
    assert isinstance(result, Rejected)
    assert result.reason is reason
    assert result.detail
    assert result.fingerprint.sha256 == hashlib.sha256(content).hexdigest()


def test_file_of_too_many_bytes_is_hashed_but_never_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(imaging, "decode", _never)
    content = bytes(3 << 20)
    (tmp_path / "a").write_bytes(content)
    result = _examine(tmp_path / "a")
    assert isinstance(result, Rejected)
    assert result.reason is Reason.TOO_LARGE
    assert str(len(content)) in result.detail
    assert result.fingerprint.sha256 == hashlib.sha256(content).hexdigest()
    assert result.fingerprint.size == len(content)


def test_file_that_is_gone_is_lost(tmp_path: Path) -> None:
    result = _examine(tmp_path / "gone")
    assert isinstance(result, Withdrawn)
    assert result.status is Status.LOST


@pytest.mark.parametrize("kind", ["link", "folder", "pipe"])
def test_what_is_no_file_after_all_is_withdrawn(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a"
    if kind == "link":
        path.symlink_to("/etc/hostname")
    elif kind == "folder":
        path.mkdir()
    else:
        os.mkfifo(path)
    result = _examine(path)
    assert isinstance(result, Withdrawn)
    assert result.status is Status.VANISHED


@pytest.mark.parametrize("size", [100, 3 << 20])
@pytest.mark.parametrize("change", ["grow", "shrink", "touch"])
def test_file_that_changes_while_it_is_read_is_withdrawn_or_known_by_its_last_look(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int, change: str
) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    original = os.read
    done: list[bool] = []

    def read(fd: int, count: int) -> bytes:
        if not done:
            done.append(True)
            if change == "grow":
                with open(path, "ab") as file:
                    file.write(b"more")
            elif change == "shrink":
                os.truncate(path, size - 1)
            else:
                os.utime(path, ns=(1, 1))
        return original(fd, count)

    monkeypatch.setattr(os, "read", read)
    result = _examine(path)
    if isinstance(result, Withdrawn):
        assert result.status is Status.VANISHED
    else:  # what the finisher compares: what was read is not what is there
        now = os.stat(path)
        assert (result.fingerprint.size, result.fingerprint.mtime_ns) != (now.st_size, now.st_mtime_ns)


def test_short_reads_are_put_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = png()
    (tmp_path / "a").write_bytes(content)
    original = os.read
    monkeypatch.setattr(os, "read", lambda fd, count: original(fd, min(count, 7)))
    result = _examine(tmp_path / "a")
    assert isinstance(result, Decoded)
    assert result.fingerprint.sha256 == hashlib.sha256(content).hexdigest()


def test_file_that_ends_before_its_size_is_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was hashed would not be what is filed."""
    (tmp_path / "a").write_bytes(png())
    answers = [png()[:30], b""]
    monkeypatch.setattr(os, "read", lambda _fd, _count: answers.pop(0))
    assert isinstance(_examine(tmp_path / "a"), Withdrawn)


class _Failing:
    """`os.read` that fails a number of times first."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, code: int, times: int) -> None:
        self.left = times
        self.code = code
        self._original = os.read
        monkeypatch.setattr(os, "read", self)

    def __call__(self, fd: int, count: int) -> bytes:
        if self.left:
            self.left -= 1
            raise OSError(self.code, os.strerror(self.code))
        return self._original(fd, count)


def test_disk_that_fails_twice_is_tried_a_third_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(png())
    _Failing(monkeypatch, errno.EIO, 2)
    pauses: list[float] = []
    result = examine(make_arrival(), str(tmp_path / "a"), _DEMAND, pause=pauses.append)
    assert isinstance(result, Decoded)
    assert len(pauses) == 2


def test_disk_that_fails_three_times_makes_an_io_error_without_a_hash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_bytes(png())
    _Failing(monkeypatch, errno.EIO, 3)
    result = _examine(tmp_path / "a")
    assert isinstance(result, Rejected)
    assert result.reason is Reason.IO_ERROR
    assert result.fingerprint.sha256 is None
    assert (result.fingerprint.size, result.fingerprint.mtime_ns) == (17, 3)  # as it was seen in the inbox


@pytest.mark.parametrize("code", [errno.EMFILE, errno.ENOMEM, errno.ESTALE, errno.ENOTCONN])
def test_fault_of_the_machine_is_raised_and_never_blamed_on_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "a").write_bytes(png())
    _Failing(monkeypatch, code, 1)
    with pytest.raises(OSError, match=re.escape(os.strerror(code))) as raised:
        _examine(tmp_path / "a")
    assert raised.value.errno == code


def test_no_descriptor_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(png())
    before = os.listdir("/proc/self/fd")
    _examine(tmp_path / "a")
    _Failing(monkeypatch, errno.EIO, 3)
    _examine(tmp_path / "a")
    assert len(os.listdir("/proc/self/fd")) == len(before)


def test_cut_picture_is_decoded_where_the_inbox_wants_that(tmp_path: Path) -> None:
    done, jpeg = cv2.imencode(".jpg", np.random.default_rng(1).integers(0, 255, (64, 64, 3), np.uint8))
    assert done
    (tmp_path / "a").write_bytes(bytes(jpeg)[:-200])
    assert isinstance(_examine(tmp_path / "a"), Rejected)
    demand = Demand(PixelSpec(4, 4), 10_000, 10_000, allow_truncated=True)
    assert isinstance(_examine(tmp_path / "a", demand), Decoded)


def test_date_is_only_read_where_the_template_asks_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(png())
    asked: list[bytes] = []
    monkeypatch.setattr(decoding, "taken_at", asked.append)
    _examine(tmp_path / "a")
    assert not asked
    _examine(tmp_path / "a", Demand(PixelSpec(4, 4), 10_000, 10_000, wants_date=True))
    assert asked == [png()]


def _never(*_arguments: Any, **_named: Any) -> Any:
    raise AssertionError("must not be called")


def test_pause_between_attempts_is_short() -> None:
    default = inspect.signature(examine).parameters["pause"].default
    assert default is time.sleep
