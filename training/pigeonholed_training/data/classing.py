"""Class folders that grow, a picture at a time: nothing in them is ever overwritten, and nothing is there by half."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
from typing import TYPE_CHECKING, Final, Literal, Self

from pigeonholed_training.data.proof import Refused, holds, prove, reading
from pigeonholed_training.errors import Misconfigured, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from pigeonholed_training.data.reviews import Labelled

Done = Literal["copied", "linked", "kept"]

_LONGEST: Final = 255  # bytes of a file name
_LONGEST_ENDING: Final = 16
_PARTIAL: Final = ".export.partial"
_NO_LINKS: Final = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


class ClassFolders:
    """A folder of class folders; owned by one export at a time.

    Attributes:
        found: the classes that were there at the start.
    """

    def __init__(self, root: Path, *, link: bool) -> None:
        self._root = root
        self._link = link
        self.found: tuple[str, ...] = ()

    @classmethod
    @contextlib.contextmanager
    def opened(cls, root: Path, *, link: bool) -> Iterator[Self]:
        """Makes the folder, and keeps other exports out of it; one that stays empty is removed again.

        Args:
            root: where.
            link: hard links where the disk allows them, in the place of copies.

        Raises:
            Unavailable: another export is writing into it.
            OSError: it cannot be written.
        """
        folders = cls(root, link=link)
        os.makedirs(root, exist_ok=True)
        lock = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            _hold(lock, root)
            folders._look()
            yield folders
        finally:
            with contextlib.suppress(OSError):
                os.rmdir(root)
            os.close(lock)

    def _look(self) -> None:
        """Sees what is there, and clears away what an export that was killed has left."""
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(self._root, _PARTIAL))
        with os.scandir(self._root) as entries:
            self.found = tuple(sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir()))

    def put(self, picture: Labelled, source: str) -> Done:
        """Brings the picture at `source` into the folder of its class.

        It gets its own name, or where that is taken or none for a data set, one that holds part of its hash. What is
        there already with the same content is kept.

        Raises:
            Refused: it is not what its row says, or is in the folder of another class.
            Misconfigured: there is something else in the place of that folder.
            OSError: it cannot be written.
        """
        folder = os.path.join(self._root, picture.label)
        if os.path.lexists(folder) and not os.path.isdir(folder):
            raise Misconfigured(
                f"Cannot export into {self._root}: its entry {picture.label} is no folder; move it away."
            )
        names = names_for(os.path.basename(source), picture.sha256 or "")
        self._require_in_no_other(picture, names)
        for name in names:
            target = os.path.join(folder, name)
            if os.path.lexists(target):
                if holds(target, picture.size, picture.sha256):
                    return "kept"
                continue
            with contextlib.suppress(FileExistsError):  # somebody was faster
                return self._bring(picture, source, target)
        raise Refused(f"its name is taken in the folder of {picture.label}")

    def _require_in_no_other(self, picture: Labelled, names: tuple[str, ...]) -> None:
        """A review may have changed since an earlier export: the same picture must not be of two classes."""
        for other in self.found:
            for name in names:
                if other != picture.label and holds(
                    os.path.join(self._root, other, name), picture.size, picture.sha256
                ):
                    raise Refused(
                        f"it is of class {picture.label}, and is already there as {other}/{name}; remove that, and "
                        "export again"
                    )

    def _bring(self, picture: Labelled, source: str, target: str) -> Done:
        with reading(source) as fd:
            if self._link:
                prove(fd, picture.sha256)
                if _linked(fd, source, target):
                    return "linked"
                os.lseek(fd, 0, os.SEEK_SET)
            self._copy(fd, picture, target)
        return "copied"

    def _copy(self, fd: int, picture: Labelled, target: str) -> None:
        partial = os.path.join(self._root, _PARTIAL)
        try:
            with open(partial, "xb") as stream:
                prove(fd, picture.sha256, stream.write)
                stream.flush()
                os.fsync(stream.fileno())
            os.makedirs(os.path.dirname(target), exist_ok=True)
            _name(partial, target)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(partial)


def _hold(lock: int, root: Path) -> None:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Unavailable(f"Cannot export into {root}: another export is writing into it; wait for it.") from None
    except OSError:
        return  # a disk that knows no locks


def _linked(fd: int, source: str, target: str) -> bool:
    """Links the file that is open; False where this disk, or this file, cannot be linked."""
    os.makedirs(os.path.dirname(target), exist_ok=True)
    try:
        os.link(source, target, follow_symlinks=False)
    except FileNotFoundError:
        raise Refused("it is not there any more") from None
    except OSError as fault:
        if fault.errno in _NO_LINKS:
            return False
        raise
    if not os.path.samestat(os.fstat(fd), os.lstat(target)):
        os.unlink(target)
        raise Refused("it was replaced while it was read")
    return True


def _name(partial: str, target: str) -> None:
    """Gives a whole file its name, if that is free."""
    try:
        os.link(partial, target, follow_symlinks=False)
    except OSError as fault:
        if fault.errno not in _NO_LINKS:
            raise
        # On a disk without links: that the name is free was seen a moment ago, and no other export is at work here.
        os.rename(partial, target)


def names_for(name: str, sha256: str) -> tuple[str, ...]:
    """What a file may be called in a data set, the best first: as it is, where it can be, or with part of its hash.

    Hidden files are no pictures to training, and what is no UTF-8 or cannot be printed is trouble to somebody.

    Args:
        name: as `os.fsdecode` gives it.
        sha256: of its content, hex.
    """
    safe = "".join(character if character.isprintable() else "_" for character in name).lstrip(".") or "picture"
    stem, ending = os.path.splitext(safe)
    if len(ending.encode("utf-8")) > _LONGEST_ENDING:
        stem, ending = safe, ""
    tail = f"-{sha256[:12]}{ending}"
    room = _LONGEST - len(tail.encode("utf-8"))
    marked = stem.encode("utf-8")[:room].decode("utf-8", "ignore") + tail
    return (name, marked) if safe == name else (marked,)
