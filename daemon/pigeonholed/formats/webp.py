"""The container of WebP."""

from __future__ import annotations

import struct

from pigeonholed.formats.header import MAX_SEGMENTS, Alpha, Format, Header, HeaderError
from pigeonholed.formats.orientation import exif_orientation


def needs(data: bytes) -> int:
    """Bytes that the file must have by its own account."""
    return int(struct.unpack_from("<I", data, 4)[0]) + 8


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        low, high, height = struct.unpack_from("<HBH", data, 24)
        return (low | high << 16) + 1, (height | data[29] << 16) + 1
    if len(data) < 16:
        raise IndexError
    raise HeaderError("its first block is no WebP picture")


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    width, height = size_of(data)
    kind = data[12:16]
    transparent, orientation = False, 1
    if kind == b"VP8L":
        transparent = bool(data[24] & 0x10)
    elif kind == b"VP8X":
        transparent = bool(data[20] & 0x10)
        orientation = _orientation(data) if data[20] & 0x08 else 1
    alpha = Alpha.STRAIGHT if transparent else Alpha.NONE
    return Header(Format.WEBP, width, height, orientation, alpha, complete=needs(data) <= len(data))


def _orientation(data: bytes) -> int:
    pos = 12
    for _ in range(MAX_SEGMENTS):
        if pos + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, pos)
        if kind == b"EXIF":
            return exif_orientation(data[pos + 8 : pos + 8 + length].removeprefix(b"Exif\0\0"))
        pos += 8 + length + (length & 1)
    return 1
