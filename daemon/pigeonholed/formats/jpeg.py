"""JPEG (ITU T.81): its segments up to the first scan, and how many scans there are."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from pigeonholed.formats.header import MAX_SEGMENTS, Format, Header, HeaderError
from pigeonholed.formats.orientation import exif_orientation

END = b"\xff\xd9"
_FRAMES = frozenset({*range(0xC0, 0xD0)} - {0xC4, 0xC8, 0xCC})
_PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    for marker, start, _ in _segments(data):
        if marker in _FRAMES:
            height, width = struct.unpack_from(">HH", data, start + 1)
            return width, height
    raise HeaderError("its header does not say how large it is")


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    frame = width = height = components = scan = scanned = 0
    orientation = None
    for marker, start, end in _segments(data):
        if marker in _FRAMES:
            frame = marker
            height, width, components = struct.unpack_from(">HHB", data, start + 1)
        elif marker == 0xE1 and orientation is None and data.startswith(b"Exif\0\0", start):
            orientation = exif_orientation(data[start + 6 : end])
        scan, scanned = end, data[start]
    if not frame:
        raise HeaderError("its header does not say how large it is")
    # Inside a scan 0xFF is always followed by a stuffed zero or a restart, so the first end marker is the real one.
    # A search beginning after the header cannot meet the one of an embedded thumbnail.
    end = len(data) - 2 if data.endswith(END) and len(data) - 2 >= scan else data.find(END, scan)
    scans = 1
    if frame in _PROGRESSIVE or scanned < components:  # else libjpeg reads one scan and no more
        scans += data.count(b"\xff\xda", scan, end if end >= 0 else len(data))
    return Header(Format.JPEG, width, height, orientation or 1, complete=end >= 0, scans=scans)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield (marker, start, end) of each segment's payload up to and including the first start of scan."""
    pos = 2
    for _ in range(MAX_SEGMENTS):
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
