"""Looking at the files of a data set, one by one: what each is, whatever it is called, and what it looks like."""

from __future__ import annotations

import hashlib
import itertools
import os
import stat
from collections import deque
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from pigeonholed import imaging
from pigeonholed.formats import Alpha, Format, HeaderError, read_header, sniff
from pigeonholed.images import Reason
from pigeonholed_training.data.decoding import thumbnail_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed_training.data.sources import Entry, Listing
    from pigeonholed_training.data.splitting import Part

_SPEC: Final = imaging.PixelSpec(height=32, width=32)
_CHUNK: Final = 16  # files a task
_MAX_BYTES: Final = 500_000_000  # as the daemon's default
_COLOURED: Final = 8  # grey levels between the channels of a pixel from which on a person sees a colour
_SAVING_COSTS: Final = 0.15  # standard deviations of a picture, in any 64th of it
_SUFFIXES: Final[Mapping[str, Format]] = {
    ".jpg": Format.JPEG,
    ".jpeg": Format.JPEG,
    ".jpe": Format.JPEG,
    ".jfif": Format.JPEG,
    ".png": Format.PNG,
    ".webp": Format.WEBP,
    ".bmp": Format.BMP,
    ".dib": Format.BMP,
    ".tif": Format.TIFF,
    ".tiff": Format.TIFF,
    ".gif": Format.GIF,
    ".heic": Format.HEIF,
    ".heif": Format.HEIF,
    ".avif": Format.AVIF,
}


@dataclass(frozen=True, slots=True)
class Inspected:
    """A file of the data set.

    Attributes:
        path: as the source has it.
        target: its class, index into the labels.
        part: of the split, where the source says so.
        size_bytes: of the file; 0 where it cannot be read.
        sha256: of its bytes, hex; empty where it is no picture.
        format: by content, None where that is unknown.
        width: in pixels, upright; 0 where it is no picture.
        height: the same.
        orientation: of EXIF, 1 is upright.
        is_grey: nothing in it has a colour.
        has_alpha: it can be see-through.
        reason: why it is no picture, of the daemon's vocabulary; empty where it is one.
        detail: the same for people.
    """

    path: str
    target: int
    part: Part | None
    size_bytes: int = 0
    sha256: str = ""
    format: Format | None = None
    width: int = 0
    height: int = 0
    orientation: int = 1
    is_grey: bool = False
    has_alpha: bool = False
    reason: str = ""
    detail: str = ""

    @property
    def is_picture(self) -> bool:
        """Whether it can be decoded."""
        return not self.reason

    @property
    def called(self) -> Format | None:
        """The format that its name promises; None where it promises none."""
        return _SUFFIXES.get(os.path.splitext(self.path)[1].lower())

    @property
    def is_misnamed(self) -> bool:
        """Whether it is a picture of another format than its name says, or its name is none of a picture."""
        return self.is_picture and self.called is not self.format


def inspect(
    listing: Listing, *, workers: int = 0, on_picture: Callable[[int, int], None] = lambda _done, _total: None
) -> tuple[tuple[Inspected, ...], npt.NDArray[np.uint8]]:
    """Reads and decodes every file once, in threads; none of them ends it.

    Args:
        listing: the data set.
        workers: threads; 0 is one for each CPU that this process may use.
        on_picture: told (done, total) as it goes.

    Returns:
        What each entry is, in order, and uint8 [N, 256], the picture squeezed to 16x16 in grey; 0 where there is none.
    """
    total = len(listing.entries)
    found: list[Inspected] = []
    thumbnails = np.zeros((total, 256), np.uint8)
    for inspected, thumbnail in _inspected(listing.root, listing.entries, workers or len(os.sched_getaffinity(0))):
        if thumbnail is not None:
            thumbnails[len(found)] = thumbnail
        found.append(inspected)
        on_picture(len(found), total)
    return tuple(found), thumbnails


_Result = tuple[Inspected, "npt.NDArray[np.uint8] | None"]


