"""Which way up a picture is, by its EXIF block."""

from __future__ import annotations

import struct


def exif_orientation(block: bytes) -> int:
    """Read tag 0x0112 of an EXIF block (a small TIFF); damage means upright, as every viewer takes it."""
    order = "<" if block.startswith(b"II") else ">"
    try:
        (first,) = struct.unpack_from(order + "I", block, 4)
        (count,) = struct.unpack_from(order + "H", block, first)
        for pos in range(first + 2, first + 2 + 12 * min(count, 1000), 12):
            tag, kind = struct.unpack_from(order + "HH", block, pos)
            if tag == 0x0112:
                (value,) = struct.unpack_from(order + ("I" if kind == 4 else "H"), block, pos + 8)
                return value if 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1
