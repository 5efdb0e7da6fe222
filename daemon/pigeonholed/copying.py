"""A private copy of a file that others may still have in their hands: hashed while it is made, never half believed.

What is returned describes the bytes of the copy. Whoever kept the original open, or a hard link to it, can change the
original and nothing else.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import os
import stat
from typing import TYPE_CHECKING

from pigeonholed.images import Fingerprint, mtime_ns_of

if TYPE_CHECKING:
    from collections.abc import Callable

_CHUNK_BYTES = 1 << 20
_FICLONE = 0x40049409
_CANNOT_SHARE = frozenset(
    {errno.EOPNOTSUPP, errno.ENOTTY, errno.EINVAL, errno.EXDEV, errno.ENOSYS, errno.EPERM, errno.ETXTBSY, errno.EISDIR}
)
_ROOM_BYTES = 16 << 20
"""Left free by copies, so that the database and what is in flight have somewhere to go on."""


class Unfit(Exception):
    """A file cannot be copied as it is: it still changes, or it is no regular file. It is left to its owner."""


class Copier:
    """Makes copies; shares the blocks of the original where the file system can. Owned by one thread."""

    def __init__(self) -> None:
        self._shares = True
        self._buffer = memoryview(bytearray(_CHUNK_BYTES))

    def copy(self, source: int, target: str) -> Fingerprint:
        """Copy an open file into a new file that is ours alone; the caller makes it durable.

        The copy belongs to this process's user. The modification time is kept, of the permissions those to read and
        write: no copy can be executed.

        Args:
            source: a descriptor, open for reading.
            target: a path that is free.

        Raises:
            Unfit: the file changed meanwhile, or is no regular file.
            OSError: as `open(2)`, `read(2)` and `write(2)`; ENOSPC before the last bytes of the disk are taken. There
                is no target then.
        """
        os.lseek(source, 0, os.SEEK_SET)
        before = os.fstat(source)
        if not stat.S_ISREG(before.st_mode):
            raise Unfit("it is no regular file")
        _require_room(os.path.dirname(target), before.st_size)
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        copy = os.open(target, flags, 0o600)
        try:
            sha256, size = self._clone(source, copy, before) or self._stream(source, copy)
            after = os.fstat(source)
            if not (before.st_size == after.st_size == size and before.st_mtime_ns == after.st_mtime_ns):
                raise Unfit("it was still being written to")
            _dress(copy, before)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(target)
            raise
        finally:
            os.close(copy)
        return Fingerprint(sha256, size, mtime_ns_of(before))

    def _clone(self, source: int, copy: int, before: os.stat_result) -> tuple[str, int] | None:
        """Let both share the same blocks, which is also one instant for a writer; None where that cannot be had."""
        if not (self._shares and before.st_size and before.st_dev == os.fstat(copy).st_dev):
            return None
        try:
            fcntl.ioctl(copy, _FICLONE, source)
        except OSError as error:
            if error.errno not in _CANNOT_SHARE:
                raise
            self._shares = False
            return None
        return self._read_through(copy, lambda _part: None)

    def _stream(self, source: int, copy: int) -> tuple[str, int]:
        return self._read_through(source, lambda part: _write(copy, part))

    def _read_through(self, fd: int, take: Callable[[memoryview], None]) -> tuple[str, int]:
        digest, size = hashlib.sha256(), 0
        while count := os.readv(fd, [self._buffer]):
            part = self._buffer[:count]
            take(part)
            digest.update(part)
            size += count
        return digest.hexdigest(), size


def _dress(copy: int, original: os.stat_result) -> None:
    with contextlib.suppress(PermissionError):  # file systems that know no permissions
        os.fchmod(copy, stat.S_IMODE(original.st_mode) & 0o666 | 0o600)
    os.utime(copy, ns=(original.st_atime_ns, original.st_mtime_ns))


def _write(fd: int, part: memoryview) -> None:
    while part:
        part = part[os.write(fd, part) :]


def _require_room(folder: str, size: int) -> None:
    """Keep the last of a disk free.

    Raises:
        OSError: ENOSPC, which is waited for.
    """
    space = os.statvfs(folder)
    if not space.f_blocks:
        return  # a file system that does not tell
    unit = space.f_frsize
    if space.f_bavail * unit - size < min(_ROOM_BYTES, space.f_blocks * unit // 20):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), folder)
