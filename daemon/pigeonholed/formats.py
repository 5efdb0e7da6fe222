"""What a file is and whether its end is there, told from its bytes and never from its name.

Nothing here decodes a pixel: headers and block lengths are read with `struct`, payloads are only skipped or searched.
Offsets, tags and flags are those of the JPEG (ITU T.81), PNG, GIF89a, WebP container, BMP and TIFF 6.0 documents.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import Enum, StrEnum

import numpy as np

# Real files stay far below these. They bound the time that a file made of nothing but tiny blocks can cost.
_MAX_SEGMENTS = 20_000
_MAX_BLOCKS = 4_000_000
_MAX_ENTRIES = 200_000  # of all directories of a TIFF
_MAX_VALUES = 16_000_000  # strips and tiles of all of them

_JPEG_END = b"\xff\xd9"
_JPEG_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_JPEG_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
_PNG_END = b"IEND\xaeB`\x82"
_PNG_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})
_HEIF_BRANDS = frozenset({b"mif1", b"mif2", b"mif3", b"msf1", b"vvic", b"j2ki", b"jpeg", b"hevc", b"hevx"})
_TIFF_EXTENTS = (273, 279, 324, 325)  # where strips and tiles begin, and their bytes
_TIFF_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class Format(StrEnum):
    """A picture format that is recognised by content; HEIF and AVIF are decoded only with the extra `heif`."""

    JPEG = "jpeg"
    PNG = "png"
    WEBP = "webp"
    BMP = "bmp"
    TIFF = "tiff"
    GIF = "gif"
    HEIF = "heif"
    AVIF = "avif"


_STARTS = {
    b"\xff\xd8\xff": Format.JPEG,
    b"\x89PNG\r\n\x1a\n": Format.PNG,
    b"GIF87a": Format.GIF,
    b"GIF89a": Format.GIF,
    b"II*\0": Format.TIFF,
    b"MM\0*": Format.TIFF,
    b"II+\0": Format.TIFF,  # BigTIFF
    b"MM\0+": Format.TIFF,
}
_ENDS = {
    Format.JPEG: _JPEG_END,
    Format.PNG: b"IEND",
    Format.GIF: b"\0;",  # the trailer follows the zero that ends the last block
}


class Alpha(Enum):
    """Whether a picture may be see-through, and how OpenCV hands its colours over."""

    NONE = 0
    STRAIGHT = 1
    PREMULTIPLIED = 2


@dataclass(frozen=True, slots=True)
class Header:
    """What the container says of a picture before a pixel is decoded.

    Attributes:
        format: the container.
        width: pixels as stored, before `orientation`.
        height: pixels as stored, before `orientation`.
        orientation: EXIF orientation 1 .. 8; 1 where there is none or it is nonsense.
        alpha: whether transparency is to be expected.
        complete: whether the end of the file is there.
        transparent_grey: the grey value that a PNG without an alpha channel declares transparent.
        scans: passes over the whole picture that decoding takes; over 1 only in a JPEG.
        animated: whether a PNG holds further pictures, which `still_png` leaves out.
    """

    format: Format
    width: int
    height: int
    orientation: int = 1
    alpha: Alpha = Alpha.NONE
    complete: bool = True
    transparent_grey: int | None = None
    scans: int = 1
    animated: bool = False


class HeaderError(Exception):
    """The header cannot be read; `truncated` tells a header that is cut off from one that is wrong."""

    def __init__(self, detail: str, *, truncated: bool = False) -> None:
        super().__init__(detail)
        self.truncated = truncated


def sniff(head: bytes) -> Format | None:
    """Name the format of a file from its first bytes; 64 are enough.

    Returns:
        None where the content is of no format known here.
    """
    for start, form in _STARTS.items():
        if head.startswith(start):
            return form
    if head.startswith(b"RIFF"):
        return Format.WEBP if head[8:12] == b"WEBP" else None
    if head.startswith(b"BM"):
        # Two letters also begin many a text; the size of the second header is a small number only in a bitmap.
        return Format.BMP if len(head) >= 18 and 12 <= int.from_bytes(head[14:18], "little") < 4096 else None
    return _sniff_heif(head) if head[4:8] == b"ftyp" else None


def _sniff_heif(head: bytes) -> Format | None:
    """Tell AVIF from HEIF by the brands of an ISO media file; other media files (video) are None."""
    end = min(int.from_bytes(head[:4], "big"), len(head))
    brands = {head[8:12], *(head[i : i + 4] for i in range(16, end - 3, 4))}
    if brands & {b"avif", b"avis"}:
        return Format.AVIF
    return Format.HEIF if brands & _HEIF_BRANDS or any(b.startswith((b"hei", b"hev")) for b in brands) else None


def boxes_are_complete(size: int, read: Callable[[int, int], bytes]) -> bool:
    """Tell whether the outermost boxes of a HEIF or AVIF file (ISO 14496-12) end where the file does, or before.

    One of them must say what is in the others. Files that are written elsewhere are cut between two boxes, too.

    Args:
        size: bytes of the file.
        read: returns bytes of it, from an offset and as many as a number says, or fewer at its end.
    """
    pos, described = 0, False
    for _ in range(_MAX_SEGMENTS):
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
    for _ in range(_MAX_SEGMENTS):
        pos = data.find(b"ispe", pos) + 4
        if pos < 4 or pos + 12 > len(data):
            break
        width, height = struct.unpack_from(">II", data, pos + 4)
        most = max(most, width * height)
    return most


def is_start_of_a_picture(data: bytes) -> bool:
    """Tell whether a few bytes, too few for `sniff`, are how a picture begins: a file cut inside its signature."""
    if data.startswith(b"BM") and len(data) < 18:
        return not data[6:10].strip(b"\0")
    if data.startswith(b"RIFF") and len(data) < 12:
        return b"WEBP".startswith(data[8:])
    return len(data) >= 2 and any(len(data) < len(start) and start.startswith(data) for start in _STARTS)


def describe(head: bytes) -> str:
    """Say in a few words what content of no known format is, for the message that refuses it."""
    starts = {
        b"%PDF": "a PDF document",
        b"%!PS": "a PostScript file",
        b"PK\x03\x04": "a ZIP archive or an office document",
        b"\x1f\x8b": "a gzip archive",
        b"\x7fELF": "a program",
        b"\0\0\0\x0cjP": "a JPEG 2000 picture",
        b"\xff\x4f\xff\x51": "a JPEG 2000 picture",
        b"8BPS": "a Photoshop document",
        b"\0\0\1\0": "an icon",
        b"DDS ": "a DirectDraw texture",
    }
    for start, name in starts.items():
        if head.startswith(start):
            return name
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"<svg") or (text.startswith(b"<?xml") and b"svg" in text):
        return "an SVG drawing"
    if text.startswith((b"<!doctype html", b"<html")):
        return "a web page"
    if not head.strip(b"\0"):
        return "nothing but zero bytes"
    # A head may end inside a character; what has no control characters is text for this purpose.
    words = head.decode("utf-8", errors="replace")[:-3] or "\0"
    is_text = all(c.isprintable() or c in "\t\r\n" for c in words) and "\ufffd" not in words
    return "text" if is_text else "nothing that is known here"


def end_is_missing(head: bytes, tail: bytes, size: int) -> bool:
    """Tell, without reading the file, whether it is a picture whose end has not arrived yet.

    Meant for a watcher that waits a bounded time. Where it says False the file may still be cut; `read_header` looks
    closer. It says True of a whole picture only if more than a tail of junk or padding follows the picture's end.

    Args:
        head: the first bytes of the file, 64 or all.
        tail: the last bytes of the file, 64 or all.
        size: bytes of the file.

    Returns:
        True only for a known format; unknown content and an empty file give False.
    """
    form = sniff(head)
    if form in _ENDS:
        return _ENDS[form] not in tail
    try:
        if form is Format.WEBP:
            return _webp_needs(head) > size
        if form is Format.BMP:
            return _bmp_needs(head) > size
        if form is Format.TIFF:
            return _tiff_layout(head).first >= size
    except struct.error:
        return True
    return False


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Read (width, height) in pixels, as stored (before EXIF orientation), from the header alone.

    `data` may be the beginning of a file. None where the content is of no format known here, is HEIF or AVIF, or where
    the header is damaged or cut off.
    """
    form = sniff(data[:64])
    reader = _SIZES.get(form) if form else None
    if reader is None:
        return None
    try:
        width, height = reader(data)
    except (HeaderError, struct.error, IndexError, OverflowError):
        return None
    return (width, height) if width > 0 and height > 0 else None


