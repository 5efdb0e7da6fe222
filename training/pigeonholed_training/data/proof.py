"""Files that are proven to be what a row says of them, while they are read."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_CHUNK: Final = 1 << 20


class Refused(Exception):
    """This picture is left out of the export; the message says why, as the end of a sentence about it."""


@contextlib.contextmanager
def reading(path: str) -> Iterator[int]:
    """A descriptor of the regular file at `path`; a link is not followed, and a pipe not waited for.

    Raises:
        Refused: there is none that can be read.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        raise Refused("it is not there any more") from None
    except OSError as fault:
        raise Refused(f"it cannot be read: {fault.strerror}") from None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Refused("it is no regular file any more")
        yield fd
    finally:
        os.close(fd)


def prove(fd: int, sha256: str | None, write: Callable[[bytes], object] = lambda _chunk: None) -> None:
    """Reads to the end, handing on what it reads.

    Raises:
        Refused: these are not the bytes of that hash, or they cannot be read.
        OSError: as `write` does.
    """
    digest = hashlib.sha256()
    for chunk in _chunks(fd):
        digest.update(chunk)
        write(chunk)
    if digest.hexdigest() != sha256:
        raise Refused("its content is not what was filed")


def _chunks(fd: int) -> Iterator[bytes]:
    try:
        while chunk := os.read(fd, _CHUNK):
            yield chunk
    except OSError as fault:
        raise Refused(f"it cannot be read: {fault.strerror}") from None


def holds(path: str, size: int, sha256: str | None) -> bool:
    """Whether there is a regular file of that size and hash at `path`."""
    try:
        status = os.lstat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size != size:
            return False
        with reading(path) as fd:
            prove(fd, sha256)
    except (OSError, Refused):
        return False
    return True
