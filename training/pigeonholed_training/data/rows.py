"""Rows of pixels in a file, read at random without keeping them in memory."""

from __future__ import annotations

import copy
import mmap
import os
from typing import TYPE_CHECKING, Final

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec

RESIDENT_BYTES: Final = 256 << 20
"""How many bytes of a pixel file may be resident before they are let go, roughly."""

# The kernel maps up to some hundred kB around each row that is touched (fault-around, large folios), so that small rows
# of a large file are gathered by so many at most between two looks at what is resident.
_ROWS_A_LOOK: Final = 128


class Rows:
    """The pixels of pictures, in a file of rows that others may go on appending to. Safe to use from several threads.

    Gathered from a memory map, during which other threads run: `pread` takes and gives the GIL once a row, which is
    three times slower at 32 pixels and a hundred times where another thread computes. The pages of the file are counted
    as ours while they are mapped, so they are let go in time; they stay in the kernel's cache.

    Args:
        file: holds row after row of uint8 RGB [H, W, 3].
        spec: their size.
        numbers: int64 [N], the row of each picture.
        resident_bytes: see `RESIDENT_BYTES`.

    Raises:
        OSError: the file is missing, cannot be mapped, or lacks rows.
    """

    def __init__(
        self,
        file: Path,
        spec: PixelSpec,
        numbers: npt.NDArray[np.int64],
        *,
        resident_bytes: int = RESIDENT_BYTES,
    ) -> None:
        self._shape = (spec.height, spec.width, 3)
        self._numbers = numbers
        self._resident_bytes = resident_bytes
        size = spec.height * spec.width * 3
        length = (int(numbers.max()) + 1) * size if len(numbers) else 0
        with open(file, "rb") as stream:
            if os.fstat(stream.fileno()).st_size < length:
                raise OSError(None, "the file of pixels is shorter than its index says")
            self._map = mmap.mmap(stream.fileno(), length, prot=mmap.PROT_READ) if length else None
        flat = np.frombuffer(self._map, np.uint8) if self._map is not None else np.empty(0, np.uint8)
        self._pixels = flat.reshape(-1, size)
        self._floor = _shared_bytes()

    def __len__(self) -> int:
        return len(self._numbers)

    def read(self, indices: npt.ArrayLike) -> npt.NDArray[np.uint8]:
        """Copies pictures out: uint8 RGB [n, H, W, 3], in the order asked for.

        Args:
            indices: integers [n] below `len`; the same one may come twice.

        Raises:
            IndexError: there is no such picture.
        """
        wanted = self._numbers[np.asarray(indices, np.int64).reshape(-1)]
        found = np.empty((len(wanted), *self._shape), np.uint8)
        flat = found.reshape(len(wanted), self._pixels.shape[1])
        step = _ROWS_A_LOOK if self._pixels.nbytes > self._resident_bytes else max(1, len(wanted))
        for start in range(0, len(wanted), step):
            self._let_go()
            # mode="clip": the default would gather into a second buffer first; the numbers were checked above.
            np.take(self._pixels, wanted[start : start + step], 0, flat[start : start + step], "clip")
        return found

    def subset(self, indices: npt.NDArray[np.int64]) -> Rows:
        """Some of the pictures, int64 [n], in that order; both read the same mapped file."""
        some = copy.copy(self)
        some._numbers = self._numbers[indices]
        return some

    def _let_go(self) -> None:
        """Unmaps the pages once there may be too many of them; reading goes on as if nothing had been."""
        if self._map is None or self._pixels.nbytes <= self._resident_bytes:
            return
        shared = _shared_bytes()
        self._floor = min(self._floor, shared)  # what other files of the process had mapped may have gone
        if shared - self._floor > self._resident_bytes:
            self._map.madvise(mmap.MADV_DONTNEED)
            self._floor = _shared_bytes()


def _shared_bytes() -> int:
    """Resident bytes of this process that belong to files (proc(5), statm); takes a microsecond or two."""
    fd = os.open("/proc/self/statm", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return int(os.read(fd, 200).split()[2]) * mmap.PAGESIZE
    finally:
        os.close(fd)