def read_header(data: bytes, form: Format) -> Header:
    """Read everything about a picture that can be known before decoding, its completeness included.

    Args:
        data: the whole file.
        form: its format, as `sniff` gave it; not HEIF or AVIF.

    Raises:
        HeaderError: the header is cut off (`truncated`) or makes no sense.
    """
    try:
        header = _HEADERS[form](data)
    except (struct.error, IndexError, OverflowError):
        raise HeaderError("it is cut off inside its header", truncated=True) from None
    if header.width <= 0 or header.height <= 0:
        raise HeaderError(f"its header says {header.width} x {header.height} pixels")
    return header


# ---- JPEG


def _jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment's payload up to and including the first start of scan."""
    pos = 2
    for _ in range(_MAX_SEGMENTS):
        if data[pos] != 0xFF:  # decoders skip rubbish between segments, and so must we
            pos = data.find(b"\xff", pos)
            if pos < 0:
                raise IndexError
        marker = data[pos + 1]
        if marker == 0xFF:  # fill byte
            pos += 1
        elif marker in {0x00, 0x01} or 0xD0 <= marker <= 0xD7:  # stuffed zero and markers without a payload
            pos += 2
        elif marker in {0xD8, 0xD9}:
            raise HeaderError("it has no picture data between its start and its end")
        else:
            (length,) = struct.unpack_from(">H", data, pos + 2)
            if length < 2:
                raise HeaderError("a segment of its header has an impossible length")
            yield marker, pos + 4, pos + 2 + length
            if marker == 0xDA:
                return
            pos += 2 + length
    raise HeaderError("its header has too many segments")


