"""Whether a file still holds the very bytes that its row says, or those of another file."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import stat

from pigeonholed.disk import is_there, require_gone

_CHUNK_BYTES = 1 << 20
_NOT_OURS = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})
"""There is no file, or somebody's link in its place."""


def sha256_of(path: str) -> str:
    """SHA-256 of a regular file's bytes, in hex; a link is not followed.

    Raises:
        OSError: it is not there or cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    return sha256_of_open(fd)


def sha256_of_open(fd: int) -> str:
    """The same of an open file, which is closed.

    Raises:
        OSError: it cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(fd, "rb", closefd=False) as file:  # which would leave the descriptor of a folder open
            while part := file.read(_CHUNK_BYTES):
                digest.update(part)
    finally:
        os.close(fd)
    return digest.hexdigest()


def holds(path: str, size: int, sha256: str | None) -> bool:
    """Whether a file of that size and hash is at `path`; where the hash is not known, its size has to do.

    Raises:
        OSError: it is there and cannot be read: nobody knows.
    """
    if not is_there(path):
        require_gone(path)
        return False
    status = os.lstat(path)
    if status.st_size != size or not stat.S_ISREG(status.st_mode):
        return False
    return sha256 is None or sha256_of(path) == sha256


def is_same_content(one: str, other: str) -> bool:
    """Whether two paths lead to regular files with the same bytes; no link is followed.

    Raises:
        OSError: one is there and cannot be read: nobody knows.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for path in (one, other):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
            except OSError as error:
                if error.errno not in _NOT_OURS:
                    raise
                return False
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                os.close(fd)
                return False
            files.append(stack.enter_context(open(fd, "rb")))
        while True:
            parts = [file.read(_CHUNK_BYTES) for file in files]
            if parts[0] != parts[1]:
                return False
            if not parts[0]:
                return True
