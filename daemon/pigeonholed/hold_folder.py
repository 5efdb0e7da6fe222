"""Where originals wait until their copies are durable: out of the reach of whoever dropped them."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from typing import TYPE_CHECKING

from pigeonholed.beneath import sync_folder
from pigeonholed.disk import is_there, require_gone
from pigeonholed.probes import probe_name, remove_probe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Self

    from pigeonholed.images import Arrival
    from pigeonholed.output import Output

HOLD = ".pigeonholed-hold"
PART = ".part"
_HELD = re.compile(r"([0-9]{1,18})-([0-9a-f]{32}(?:\.[0-9]{1,4})?)\.held")


def held_name(arrival: Arrival) -> str:
    """The name under which an original waits; its row can be found by it, however many rows there are."""
    return f"{arrival.id}-{arrival.key}.held"


def parse_held(name: str) -> tuple[int, str] | None:
    """The id and the key of the row that a name speaks of; None for any other name."""
    found = _HELD.fullmatch(name)
    return (int(found[1]), found[2]) if found else None


class HoldFolder:
    """Holds the originals of one inbox, in a folder for each batch.

    Where files can be renamed from the inbox to its output, they wait in the batch's folder there, which no dropper
    can reach. Else they must stay on the inbox's own mount: in `.pigeonholed-hold` in the inbox, of mode 0700. Whoever
    may write to the inbox could rename that folder, but neither look into it nor change what is in it: a batch works
    through a descriptor of its folder, never through the path.

    Args:
        root: the folder of the batch folders.
        beside: whether it lies in the inbox; it and the batch folders are then made and removed here.
        private: refuse a folder that is not ours alone.

    Owned by one thread.
    """

    def __init__(self, root: str, *, beside: bool, private: bool) -> None:
        self.root = root
        self.beside = beside
        self._private = private
        self._open: tuple[str, int] | None = None

    @classmethod
    def in_output(cls, output: Output) -> Self:
        """In the batch folders of an output."""
        return cls(output.private, beside=False, private=False)

    @classmethod
    def in_inbox(cls, inbox: str, *, private: bool) -> Self:
        """On the mount of an inbox."""
        return cls(os.path.join(inbox, HOLD), beside=True, private=private)

    def folder(self, token: str) -> int:
        """A descriptor of the folder of a batch, made where it is missing. It stays ours: do not close it.

        Raises:
            PermissionError: somebody else's folder has its name.
            OSError: as `mkdir(2)` and `open(2)`.
        """
        if self._open is None or self._open[0] != token:
            self.close()
            self._open = (token, self._opened(token))
        return self._open[1]

    def close(self) -> None:
        """Forget the descriptor."""
        if self._open is not None:
            os.close(self._open[1])
            self._open = None

    def has(self, arrival: Arrival) -> bool:
        """Whether an original waits here.

        Raises:
            OSError: the disk does not say.
        """
        with self._unless_foreign():
            return is_there(self.path_of(arrival))
        return False

    def require_gone(self, arrival: Arrival) -> None:
        """Make sure that an original which was not found is really not here.

        Raises:
            OSError: as `disk.require_gone`.
        """
        with self._unless_foreign():
            require_gone(self.path_of(arrival))

    def path_of(self, arrival: Arrival) -> str:
        """Where an original waits."""
        return os.path.join(self.root, arrival.token, held_name(arrival))

    def drop(self, arrival: Arrival) -> None:
        """Remove an original whose copy is durable and recorded; harmless where it is gone.

        Raises:
            OSError: as `unlink(2)`, or as `disk.require_gone`.
        """
        try:
            os.unlink(held_name(arrival), dir_fd=self.folder(arrival.token))
        except FileNotFoundError:
            self.require_gone(arrival)

    def sync(self, token: str) -> None:
        """Make the entries of a batch's folder durable, and its own."""
        sync_folder(self.folder(token))
        if self.beside:
            with _opened_root(self.root, private=self._private) as root:
                sync_folder(root)

    def remove(self, token: str) -> None:
        """Remove the folder of a batch when it is empty; in the output it is not ours to remove."""
        self.close()
        if self.beside:
            with contextlib.suppress(OSError), _opened_root(self.root, private=self._private) as root:
                remove_probe(os.path.join(token, probe_name(token)), root)
                os.rmdir(token, dir_fd=root)

    def remove_root(self) -> None:
        """Leave nothing in the inbox, unless something waits."""
        self.close()
        if self.beside:
            for token in self.tokens():  # empty ones that could not be removed in time
                self.remove(token)
            with contextlib.suppress(OSError):
                os.rmdir(self.root)

    def tokens(self) -> list[str]:
        """The batches that have a folder here, as far as that can be seen."""
        try:
            with os.scandir(self.root) as entries:
                return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
        except OSError:
            return []

    @contextlib.contextmanager
    def _unless_foreign(self) -> Iterator[None]:
        """Pass over a folder of this name that somebody else has made and closed: nothing of ours is in it."""
        try:
            yield
        except PermissionError:
            if os.lstat(self.root).st_uid == os.geteuid():
                raise

    def _opened(self, token: str) -> int:
        if self.beside:
            with contextlib.suppress(FileExistsError):
                os.mkdir(self.root, 0o700)
        with _opened_root(self.root, private=self._private) as root:
            if self.beside:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(token, 0o700, dir_fd=root)
            return os.open(token, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=root)


@contextlib.contextmanager
def _opened_root(path: str, *, private: bool) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        status = os.fstat(fd)
        if private and (status.st_uid != os.geteuid() or stat.S_IMODE(status.st_mode) & 0o077):
            raise PermissionError(errno.EPERM, "it is not a folder of this user alone", path)
        yield fd
    finally:
        os.close(fd)
