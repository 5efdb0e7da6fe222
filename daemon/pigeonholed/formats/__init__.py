"""What a file is and whether its end is there, told from its bytes and never from its name.

Nothing here decodes a pixel: headers and block lengths are read with `struct`, payloads are only skipped or searched.
Offsets, tags and flags are those of the JPEG (ITU T.81), PNG, GIF89a, WebP container, BMP and TIFF 6.0 documents.
"""

from __future__ import annotations

import struct
from typing import Protocol

from pigeonholed.formats import bmp, gif, jpeg, png, tiff, webp
from pigeonholed.formats.boxes import announced_pixels, boxes_are_complete, sniff_boxes
from pigeonholed.formats.header import Alpha, Format, Header, HeaderError
from pigeonholed.formats.png import still as still_png

__all__ = [
    "Alpha",
    "Format",
    "Header",
    "HeaderError",
    "announced_pixels",
    "boxes_are_complete",
    "describe",
    "dimensions",
    "end_is_missing",
    "is_start_of_a_picture",
    "read_header",
    "sniff",
    "still_png",
]

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
    Format.JPEG: jpeg.END,
    Format.PNG: b"IEND",
    Format.GIF: b"\0;",  # the trailer follows the zero that ends the last block
}


class _Reader(Protocol):
    """The module of a format.

    Both raise HeaderError where a header makes no sense; struct.error, IndexError or OverflowError where it is cut off.
    """

    def size_of(self, data: bytes) -> tuple[int, int]:
        """Width and height in pixels, as stored; `data` may be the beginning of a file."""

    def header_of(self, data: bytes) -> Header:
        """Everything that is known before decoding; `data` is the whole file."""


_READERS: dict[Format, _Reader] = {
    Format.JPEG: jpeg,
    Format.PNG: png,
    Format.GIF: gif,
    Format.WEBP: webp,
    Format.BMP: bmp,
    Format.TIFF: tiff,
}


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
    return sniff_boxes(head) if head[4:8] == b"ftyp" else None


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
            return webp.needs(head) > size
        if form is Format.BMP:
            return bmp.needs(head) > size
        if form is Format.TIFF:
            return tiff.layout_of(head).first >= size
    except struct.error:
        return True
    return False


def dimensions(data: bytes) -> tuple[int, int] | None:
    """Read (width, height) in pixels, as stored (before EXIF orientation), from the header alone.

    `data` may be the beginning of a file. None where the content is of no format known here, is HEIF or AVIF, or where
    the header is damaged or cut off.
    """
    form = sniff(data[:64])
    reader = _READERS.get(form) if form else None
    if reader is None:
        return None
    try:
        width, height = reader.size_of(data)
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
        header = _READERS[form].header_of(data)
    except (struct.error, IndexError, OverflowError):
        raise HeaderError("it is cut off inside its header", truncated=True) from None
    if header.width <= 0 or header.height <= 0:
        raise HeaderError(f"its header says {header.width} x {header.height} pixels")
    return header
