"""Where the originals of copies are, and what becomes of them."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from typing import TYPE_CHECKING, Protocol

from pigeonholed.beneath import open_beneath, sync_folder
from pigeonholed.contents import is_same_content
from pigeonholed.copying import Unfit
from pigeonholed.hold_folder import HOLD, PART, held_name
from pigeonholed.images import mtime_ns_of
from pigeonholed.placing import alternatives

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from pigeonholed.copying import Copier
    from pigeonholed.disk import Disk
    from pigeonholed.hold_folder import HoldFolder
    from pigeonholed.images import Arrival, ImageFile
    from pigeonholed.memory import Memory

_NO_WAY = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Originals(Protocol):
    """The originals of one inbox; what the methods mean for delivery, `copy_custody.Copying` says."""

    stay: bool

    def knows(self, path: str) -> bool:
        """Whether one was copied before, as far as that can be told in no time."""

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that were not copied yet."""

    def begin(self, token: str) -> None:
        """Make a place for those of a batch."""

    def take(self, arrival: Arrival) -> None:
        """Put one where nobody else can reach it."""

    def has(self, arrival: Arrival) -> bool:
        """Whether that has happened."""

    def open(self, arrival: Arrival) -> int:
        """Open one for reading."""

    def sync(self, arrivals: Sequence[Arrival]) -> None:
        """Make durable where they are."""

    def let_go(self, arrival: Arrival) -> None:
        """The copy is durable and recorded."""

    def give_back(self, arrival: Arrival, disk: Disk) -> None:
        """There is no copy, and there will be none."""

    def end(self, token: str) -> None:
        """A batch is over."""

    def put_back(self, source: str, target: str, disk: Disk, copier: Copier) -> None:
        """Move a file of the output into the inbox, never over anything."""

    def forget(self) -> None:
        """Some were forgotten by the ledger. Any thread."""

    def close(self) -> None:
        """Leave nothing behind."""


class Held:
    """Originals are renamed out of the inbox into a hold folder, and removed once their copies are safe.

    Args:
        inbox: the folder they come from.
        hold: where they wait.
    """

    stay = False

    def __init__(self, inbox: str, hold: HoldFolder) -> None:
        self._inbox = inbox
        self._hold = hold

    def knows(self, path: str) -> bool:  # noqa: ARG002
        """None: what was taken is not there any more."""
        return False

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """All."""
        return files

    def begin(self, token: str) -> None:
        """Make the folder of a batch, before any row speaks of it."""
        self._hold.folder(token)

    def take(self, arrival: Arrival) -> None:
        """Rename; no link on the way is followed, so that what is taken was in the inbox."""
        folder, _, name = arrival.file.path.rpartition("/")
        held = self._hold.folder(arrival.token)
        with _opened(self._inbox, folder) as source:
            os.rename(name, held_name(arrival), src_dir_fd=source, dst_dir_fd=held)

    def has(self, arrival: Arrival) -> bool:
        """Whether it waits."""
        return self._hold.has(arrival)

    def open(self, arrival: Arrival) -> int:
        """Open it where it waits."""
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        return os.open(held_name(arrival), flags, dir_fd=self._hold.folder(arrival.token))

    def sync(self, arrivals: Sequence[Arrival]) -> None:
        """Make the claims durable: the folders that they came from and the one in which they wait.

        In this order: btrfs makes both names durable if it is asked for the new one first.
        """
        for folder in {"", *(arrival.file.path.rpartition("/")[0] for arrival in arrivals)}:
            with contextlib.suppress(FileNotFoundError, NotADirectoryError), _opened(self._inbox, folder) as fd:
                sync_folder(fd)
        for token in {arrival.token for arrival in arrivals}:
            self._hold.sync(token)

    def let_go(self, arrival: Arrival) -> None:
        """Remove it."""
        self._hold.drop(arrival)

    def give_back(self, arrival: Arrival, disk: Disk) -> None:
        """Rename it back, durably; into the inbox itself where its folder is gone."""
        folder, _, name = arrival.file.path.rpartition("/")
        held = self._hold.folder(arrival.token)
        try:
            target = open_beneath(self._inbox, folder)
        except OSError as error:
            if error.errno not in _NO_WAY:
                raise
            target = open_beneath(self._inbox, "")
        try:
            for other in alternatives(name, arrival.key, lambda _name: False):
                with contextlib.suppress(FileExistsError):
                    disk.rename_new(held_name(arrival), other, source_dir=held, target_dir=target)
                    break
            else:
                raise FileExistsError(errno.EEXIST, "no name is free to give a file back under", self._inbox)
            sync_folder(target)
        except FileNotFoundError:  # of an attempt whose answer was lost
            if self._hold.has(arrival):
                raise
        finally:
            os.close(target)

    def end(self, token: str) -> None:
        """Remove the folder of the batch."""
        self._hold.remove(token)

    def put_back(self, source: str, target: str, disk: Disk, copier: Copier) -> None:
        """Rename where that leads there, else copy."""
        carry(source, target, self._inbox, disk, copier)

    def forget(self) -> None:
        """Nothing was remembered."""

    def close(self) -> None:
        """Leave nothing in the inbox."""
        self._hold.remove_root()


