"""Whether a file still holds the very bytes that its row says, or those of another file."""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat

_CHUNK_BYTES = 1 << 20


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
    """Whether a file of that size and hash is at `path`; where the hash is not known, its size has to do."""
    try:
        return os.lstat(path).st_size == size and sha256 in (None, sha256_of(path))
    except OSError:
        return False


def is_same_content(one: str, other: str) -> bool:
    """Whether two files are regular ones with the same bytes; no link is followed."""
    with contextlib.ExitStack() as stack:
        files = []
        for path in (one, other):
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
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
