"""A short look into a file that may be complete: its ends, and whether somebody writes to it."""

from __future__ import annotations

import os

from pigeonholed.disk import is_written_to
from pigeonholed.formats import Format, boxes_are_complete, end_is_missing, sniff

_PEEK_BYTES = 64
_PAGE_BYTES = 4096


def peek(path: str, size: int, *, ask_for_writers: bool) -> tuple[bool, bool]:
    """Whether the end of a picture is missing, and whether somebody is known to have the file open for writing.

    Never follows a link and never blocks on a pipe. Every system call here is paid for each file that arrives.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        if size <= _PAGE_BYTES:
            head = tail = os.pread(fd, _PAGE_BYTES, 0)
        else:
            head = os.pread(fd, _PEEK_BYTES, 0)
            tail = os.pread(fd, _PEEK_BYTES, size - _PEEK_BYTES)
        missing = end_is_missing(head[:_PEEK_BYTES], tail[-_PEEK_BYTES:], size)
        if sniff(head[:_PEEK_BYTES]) in (Format.HEIF, Format.AVIF):
            missing = not boxes_are_complete(size, lambda at, count: os.pread(fd, count, at))
        return missing, ask_for_writers and is_written_to(fd)
    finally:
        os.close(fd)
