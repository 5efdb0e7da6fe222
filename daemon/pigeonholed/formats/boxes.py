"""The boxes of HEIF and AVIF files (ISO 14496-12), whose pictures only the extra `heif` decodes."""

from __future__ import annotations

import struct
from collections.abc import Callable

from pigeonholed.formats.header import MAX_SEGMENTS, Format

_BRANDS = frozenset({b"mif1", b"mif2", b"mif3", b"msf1", b"vvic", b"j2ki", b"jpeg", b"hevc", b"hevx"})


def sniff_boxes(head: bytes) -> Format | None:
    """Tell AVIF from HEIF by the brands of an ISO media file; other media files (video) are None."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return Format.AVIF
    return Format.HEIF if brands & _BRANDS or any(b.startswith((b"hei", b"hev")) for b in brands) else None


def boxes_are_complete(size: int, read: Callable[[int, int], bytes]) -> bool:
    """Tell whether the outermost boxes of a HEIF or AVIF file (ISO 14496-12) end where the file does, or before.

    One of them must say what is in the others. Files that are written elsewhere are cut between two boxes, too.

    Args:
        size: bytes of the file.
        read: returns bytes of it, from an offset and as many as a number says, or fewer at its end.
    """
    pos, described = 0, False
    for _ in range(MAX_SEGMENTS):
        if pos + 8 > size:
            break
        head = read(pos, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:
            length = int.from_bytes(head[8:16], "big")
        if length < 8:  # 0: the last box reaches to the end of the file, wherever that is
            return True
        described = described or head[4:8] in {b"meta", b"moov", b"mini"}
        pos += length
    return pos <= size and described


def announced_pixels(data: bytes) -> int:
    """The most pixels that any image within a HEIF or AVIF file is said to have, before one is looked at closely.

    Only for a word on why a file cannot be decoded: which of its images is the one that counts is not asked.
    """
    pos, most = 0, 0
    for _ in range(MAX_SEGMENTS):
        pos = data.find(b"ispe", pos) + 4
        if pos < 4 or pos + 12 > len(data):
            break
        width, height = struct.unpack_from(">II", data, pos + 4)
        most = max(most, width * height)
    return most
