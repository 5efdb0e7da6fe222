"""When a picture was taken, as its camera wrote it down.

An EXIF block is a small TIFF file: a byte order, directories of 12-byte entries, and values they point to
(CIPA DC-008, "Exif 2.32", section 4.6).
"""

from __future__ import annotations

import struct
from datetime import datetime

# JPEG and HEIF; PNG; WebP, whose mark is followed by a length of four bytes; AVIF: a block at no distance, either order
_MARKS = (b"Exif\0\0", b"eXIf", b"EXIF", b"\0\0\0\0II*\0", b"\0\0\0\0MM\0*")
_SUB_DIRECTORY, _ORIGINAL = 0x8769, 0x9003
_SEARCHED_BYTES = 1 << 20
# Real files stay far below these. They bound the time that a file made of nothing but marks can cost.
_MOST_MARKS = 32
_MOST_ENTRIES = 1000


def taken_at(data: bytes) -> datetime | None:
    """The original time of a picture (EXIF DateTimeOriginal) in the camera's local time; None where there is none.

    Nothing in the block is trusted: whatever does not add up counts as absent.
    """
    for mark in _MARKS:
        start = 0
        for _ in range(_MOST_MARKS):
            found = data.find(mark, start, _SEARCHED_BYTES)
            if found < 0:
                break
            start = found + (4 if mark[0] == 0 else len(mark))
            for offset in (0, 4):
                if (moment := _original(data[start + offset : start + offset + 65_536])) is not None:
                    return moment
    return None


def _original(block: bytes) -> datetime | None:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(block[:4])
    if order is None:
        return None
    try:
        (first,) = struct.unpack_from(f"{order}I", block, 4)
        (inner,) = struct.unpack(f"{order}I", _value(block, order, first, _SUB_DIRECTORY))
        (at,) = struct.unpack(f"{order}I", _value(block, order, inner, _ORIGINAL))
        text = block[at : at + 19].decode("ascii")
        return datetime.strptime(text, "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 (a camera knows no zone)
    except (struct.error, ValueError, LookupError):
        return None


def _value(block: bytes, order: str, directory: int, tag: int) -> bytes:
    """The four bytes that an entry of a directory holds.

    Raises:
        LookupError: the directory has no such entry.
        struct.error: it is cut short.
    """
    (count,) = struct.unpack_from(f"{order}H", block, directory)
    for index in range(min(count, _MOST_ENTRIES)):
        at = directory + 2 + 12 * index
        if struct.unpack_from(f"{order}H", block, at)[0] == tag:
            return block[at + 8 : at + 12]
    raise LookupError(tag)