def _inspected(root: Path, entries: Sequence[Entry], threads: int) -> Iterator[_Result]:
    """What each entry is, in order; few of them are in memory at a time."""
    chunks = iter([entries[start : start + _CHUNK] for start in range(0, len(entries), _CHUNK)])

    def work(chunk: Sequence[Entry]) -> list[_Result]:
        return [_inspect_file(root, entry) for entry in chunk]

    pool = ThreadPoolExecutor(threads, "inspect")
    try:
        waiting: deque[Future[list[_Result]]] = deque(
            pool.submit(work, chunk) for chunk in itertools.islice(chunks, 2 * threads)
        )
        while waiting:
            results = waiting.popleft().result()
            waiting.extend(pool.submit(work, chunk) for chunk in itertools.islice(chunks, 1))
            yield from results
    finally:
        pool.shutdown(cancel_futures=True)


def _inspect_file(root: Path, entry: Entry) -> _Result:
    try:
        data, size = _read(os.path.join(root, entry.path))
    except (OSError, ValueError) as fault:
        return _refused(entry, 0, "io-error", getattr(fault, "strerror", None) or str(fault))
    except MemoryError:
        return _refused(entry, 0, str(Reason.TOO_LARGE), "the file does not fit into memory")
    if data is None:
        return _refused(entry, size, str(Reason.TOO_LARGE), f"{size} bytes, {_MAX_BYTES} are allowed")
    try:
        return _as_picture(entry, data)
    except imaging.ImagingError as fault:
        return _refused(entry, size, str(fault.reason), fault.detail, sniff(data[:64]))
    except MemoryError:
        return _refused(entry, size, str(Reason.TOO_LARGE), "the picture does not fit into memory", sniff(data[:64]))


def _refused(entry: Entry, size: int, reason: str, detail: str, form: Format | None = None) -> _Result:
    refused = Inspected(
        entry.path, entry.target, entry.part, size_bytes=size, format=form, reason=reason, detail=detail
    )
    return refused, None


def _read(path: str) -> tuple[bytes | None, int]:
    """The bytes of a file, None where there are too many, and how many."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make us wait
    with os.fdopen(fd, "rb", buffering=0) as stream:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        return (stream.read() if status.st_size <= _MAX_BYTES else None), status.st_size


def _as_picture(entry: Entry, data: bytes) -> _Result:
    """Raises ImagingError where it is none."""
    picture = imaging.decode(data, _SPEC)
    form = sniff(data[:64])
    orientation, alpha = _carried(data, form)
    low, high = picture.pixels.min(axis=2), picture.pixels.max(axis=2)
    inspected = Inspected(
        entry.path,
        entry.target,
        entry.part,
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        format=form,
        width=picture.width,
        height=picture.height,
        orientation=orientation,
        is_grey=bool((high - low < _COLOURED).all()),
        has_alpha=alpha,
    )
    return inspected, thumbnail_of(picture.pixels)


def _carried(data: bytes, form: Format | None) -> tuple[int, bool]:
    """The EXIF orientation, and whether there is an alpha channel."""
    if form is None or form in {Format.HEIF, Format.AVIF}:
        return 1, False
    try:
        header = read_header(data, form)
    except HeaderError:
        return 1, False
    return header.orientation, header.alpha is not Alpha.NONE


def are_saved_anew(root: Path, one: Inspected, other: Inspected) -> bool:
    """Whether two near-duplicates agree in every place, apart from brightness, contrast and what saving costs.

    False where a detail differs, as a crack in a part that is photographed before and after, or where one of them is
    mirrored or cropped, or cannot be read any more.
    """
    try:
        left, right = (_standardised(os.path.join(root, file.path)) for file in (one, other))
    except (OSError, ValueError, imaging.ImagingError):
        return False
    blocks = np.square(left - right).reshape(8, 16, 8, 16).mean(axis=(1, 3))
    return bool(np.sqrt(blocks.max()) <= _SAVING_COSTS)


def _standardised(path: str) -> npt.NDArray[np.float32]:
    """float32 [128, 128]: grey, slightly blurred, with mean 0 and standard deviation 1."""
    data, _ = _read(path)
    pixels = imaging.decode(data or b"", imaging.PixelSpec(height=128, width=128)).pixels
    grey = cv2.GaussianBlur(cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY).astype(np.float32), (0, 0), 1.0)
    return np.asarray((grey - grey.mean()) / max(float(grey.std()), 1.0), np.float32)
