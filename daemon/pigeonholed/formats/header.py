"""What the container of a picture says of it before a pixel is decoded."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, StrEnum

# Real files stay far below these. They bound the time that a file made of nothing but tiny blocks can cost.
MAX_SEGMENTS = 20_000
MAX_BLOCKS = 4_000_000


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
