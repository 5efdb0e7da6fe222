"""PNG: its blocks to the end, which of them are an animation, and what is transparent."""

from __future__ import annotations

import struct

from pigeonholed.formats.header import MAX_BLOCKS, Alpha, Format, Header, HeaderError
from pigeonholed.formats.orientation import exif_orientation

_END = b"IEND\xaeB`\x82"
_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise HeaderError("its first block is no PNG header")
    return width, height


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    width, height = size_of(data)
    depth, colour = data[24], data[25]
    orientation, complete, kinds = 1, False, set[bytes]()
    transparent = colour in {4, 6}
    grey = None
    pos, size = 8, len(data)
    for _ in range(MAX_BLOCKS):
        if pos + 12 > size:
            break
        length, kind = struct.unpack_from(">I4s", data, pos)
        kinds.add(kind)
        if kind == b"tRNS":
            transparent = True
            if colour == 0 and length == 2:  # OpenCV hands a grey picture over without it
                grey = _grey(int.from_bytes(data[pos + 8 : pos + 10], "big"), depth)
        elif kind == b"eXIf":
            orientation = exif_orientation(data[pos + 8 : pos + 8 + length])
        elif kind == b"IEND":
            complete = length == 0  # whatever it says, libpng would make room for
            break
        pos += 12 + length
    if not complete and _END in data[-64:]:
        raise HeaderError("its blocks do not fit together")  # the end is there, so what is wrong is not the end
    if complete and b"IDAT" not in kinds:  # OpenCV would look on behind the end, and make room for what stands there
        raise HeaderError("it ends without any pixels")
    alpha = Alpha.STRAIGHT if transparent else Alpha.NONE
    animated = not kinds.isdisjoint(_ANIMATION)
    return Header(Format.PNG, width, height, orientation, alpha, complete, grey, animated=animated)


def _grey(value: int, depth: int) -> int:
    """A grey value of `depth` bits as OpenCV has it: of 16 bits, or spread over 8."""
    return value if depth == 16 else value * 255 // ((1 << depth) - 1 or 1)


def still(data: bytes) -> bytes:
    """The first picture of an animated PNG alone: the file without the blocks that the animation added, and no junk.

    Args:
        data: a file whose header `read_header` found complete.
    """
    parts, pos, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, pos)
        if kind not in _ANIMATION:
            parts.append(data[pos : pos + 12 + length])
        pos += 12 + length
    return b"".join(parts)
