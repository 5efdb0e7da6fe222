"""Decoded pictures on disk: two files of rows that only grow, and the index that says which rows are whose."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING, Final

import numpy as np

from pigeonholed import durable
from pigeonholed_training.data.decoding import THUMBNAIL, Decoded, Refused
from pigeonholed_training.data.index import NONE, Damaged, Index, Record
from pigeonholed_training.data.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec

_INDEX: Final = "index.db"
_SIDE_BYTES: Final = THUMBNAIL * THUMBNAIL


class Store:
    """The files of one cache. Owned by the thread that opened it, under the lock of the cache.

    Pixels and thumbnails reach the disk before the index that points to them, so what the index says is true after a
    kill or a power cut. A row is never written again once the index has it: a training may be reading it.

    Attributes:
        known: what became of each file, by path.
    """

    def __init__(self, folder: Path, spec: PixelSpec, index: Index) -> None:
        self._spec = spec
        self._row_bytes = spec.height * spec.width * 3
        self._index = index
        self._pixels = folder / f"{index.name}.pixels"
        self._thumbnails = folder / f"{index.name}.thumbnails"
        self.known: dict[str, Record] = {}

    @property
    def length(self) -> int:
        """How many rows there are, those included that no file has any more."""
        return self._index.rows

    @classmethod
    def open(cls, folder: Path, spec: PixelSpec, rule: str) -> Store:
        """Opens what is there.

        Raises:
            FileNotFoundError: nothing is.
            Damaged: it cannot be used.
            OSError, sqlite3.Error: it cannot be read now.
        """
        os.stat(folder / _INDEX)
        store = cls(folder, spec, Index.open(folder / _INDEX, rule))
        try:
            for file, size in ((store._pixels, store._row_bytes), (store._thumbnails, _SIDE_BYTES)):
                if not file.exists() or file.stat().st_size < store.length * size:
                    raise Damaged(f"{file.name} is cut short or missing")
            store.known = store._index.records()
        except BaseException:
            store.close()
            raise
        store._tidy(folder)
        return store

    @classmethod
    def make(cls, folder: Path, spec: PixelSpec, rule: str) -> Store:
        """Makes an empty one; a former one is removed, though not from under those who read it.

        Raises:
            OSError, sqlite3.Error: it cannot be written.
        """
        name = secrets.token_hex(4)
        for kind in ("pixels", "thumbnails"):
            (folder / f"{name}.{kind}").touch()
        index = Index.make(folder / _INDEX, rule, name)
        durable.sync(folder)
        store = cls(folder, spec, index)
        store._tidy(folder)
        return store

    def append(self, results: Sequence[tuple[str, Decoded | Refused]]) -> None:
        """Keeps what became of some files; all of it or, if it is killed, nothing.

        A refusal that another time or machine might not repeat is known from now on, but not kept.

        Raises:
            OSError, sqlite3.Error: the disk is full, or failed.
        """
        pictures = [result for _, result in results if isinstance(result, Decoded)]
        first = self._index.rows
        if pictures:
            _write(self._pixels, np.stack([one.pixels for one in pictures]), first * self._row_bytes)
            _write(self._thumbnails, np.stack([one.thumbnail for one in pictures]), first * _SIDE_BYTES)
        lasting, row = [], first
        for path, result in results:
            if isinstance(result, Decoded):
                record = Record(result.stamp, row, result.sha256)
                row += 1
            else:
                record = Record(result.stamp or (0, 0, 0), NONE, "", result.reason, result.detail)
            self.known[path] = record
            if isinstance(result, Decoded) or result.is_final:
                lasting.append((path, record))
        self._index.add(lasting, row)

    def rows(self, numbers: npt.NDArray[np.int64]) -> Rows:
        """The pixels of some rows, to read as long as one likes."""
        return Rows(self._pixels, self._spec, numbers)

    def thumbnails(self, numbers: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8]:
        """The thumbnails of some rows: uint8 [N, 256], a copy."""
        every = np.fromfile(self._thumbnails, np.uint8, self.length * _SIDE_BYTES)
        return every.reshape(-1, _SIDE_BYTES)[numbers]

    def close(self) -> None:
        """Lets go of the index; rows that were handed out stay readable."""
        self._index.close()

    def _tidy(self, folder: Path) -> None:
        """Removes what others left that were damaged or killed."""
        for file in folder.iterdir():
            if file.suffix in {".pixels", ".thumbnails"} and file.stem != self._index.name:
                file.unlink(missing_ok=True)


def _write(file: Path, rows: npt.NDArray[np.uint8], offset: int) -> None:
    """Writes rows at a place in a file, and waits until they are on the disk."""
    fd = os.open(file, os.O_WRONLY | os.O_CLOEXEC)
    try:
        left = rows.reshape(-1).data
        while left:
            written = os.pwrite(fd, left, offset)
            left, offset = left[written:], offset + written
        os.fsync(fd)
    finally:
        os.close(fd)
