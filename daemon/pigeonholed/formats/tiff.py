"""TIFF 6.0 and BigTIFF: all directories, and whether what they point to is there."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np

from pigeonholed.formats.header import Alpha, Format, Header, HeaderError

_MAX_ENTRIES = 200_000  # of all directories of a TIFF
_MAX_VALUES = 16_000_000  # strips and tiles of all of them
_EXTENTS = (273, 279, 324, 325)  # where strips and tiles begin, and their bytes
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


@dataclass(frozen=True, slots=True)
class Layout:
    """How a TIFF writes its directories: byte order, struct formats and sizes, and where the first one is."""

    order: str
    number: str  # of an entry's count and offset
    width: int  # bytes of `number`
    counter: str  # of the number of entries
    first: int


def layout_of(data: bytes) -> Layout:
    """Read it; the first bytes are enough."""
    order = "<" if data.startswith(b"II") else ">"
    if 0x2B in data[2:4]:  # BigTIFF
        return Layout(order, "Q", 8, "Q", int(struct.unpack_from(order + "Q", data, 8)[0]))
    return Layout(order, "I", 4, "H", int(struct.unpack_from(order + "I", data, 4)[0]))


_Entries = dict[int, tuple[int, int, int]]
"""Tag -> (type, count, position of the values in the file)."""


def size_of(data: bytes) -> tuple[int, int]:
    """Width and height in pixels, as stored; `data` may be the beginning of a file."""
    layout = layout_of(data)
    entries, _ = _directory(data, layout, layout.first)
    return _extent(data, layout, entries)


def header_of(data: bytes) -> Header:
    """Everything that is known before decoding; `data` is the whole file."""
    layout = layout_of(data)
    entries, _ = _directory(data, layout, layout.first)
    width, height = _extent(data, layout, entries)

    def first(tag: int, default: int) -> int:
        values = _values(data, layout, entries, tag)
        return int(values[0]) if values.size else default

    orientation, extra = first(274, 1), first(338, 0)
    alpha = Alpha.NONE
    if extra in {1, 2}:  # libtiff multiplies the colours of 8-bit pictures itself
        alpha = Alpha.PREMULTIPLIED if extra == 1 or first(258, 1) == 8 else Alpha.STRAIGHT
    complete = _is_complete(data, layout)
    return Header(Format.TIFF, width, height, orientation if 1 <= orientation <= 8 else 1, alpha, complete)


def _extent(data: bytes, layout: Layout, entries: _Entries) -> tuple[int, int]:
    width, height = (_values(data, layout, entries, tag) for tag in (256, 257))
    if not (width.size and height.size):
        raise HeaderError("its directory does not say how large it is")
    return int(width[0]), int(height[0])


def _directory(data: bytes, layout: Layout, at: int) -> tuple[_Entries, int]:
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
        if _SIZES.get(kind, 0) * number > layout.width:
            (value,) = struct.unpack_from(layout.order + layout.number, data, value)
        entries.setdefault(tag, (kind, number, value))
        pos += room + layout.width
    (following,) = struct.unpack_from(layout.order + layout.number, data, pos)
    return entries, following


def _values(data: bytes, layout: Layout, entries: _Entries, tag: int) -> np.ndarray[tuple[int], np.dtype]:
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


def _is_complete(data: bytes, layout: Layout) -> bool:
    """Follow all directories: their values, strips and tiles must all lie inside the file."""
    at, seen = layout.first, set[int]()
    # Directories may share their bytes, so that the size of the file bounds nothing.
    many_entries, many_values = _MAX_ENTRIES, _MAX_VALUES
    try:
        while at and at not in seen and len(seen) < 4096:
            seen.add(at)
            entries, at = _directory(data, layout, at)
            many_entries -= len(entries)
            many_values -= sum(entries[tag][1] for tag in _EXTENTS if tag in entries)
            if many_entries < 0 or many_values < 0:
                raise HeaderError("its directories hold too much")
            if any(pos + _SIZES.get(kind, 0) * n > len(data) for kind, n, pos in entries.values()):
                return False
            for starts, lengths in (_EXTENTS[:2], _EXTENTS[2:]):
                start = _values(data, layout, entries, starts)
                length = _values(data, layout, entries, lengths)
                n = min(start.size, length.size)
                if n and int((start[:n] + length[:n]).max()) > len(data):
                    return False
    except (struct.error, IndexError, OverflowError):
        return False
    return True
