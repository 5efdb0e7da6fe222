"""From a claimed file to pixels: read once, hash and decode the very same bytes."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed import imaging
from pigeonholed.disk import WAITED_FOR
from pigeonholed.exif import taken_at
from pigeonholed.images import Decoded, Fingerprint, Reason, Rejected, Status, Withdrawn
from pigeonholed.settling import signature_of

if TYPE_CHECKING:
    from pigeonholed.images import Arrival

_CHUNK_BYTES = 1 << 20

Decode = Callable[[bytes, Fingerprint, "Demand"], imaging.Picture]
"""How bytes become pixels: in this thread (`decode_here`) or elsewhere. Raises `ImagingError` for a bad picture."""


@dataclass(frozen=True, slots=True)
class Demand:
    """What an inbox and its model ask of a picture.

    Attributes:
        spec: size and fit of the pixels.
        max_pixels: more are too large.
        max_bytes: more are too large.
        allow_truncated: decode a picture that is cut short as far as it goes.
        wants_date: read when the picture was taken.
    """

    spec: imaging.PixelSpec
    max_pixels: int
    max_bytes: int
    allow_truncated: bool = False
    wants_date: bool = False


class _StillChanging(Exception):
    """Somebody writes to the file while we read it."""


def decode_here(data: bytes, _fingerprint: Fingerprint, demand: Demand) -> imaging.Picture:
    """Decode in this very thread."""
    return imaging.decode(data, demand.spec, max_pixels=demand.max_pixels, allow_truncated=demand.allow_truncated)


def _opened(path: str) -> int:
    return os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)


def examine(
    arrival: Arrival,
    path: str,
    demand: Demand,
    decode: Decode = decode_here,
    *,
    opener: Callable[[str], int] = _opened,
    pause: Callable[[float], None] = time.sleep,
) -> Decoded | Rejected | Withdrawn:
    """Read, hash and decode one claimed file.

    Args:
        arrival: whose file it is.
        path: where it waits in the work folder, or what `opener` takes.
        demand: what is wanted of it.
        decode: where it is decoded; what it raises beside `ImagingError` is passed on.
        opener: opens it for reading; without waiting for anybody, and through no link.
        pause: called with seconds between the three attempts at a disk that fails to read.

    Raises:
        OSError: the machine is at fault (too many open files, lost mount); the file is not to blame.
    """
    attempt = 1
    while True:
        try:
            data, fingerprint = _read(opener(path), arrival, demand.max_bytes)
            break
        except _StillChanging:
            return Withdrawn(arrival, Status.VANISHED, "it was still being written to")
        except FileNotFoundError:
            return _gone(arrival)
        except OSError as error:
            if error.errno in WAITED_FOR:
                raise
            if error.errno == errno.ELOOP:
                return Withdrawn(arrival, Status.VANISHED, "it was replaced by a link")
            if attempt == 3:
                size = arrival.file.size
                unread = Fingerprint(None, size, arrival.file.mtime_ns)
                return Rejected(arrival, unread, Reason.IO_ERROR, f"reading failed three times: {error.strerror}")
            pause(0.1 * attempt)
            attempt += 1
    if data is None:
        detail = f"{fingerprint.size} bytes, {demand.max_bytes} are allowed"
        return Rejected(arrival, fingerprint, Reason.TOO_LARGE, detail)
    return _decoded(arrival, data, fingerprint, demand, decode)


def _gone(arrival: Arrival) -> Withdrawn:
    if arrival.stays:
        return Withdrawn(arrival, Status.VANISHED, "it was gone before it was read")
    return Withdrawn(arrival, Status.LOST, "it disappeared from the work folder")


def _decoded(
    arrival: Arrival, data: bytes, fingerprint: Fingerprint, demand: Demand, decode: Decode
) -> Decoded | Rejected:
    try:
        picture = decode(data, fingerprint, demand)
    except imaging.ImagingError as error:
        return Rejected(arrival, fingerprint, error.reason, error.detail)
    moment = taken_at(data) if demand.wants_date else None
    return Decoded(
        arrival, fingerprint, picture.pixels, picture.width, picture.height, moment, demand.spec, time.monotonic()
    )


def _read(fd: int, arrival: Arrival, max_bytes: int) -> tuple[bytes | None, Fingerprint]:
    """The bytes (None where there are too many), and what the file was when the reading began; closes it.

    That it is still the same afterwards is seen to by the last look before its plan or its row (`finishing`).
    """
    try:
        before = os.fstat(fd)
        if not stat.S_ISREG(before.st_mode):
            raise _StillChanging
        now = signature_of(before)
        if arrival.stays and (now.size, now.mtime_ns) != (arrival.file.size, arrival.file.mtime_ns):
            raise _StillChanging  # another than the one that was seen to be complete
        data: bytes | None = None
        if before.st_size <= max_bytes:
            data = _read_all(fd, before.st_size)
            digest = hashlib.sha256(data).hexdigest()
        else:
            digest = _hash(fd)
    finally:
        os.close(fd)
    if data is not None and len(data) != before.st_size:
        raise _StillChanging
    known = (now.ctime_ns, now.inode) if arrival.stays else ()
    return data, Fingerprint(digest, now.size, now.mtime_ns, before.st_nlink, *known)


def _read_all(fd: int, size: int) -> bytes:
    data = os.read(fd, size + 1)  # one more, so that growth is noticed
    if len(data) == size:
        return data
    parts = [data]
    while part := os.read(fd, _CHUNK_BYTES):
        parts.append(part)
        if sum(map(len, parts)) > size:
            raise _StillChanging
    return b"".join(parts)


def _hash(fd: int) -> str:
    digest = hashlib.sha256()
    while part := os.read(fd, _CHUNK_BYTES):
        digest.update(part)
    return digest.hexdigest()