def _jpeg_size(data: bytes) -> tuple[int, int]:
    for marker, start, _ in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
            return width, height
    raise HeaderError("its header does not say how large it is")


def _jpeg_header(data: bytes) -> Header:
    frame = width = height = components = scan = scanned = 0
    orientation = None
    for marker, start, end in _jpeg_segments(data):
        if marker in _JPEG_FRAMES:
            frame = marker
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
        elif marker == 0xE1 and orientation is None and data.startswith(b"Exif\0\0", start):
            orientation = _exif_orientation(data[start + 6 : end])
        scan, scanned = end, data[start]
    if not frame:
        raise HeaderError("its header does not say how large it is")
    # Inside a scan 0xFF is always followed by a stuffed zero or a restart, so the first end marker is the real one.
    # A search beginning after the header cannot meet the one of an embedded thumbnail.
    end = len(data) - 2 if data.endswith(_JPEG_END) and len(data) - 2 >= scan else data.find(_JPEG_END, scan)
    scans = 1
    if frame in _JPEG_PROGRESSIVE or scanned < components:  # else libjpeg reads one scan and no more
        scans += data.count(b"\xff\xda", scan, end if end >= 0 else len(data))
    return Header(Format.JPEG, width, height, orientation or 1, complete=end >= 0, scans=scans)


def _exif_orientation(block: bytes) -> int:
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


# ---- PNG


def _png_size(data: bytes) -> tuple[int, int]:
    kind, width, height = struct.unpack_from(">4sII", data, 12)
    if kind != b"IHDR":
        raise HeaderError("its first block is no PNG header")
    return width, height


