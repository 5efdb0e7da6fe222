"""BMP, of all versions from OS/2 1.x on."""

from __future__ import annotations

import struct

from pigeonholed.formats.header import Alpha, Format, Header, HeaderError


def needs(data: bytes) -> int:
    """Bytes that the file must have: by its geometry, since many writers leave rubbish in the field for the size."""
    width, height, depth, compression = _shape(data)
    declared, start = struct.unpack_from("<I4xI", data, 2)
    if compression in {0, 3, 6}:
        return int(start) + (max(width, 0) * depth + 31) // 32 * 4 * abs(height)
    return int(declared)


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    width, height, _, _ = _shape(data)
    return width, abs(height)


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    width, height = size_of(data)
    _, _, depth, compression = _shape(data)
    if depth not in {0, 1, 2, 4, 8, 16, 24, 32}:
        raise HeaderError(f"its header says {depth} bits a pixel")
    # Only headers from version 3 on name an alpha mask; in older ones the fourth byte of a pixel means nothing.
    masked = depth == 32 and compression in {3, 6} and data[14] >= 56 and data[66:70].strip(b"\0") != b""
    alpha = Alpha.STRAIGHT if masked else Alpha.NONE
    return Header(Format.BMP, width, height, alpha=alpha, complete=needs(data) <= len(data))


def _shape(data: bytes) -> tuple[int, int, int, int]:
    """Read (width, height, bits a pixel, compression); the height of a top-down picture is negative."""
    (second,) = struct.unpack_from("<I", data, 14)
    if second < 16:  # OS/2 1.x: 16-bit fields and no compression
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        return width, height, depth, 0
    width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    return width, height, depth, compression
