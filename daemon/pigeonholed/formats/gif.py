"""GIF89a: its blocks to the trailer."""

from __future__ import annotations

import struct

from pigeonholed.formats.header import MAX_BLOCKS, Alpha, Format, Header, HeaderError


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    width, height = size_of(data)
    return Header(Format.GIF, width, height, alpha=Alpha.STRAIGHT, complete=_is_complete(data))


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that a GIF's packed field announces."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _is_complete(data: bytes) -> bool:
    """Walk the blocks to the trailer. A frame is only as good as its file: an animation that is cut is cut."""
    pos, size, budget = 13 + _colour_table(data[10]), len(data), MAX_BLOCKS
    while pos < size:
        kind = data[pos]
        if kind == 0x3B:
            return True
        if kind == 0x21:
            pos += 2
        elif kind == 0x2C and pos + 10 < size:
            pos += 11 + _colour_table(data[pos + 9])
        else:
            # Padding with zeros stands for an end that never came; any other rubbish is for the decoder to judge.
            return kind != 0x2C and bool(data[pos:].strip(b"\0"))
        while pos < size and data[pos]:
            pos += data[pos] + 1
            budget -= 1
            if budget < 0:
                raise HeaderError("it has too many blocks")
        pos += 1
    return False