def _png_header(data: bytes) -> Header:
    width, height = _png_size(data)
    depth, colour = data[24], data[25]
    orientation, complete, kinds = 1, False, set[bytes]()
    transparent = colour in {4, 6}
    grey = None
    pos, size = 8, len(data)
    for _ in range(_MAX_BLOCKS):
        if pos + 12 > size:
            break
        length, kind = struct.unpack_from(">I4s", data, pos)
        kinds.add(kind)
        if kind == b"tRNS":
            transparent = True
            if colour == 0 and length == 2:  # OpenCV hands a grey picture over without it
                grey = _grey(int.from_bytes(data[pos + 8 : pos + 10], "big"), depth)
        elif kind == b"eXIf":
            orientation = _exif_orientation(data[pos + 8 : pos + 8 + length])
        elif kind == b"IEND":
            complete = length == 0  # whatever it says, libpng would make room for
            break
        pos += 12 + length
    if not complete and _PNG_END in data[-64:]:
        raise HeaderError("its blocks do not fit together")  # the end is there, so what is wrong is not the end
    if (
        complete and b"IDAT" not in kinds
    ):  # OpenCV would look on behind the end, and make room for whatever stands there
        raise HeaderError("it ends without any pixels")
    alpha = Alpha.STRAIGHT if transparent else Alpha.NONE
    return Header(
        Format.PNG, width, height, orientation, alpha, complete, grey, animated=not kinds.isdisjoint(_PNG_ANIMATION)
    )


def _grey(value: int, depth: int) -> int:
    """A grey value of `depth` bits as OpenCV has it: of 16 bits, or spread over 8."""
    return value if depth == 16 else value * 255 // ((1 << depth) - 1 or 1)


def still_png(data: bytes) -> bytes:
    """The first picture of an animated PNG alone: the file without the blocks that the animation added, and no junk.

    Args:
        data: a file whose header `read_header` found complete.
    """
    parts, pos, kind = [data[:8]], 8, b""
    while kind != b"IEND":
        length, kind = struct.unpack_from(">I4s", data, pos)
        if kind not in _PNG_ANIMATION:
            parts.append(data[pos : pos + 12 + length])
        pos += 12 + length
    return b"".join(parts)


# ---- GIF


def _gif_size(data: bytes) -> tuple[int, int]:
    width, height = struct.unpack_from("<HH", data, 6)
    return width, height


def _gif_header(data: bytes) -> Header:
    width, height = _gif_size(data)
    return Header(Format.GIF, width, height, alpha=Alpha.STRAIGHT, complete=_gif_is_complete(data))


def _colour_table(flags: int) -> int:
    """Bytes of the colour table that a GIF's packed field announces."""
    return 3 * (2 << (flags & 7)) if flags & 0x80 else 0


def _gif_is_complete(data: bytes) -> bool:
    """Walk the blocks to the trailer. A frame is only as good as its file: an animation that is cut is cut."""
    pos, size, budget = 13 + _colour_table(data[10]), len(data), _MAX_BLOCKS
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


# ---- WebP


def _webp_needs(data: bytes) -> int:
    """Bytes that the file must have by its own account."""
    return int(struct.unpack_from("<I", data, 4)[0]) + 8


def _webp_size(data: bytes) -> tuple[int, int]:
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


def _webp_header(data: bytes) -> Header:
    width, height = _webp_size(data)
    kind = data[12:16]
    transparent, orientation = False, 1
    if kind == b"VP8L":
        transparent = bool(data[24] & 0x10)
    elif kind == b"VP8X":
        transparent = bool(data[20] & 0x10)
        orientation = _webp_orientation(data) if data[20] & 0x08 else 1
    alpha = Alpha.STRAIGHT if transparent else Alpha.NONE
    return Header(Format.WEBP, width, height, orientation, alpha, complete=_webp_needs(data) <= len(data))


