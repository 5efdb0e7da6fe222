"""Pictures decoded once: a folder of pixels that trainings share and go on filling where one was killed."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import importlib.util
import os
import shutil
import sqlite3
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import cv2
import numpy as np

from pigeonholed.bundle import Input
from pigeonholed_training.data.decoding import decode_all, stamp_of
from pigeonholed_training.data.index import Damaged, Record
from pigeonholed_training.data.store import Store
from pigeonholed_training.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec
    from pigeonholed_training.data.decoding import Decoded, Refused, Stamp
    from pigeonholed_training.data.rows import Rows

_LOCK: Final = "lock"
_BATCH_BYTES: Final = 32 << 20  # of pixels from one commit to the next: what a kill may cost
_WASTE_BYTES: Final = 256 << 20  # of rows that no file has any more, before they are worth decoding the others again
_BESIDE_BYTES: Final = 1024  # a picture in thumbnails, index and journal, generously
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True)
class Contents:
    """What became of the files asked for.

    Attributes:
        records: one for each path, in order.
        kept: int64 [N], which of them are pictures.
        rows: the pixels of these N.
        thumbnails: uint8 [N, 256], 16x16 in grey.
        decoded: how many files had to be read.
    """

    records: tuple[Record, ...]
    kept: npt.NDArray[np.int64]
    rows: Rows
    thumbnails: npt.NDArray[np.uint8]
    decoded: int


def place(root: Path, data: Path, spec: PixelSpec) -> Path:
    """The folder below `root` for one data set at one size, as today's rule of decoding makes it."""
    key = f"{os.path.realpath(data)}\0{_rule(spec)}"
    return root / hashlib.sha256(os.fsencode(key)).hexdigest()[:16]


def _rule(spec: PixelSpec) -> str:
    """How files become pixels, in words; another rule is another cache."""
    extra = "with" if importlib.util.find_spec("pillow_heif") else "without"
    words = Input(height=spec.height, width=spec.width, fit=spec.fit).rule
    return f"{spec.height}x{spec.width} {spec.fit}; {words}; OpenCV {cv2.__version__} {extra} HEIF"


class PixelCache:
    """A folder of decoded pictures. It may be deleted at any time, also while trainings read from it.

    One process fills it at a time; others wait, and then find the work done.

    Args:
        folder: is made if it is missing.
        spec: the pixels wanted.
        say: told, in a sentence, why it takes long or what is unusual.
        batch_bytes: of pixels from one commit to the next.
    """

    def __init__(
        self,
        folder: Path,
        spec: PixelSpec,
        *,
        say: Callable[[str], None] = lambda _sentence: None,
        batch_bytes: int = _BATCH_BYTES,
    ) -> None:
        self.folder = folder
        self._spec = spec
        self._say = say
        self._row_bytes = spec.height * spec.width * 3
        self._batch = max(1, batch_bytes // self._row_bytes)

    def fill(
        self,
        root: Path,
        paths: Sequence[str],
        *,
        workers: int = 0,
        on_picture: Callable[[int, int], None] = lambda _done, _total: None,
    ) -> Contents:
        """Sees to it that every file is decoded that was not, or has changed since.

        Args:
            root: what relative paths are relative to.
            paths: of files; the same one may come twice.
            workers: threads that decode; 0 is one for each CPU.
            on_picture: told (done, total) as it goes.

        Raises:
            Unavailable: the disk is full, or would be; what was decoded is kept.
            Misconfigured: the folder cannot be written.
        """
        with self._faults_told(), self._locked():
            stamps = {path: _stamp(os.path.join(root, path)) for path in paths}
            with contextlib.closing(self._opened(stamps)) as store:
                missing = [path for path, stamp in stamps.items() if not _is_known(store.known, path, stamp)]
                done = len(stamps) - len(missing)
                self._require_room(len(missing))
                on_picture(done, len(stamps))
                with contextlib.closing(decode_all(root, missing, self._spec, workers=workers)) as results:
                    batch: list[tuple[str, Decoded | Refused]] = []
                    for number, result in enumerate(results, 1):
                        batch.append(result)
                        if len(batch) == self._batch or number == len(missing):
                            store.append(batch)
                            batch = []
                        on_picture(done + number, len(stamps))
                return _contents(store, paths, len(missing))

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        self.folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self._say(f"Another training is decoding the same pictures into {self.folder}; waiting for it.")
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def _opened(self, stamps: Mapping[str, Stamp | None]) -> Store:
        """What is there, or an empty one in its place."""
        try:
            store = Store.open(self.folder, self._spec, _rule(self._spec))
        except FileNotFoundError:
            return Store.make(self.folder, self._spec, _rule(self._spec))
        except Damaged as fault:
            self._say(f"The decoded pictures in {self.folder} cannot be used ({fault}); they are made anew.")
            return Store.make(self.folder, self._spec, _rule(self._spec))
        used = sum(record.is_picture for path, record in store.known.items() if stamps.get(path) == record.stamp)
        wasted = store.length - used
        if wasted <= used or wasted * self._row_bytes <= _WASTE_BYTES:
            return store
        store.close()
        self._say(f"Most of the decoded pictures in {self.folder} are of files that changed or went; made anew.")
        return Store.make(self.folder, self._spec, _rule(self._spec))

    def _require_room(self, pictures: int) -> None:
        needed = pictures * (self._row_bytes + _BESIDE_BYTES)
        free = shutil.disk_usage(self.folder).free
        if needed > free:
            raise Unavailable(
                f"Cannot decode the pictures into {self.folder}: {pictures} at {self._spec.height}x{self._spec.width} "
                f"need {_gigabytes(needed)}, and {_gigabytes(free)} are free; make room, or give a folder on "
                "another disk with --cache."
            )

    @contextlib.contextmanager
    def _faults_told(self) -> Iterator[None]:
        try:
            yield
        except (OSError, sqlite3.Error) as fault:
            code = fault.errno if isinstance(fault, OSError) else None
            if code in _FULL or getattr(fault, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise Unavailable(
                    f"Cannot decode the pictures into {self.folder}: the disk is full; make room, and the same command "
                    "goes on where it stopped."
                ) from fault
            what = (fault.strerror if isinstance(fault, OSError) else None) or str(fault)
            raise Misconfigured(
                f"Cannot decode the pictures into {self.folder}: {what}; give another folder with --runs or --cache."
            ) from fault


def _stamp(path: str) -> Stamp | None:
    try:
        return stamp_of(os.stat(path))
    except (OSError, ValueError):
        return None  # whoever opens it will say what is wrong


def _is_known(known: Mapping[str, Record], path: str, stamp: Stamp | None) -> bool:
    record = known.get(path)
    return record is not None and record.stamp == stamp


def _contents(store: Store, paths: Sequence[str], decoded: int) -> Contents:
    records = tuple(store.known[path] for path in paths)
    kept = np.array([index for index, record in enumerate(records) if record.is_picture], np.int64)
    numbers = np.array([records[index].row for index in kept.tolist()], np.int64)
    return Contents(records, kept, store.rows(numbers), store.thumbnails(numbers), decoded)


def _gigabytes(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e8 else f"{size / 1e6:.0f} MB"