class InPlace:
    """Originals stay in the inbox, where nothing is ever changed; the ledger remembers those that are known.

    Args:
        inbox: the folder.
        memory: which are known.
    """

    stay = True

    def __init__(self, inbox: str, memory: Memory) -> None:
        self._inbox = inbox
        self._memory = memory

    def knows(self, path: str) -> bool:
        """Whether it was seen to be remembered lately."""
        return self._memory.knows(path)

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that are not remembered."""
        return self._memory.fresh(files)

    def begin(self, token: str) -> None:
        """They have their place."""

    def take(self, arrival: Arrival) -> None:
        """They stay; whether it is still the one that was seen shows when it is opened."""

    def has(self, arrival: Arrival) -> bool:
        """Whether it is still there."""
        return os.path.lexists(os.path.join(self._inbox, arrival.file.path))

    def open(self, arrival: Arrival) -> int:
        """Open it where it is.

        Raises:
            Unfit: it is not the file that was seen to be complete.
        """
        try:
            fd = open_beneath(self._inbox, arrival.file.path)
        except FileNotFoundError:
            raise Unfit("it was gone before it was copied") from None
        try:
            status = os.fstat(fd)
            if (status.st_size, mtime_ns_of(status)) != (arrival.file.size, arrival.file.mtime_ns):
                raise Unfit("it had changed before it was copied")
        except BaseException:
            os.close(fd)
            raise
        return fd

    def sync(self, arrivals: Sequence[Arrival]) -> None:
        """Nothing was changed."""

    def let_go(self, arrival: Arrival) -> None:
        """It stays."""

    def give_back(self, arrival: Arrival, disk: Disk) -> None:
        """It never left."""

    def end(self, token: str) -> None:
        """Nothing was made."""

    def put_back(self, source: str, target: str, disk: Disk, copier: Copier) -> None:
        """Remove the copy where the original is still there with the very same bytes, durably; else bring it back."""
        if not os.path.lexists(target):
            carry(source, target, self._inbox, disk, copier)
        elif is_same_content(source, target):
            disk.sync([target], [os.path.dirname(target)])
            os.unlink(source)
        else:
            raise FileExistsError(target)

    def forget(self) -> None:
        """Ask the ledger anew."""
        self._memory.forget()

    def close(self) -> None:
        """Nothing was made."""


def carry(source: str, target: str, inbox: str, disk: Disk, copier: Copier) -> None:
    """Rename a file back to its inbox, or copy it where that does not lead there; errors are those of `copy_back`."""
    try:
        disk.rename_new(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        copy_back(source, target, inbox, disk, copier)


def copy_back(source: str, target: str, inbox: str, disk: Disk, copier: Copier) -> None:
    """Move a file to an inbox on another mount: the copy is complete and durable before the source goes.

    Killed in between, both are there; the intent that was recorded before says that the source was to go.

    Raises:
        FileExistsError: the place is taken; nothing has changed.
        Unfit: the source is no regular file, or changes.
        OSError: as for `Copier.copy`, `rename(2)` and `fsync(2)`.
    """
    if os.path.lexists(target):
        raise FileExistsError(target)
    hold = os.path.join(inbox, HOLD)
    with contextlib.suppress(FileExistsError):
        os.mkdir(hold, 0o700)
    part = os.path.join(hold, secrets.token_hex(8) + PART)
    fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        copier.copy(fd, part)
        disk.sync([part], [])
        disk.rename_new(part, target)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(part)
        raise
    finally:
        os.close(fd)
        with contextlib.suppress(OSError):
            os.rmdir(hold)
    with _opened(os.path.dirname(target), "") as folder:
        sync_folder(folder)
    os.unlink(source)


@contextlib.contextmanager
def _opened(root: str, path: str) -> Iterator[int]:
    fd = open_beneath(root, path)
    try:
        yield fd
    finally:
        os.close(fd)