def _webp_orientation(data: bytes) -> int:
    pos = 12
    for _ in range(_MAX_SEGMENTS):
        if pos + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, pos)
        if kind == b"EXIF":
            return _exif_orientation(data[pos + 8 : pos + 8 + length].removeprefix(b"Exif\0\0"))
        pos += 8 + length + (length & 1)
    return 1


# ---- BMP


def _bmp_shape(data: bytes) -> tuple[int, int, int, int]:
    """Read (width, height, bits a pixel, compression); the height of a top-down picture is negative."""
    (second,) = struct.unpack_from("<I", data, 14)
    if second < 16:  # OS/2 1.x: 16-bit fields and no compression
        width, height, _, depth = struct.unpack_from("<HHHH", data, 18)
        return width, height, depth, 0
    width, height, _, depth, compression = struct.unpack_from("<iiHHI", data, 18)
    return width, height, depth, compression


def _bmp_size(data: bytes) -> tuple[int, int]:
    width, height, _, _ = _bmp_shape(data)
    return width, abs(height)


def _bmp_needs(data: bytes) -> int:
    """Bytes that the file must have: by its geometry, since many writers leave rubbish in the field for the size."""
    width, height, depth, compression = _bmp_shape(data)
    declared, start = struct.unpack_from("<I4xI", data, 2)
    if compression in {0, 3, 6}:
        return int(start) + (max(width, 0) * depth + 31) // 32 * 4 * abs(height)
    return int(declared)


def _bmp_header(data: bytes) -> Header:
    width, height = _bmp_size(data)
    _, _, depth, compression = _bmp_shape(data)
    if depth not in {0, 1, 2, 4, 8, 16, 24, 32}:
        raise HeaderError(f"its header says {depth} bits a pixel")
    # Only headers from version 3 on name an alpha mask; in older ones the fourth byte of a pixel means nothing.
    masked = depth == 32 and compression in {3, 6} and data[14] >= 56 and data[66:70].strip(b"\0") != b""
    alpha = Alpha.STRAIGHT if masked else Alpha.NONE
    return Header(Format.BMP, width, height, alpha=alpha, complete=_bmp_needs(data) <= len(data))


# ---- TIFF


@dataclass(frozen=True, slots=True)
class _TiffLayout:
    """How a TIFF writes its directories: byte order, struct formats and sizes, and where the first one is."""

    order: str
    number: str  # of an entry's count and offset
    width: int  # bytes of `number`
    counter: str  # of the number of entries
    first: int


def _tiff_layout(data: bytes) -> _TiffLayout:
    order = "<" if data.startswith(b"II") else ">"
    if 0x2B in data[2:4]:  # BigTIFF
        return _TiffLayout(order, "Q", 8, "Q", int(struct.unpack_from(order + "Q", data, 8)[0]))
    return _TiffLayout(order, "I", 4, "H", int(struct.unpack_from(order + "I", data, 4)[0]))


_Entries = dict[int, tuple[int, int, int]]
"""Tag -> (type, count, position of the values in the file)."""


def _tiff_directory(data: bytes, layout: _TiffLayout, at: int) -> tuple[_Entries, int]:
    """Read one directory: its entries, and where the next one is (0: nowhere)."""
    (count,) = struct.unpack_from(layout.order + layout.counter, data, at)
    if count > 4096:
        raise HeaderError("its directory has an impossible number of entries")
    entry, room = layout.order + "HH" + layout.number, 4 + layout.width
    pos = at + struct.calcsize(layout.order + layout.counter)
    entries: _Entries = {}
    for _ in range(count):
        tag, kind, number = struct.unpack_from(entry, data, pos)
        value = pos + room
        if _TIFF_SIZES.get(kind, 0) * number > layout.width:
            (value,) = struct.unpack_from(layout.order + layout.number, data, value)
        entries.setdefault(tag, (kind, number, value))
        pos += room + layout.width
    (following,) = struct.unpack_from(layout.order + layout.number, data, pos)
    return entries, following


