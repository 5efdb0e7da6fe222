"""Decoding many files in threads, in order, with few of them in memory at a time."""

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
from pigeonholed.images import Reason

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from pathlib import Path

    import numpy.typing as npt

THUMBNAIL: Final = 16
"""Side of a thumbnail in pixels."""

_CHUNK: Final = 16  # files a task: handing over one small picture costs as much as decoding it
_MAX_BYTES: Final = 500_000_000  # as the daemon's default
_CHANGES_ITS_MIND: Final = {"io-error", "unsupported", "too-large"}

Stamp = tuple[int, int, int]
"""Size in bytes, mtime and ctime in ns: another one means that a file has changed."""


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture.

    Attributes:
        stamp: of its file when reading began.
        sha256: of its bytes, hex.
        pixels: uint8 RGB [H, W, 3].
        thumbnail: uint8 [256], 16x16 in grey, row by row.
    """

    stamp: Stamp
    sha256: str
    pixels: npt.NDArray[np.uint8]
    thumbnail: npt.NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Refused:
    """No picture: a reason of the daemon's vocabulary, a detail for people, and the stamp where there was a file."""

    reason: str
    detail: str
    stamp: Stamp | None = None

    @property
    def is_final(self) -> bool:
        """Whether these bytes will be refused for ever.

        Not what costs nothing to ask again and may change with the machine: permissions, memory, the extra for HEIF.
        """
        return self.stamp is not None and self.reason not in _CHANGES_ITS_MIND


def stamp_of(status: os.stat_result) -> Stamp:
    """What is compared to find changed files."""
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns


def decode_all(
    root: Path, paths: Sequence[str], spec: imaging.PixelSpec, *, workers: int = 0
) -> Generator[tuple[str, Decoded | Refused]]:
    """Yields each path with what became of it, in order; every file is read once, and none ends the others.

    Args:
        root: what relative paths are relative to.
        paths: of the files.
        spec: the pixels wanted.
        workers: threads; 0 is one for each CPU that this process may use.
    """
    threads = workers or len(os.sched_getaffinity(0))
    chunks = iter([paths[start : start + _CHUNK] for start in range(0, len(paths), _CHUNK)])

    def work(chunk: Sequence[str]) -> list[Decoded | Refused]:
        return [decode_file(os.path.join(root, path), spec) for path in chunk]

    pool = ThreadPoolExecutor(threads, "decode")
    try:
        waiting: deque[tuple[Sequence[str], Future[list[Decoded | Refused]]]] = deque(
            (chunk, pool.submit(work, chunk)) for chunk in itertools.islice(chunks, 2 * threads)
        )
        while waiting:
            done, future = waiting.popleft()
            results = future.result()
            waiting.extend((chunk, pool.submit(work, chunk)) for chunk in itertools.islice(chunks, 1))
            yield from zip(done, results, strict=True)
    finally:
        pool.shutdown(cancel_futures=True)


def decode_file(path: str, spec: imaging.PixelSpec) -> Decoded | Refused:
    """Reads and decodes one file; whatever it is, the answer is a value."""
    try:
        data, stamp = _read(path)
    except (OSError, ValueError) as fault:
        return Refused("io-error", getattr(fault, "strerror", None) or str(fault))
    except MemoryError:
        return Refused("too-large", "the file does not fit into memory")
    if data is None:
        return Refused("too-large", f"{stamp[0]} bytes, {_MAX_BYTES} are allowed", stamp)
    try:
        pixels = imaging.decode(data, spec).pixels
        return Decoded(stamp, hashlib.sha256(data).hexdigest(), pixels, thumbnail_of(pixels))
    except imaging.ImagingError as fault:
        return Refused(str(fault.reason), fault.detail, stamp)
    except MemoryError:
        return Refused(str(Reason.TOO_LARGE), "the picture does not fit into memory", stamp)


def _read(path: str) -> tuple[bytes | None, Stamp]:
    """The bytes of a file, None where there are too many, and its stamp from before."""
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a pipe must not make us wait
    with os.fdopen(fd, "rb", buffering=0) as stream:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is no regular file")
        return (stream.read() if status.st_size <= _MAX_BYTES else None), stamp_of(status)


def thumbnail_of(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """uint8 [256]: a picture uint8 RGB [H, W, 3] as 16x16 pixels in grey, averaged over areas."""
    grey = cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.uint8).reshape(-1)