def _tiff_values(data: bytes, layout: _TiffLayout, entries: _Entries, tag: int) -> np.ndarray[tuple[int], np.dtype]:
    """Read the unsigned whole numbers of a tag; none where it is absent.

    Raises:
        IndexError: they lie beyond the end of the file.
    """
    kind, count, at = entries.get(tag, (3, 0, 0))
    size = {1: 1, 3: 2, 4: 4, 16: 8}.get(kind)
    if size is None or count == 0:
        return np.zeros(0, np.uint64)
    if at + size * count > len(data):
        raise IndexError
    return np.frombuffer(data, f"{layout.order}u{size}", count, at).astype(np.uint64)


def _tiff_size(data: bytes) -> tuple[int, int]:
    layout = _tiff_layout(data)
    entries, _ = _tiff_directory(data, layout, layout.first)
    return _tiff_extent(data, layout, entries)


def _tiff_extent(data: bytes, layout: _TiffLayout, entries: _Entries) -> tuple[int, int]:
    width, height = (_tiff_values(data, layout, entries, tag) for tag in (256, 257))
    if not (width.size and height.size):
        raise HeaderError("its directory does not say how large it is")
    return int(width[0]), int(height[0])


def _tiff_header(data: bytes) -> Header:
    layout = _tiff_layout(data)
    entries, _ = _tiff_directory(data, layout, layout.first)
    width, height = _tiff_extent(data, layout, entries)

    def first(tag: int, default: int) -> int:
        values = _tiff_values(data, layout, entries, tag)
        return int(values[0]) if values.size else default

    orientation, extra = first(274, 1), first(338, 0)
    alpha = Alpha.NONE
    if extra in {1, 2}:  # libtiff multiplies the colours of 8-bit pictures itself
        alpha = Alpha.PREMULTIPLIED if extra == 1 or first(258, 1) == 8 else Alpha.STRAIGHT
    complete = _tiff_is_complete(data, layout)
    return Header(Format.TIFF, width, height, orientation if 1 <= orientation <= 8 else 1, alpha, complete)


def _tiff_is_complete(data: bytes, layout: _TiffLayout) -> bool:
    """Follow all directories: their values, strips and tiles must all lie inside the file."""
    at, seen = layout.first, set[int]()
    # Directories may share their bytes, so that the size of the file bounds nothing.
    many_entries, many_values = _MAX_ENTRIES, _MAX_VALUES
    try:
        while at and at not in seen and len(seen) < 4096:
            seen.add(at)
            entries, at = _tiff_directory(data, layout, at)
            many_entries -= len(entries)
            many_values -= sum(entries[tag][1] for tag in _TIFF_EXTENTS if tag in entries)
            if many_entries < 0 or many_values < 0:
                raise HeaderError("its directories hold too much")
            if any(pos + _TIFF_SIZES.get(kind, 0) * n > len(data) for kind, n, pos in entries.values()):
                return False
            for starts, lengths in (_TIFF_EXTENTS[:2], _TIFF_EXTENTS[2:]):
                start = _tiff_values(data, layout, entries, starts)
                length = _tiff_values(data, layout, entries, lengths)
                n = min(start.size, length.size)
                if n and int((start[:n] + length[:n]).max()) > len(data):
                    return False
    except (struct.error, IndexError, OverflowError):
        return False
    return True


_SIZES: dict[Format, Callable[[bytes], tuple[int, int]]] = {
    Format.JPEG: _jpeg_size,
    Format.PNG: _png_size,
    Format.GIF: _gif_size,
    Format.WEBP: _webp_size,
    Format.BMP: _bmp_size,
    Format.TIFF: _tiff_size,
}
_HEADERS: dict[Format, Callable[[bytes], Header]] = {
    Format.JPEG: _jpeg_header,
    Format.PNG: _png_header,
    Format.GIF: _gif_header,
    Format.WEBP: _webp_header,
    Format.BMP: _bmp_header,
    Format.TIFF: _tiff_header,
}
