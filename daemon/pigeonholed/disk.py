"""What the delivery protocol asks of a file system: renames that never overwrite, and durability.

Everything here is one system call or a short sequence whose every prefix is safe to be killed after.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import math
import os
import re
import signal
import stat
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

WAITED_FOR = frozenset(
    {
        errno.ENOSPC,
        errno.EDQUOT,
        errno.EROFS,
        errno.EMFILE,
        errno.ENFILE,
        errno.ENOMEM,
        errno.ESTALE,
        errno.ENOTCONN,
        errno.EHOSTDOWN,
        errno.ETIMEDOUT,
        errno.EBUSY,
        errno.EINTR,
    }
)
"""Faults of the machine that pass: the stage waits and tries again, and no file is blamed."""

_SYNCFS_TELLS = (5, 8)
"""The first Linux whose `syncfs` tells of contents that could not be written."""

_SYNCFS_TELLS_ALL = (6, 13)
"""The first whose ext4 does so when a fault has shut it down: before, `syncfs` says that all is well, `fsync` not."""

_AT_ONCE = frozenset({0x9123683E})
"""btrfs. A sync of the one folder of a rename makes the new name durable there, and leaves the old one as well."""

_AT_FDCWD = -100
_RENAME_NOREPLACE = 1
_NOT_HERE = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})


class Disk:
    """The file system that holds one output folder.

    Args:
        root: an existing folder on that file system.
        clock: monotonic seconds.

    Owned by the finishing thread, but for `rename_new`, which keeps no state.
    """

    _SLOW_SYNCFS_S = 0.05
    _FEW_FILES = 8
    _ROUNDS = 50

    def __init__(self, root: str, clock: Callable[[], float] = time.perf_counter) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._renameat2 = getattr(self._libc, "renameat2", None)
        kernel = _kernel()
        self._syncfs = getattr(self._libc, "syncfs", None) if kernel >= _SYNCFS_TELLS else None
        self._asks_again = kernel < _SYNCFS_TELLS_ALL
        self._clock = clock
        self._root_fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._syncfs_took_s = 0.0
        self._rounds_one_by_one = 0
        self._rounds_at_once = 0
        self._at_once = _type_of(self._libc, self._root_fd) in _AT_ONCE

    def close(self) -> None:
        """Release the descriptor of the root."""
        os.close(self._root_fd)

    def rename_new(
        self, source: str, target: str, *, source_dir: int | None = None, target_dir: int | None = None
    ) -> None:
        """Rename without ever overwriting; where a descriptor of a folder is given, the name is relative to it.

        Raises:
            FileExistsError: something of that name is there; nothing has changed.
            OSError: as `rename(2)`.
        """
        if self._renameat2 is not None:
            from_fd = _AT_FDCWD if source_dir is None else source_dir
            to_fd = _AT_FDCWD if target_dir is None else target_dir
            done = self._renameat2(from_fd, os.fsencode(source), to_fd, os.fsencode(target), _RENAME_NOREPLACE)
            if done == 0:
                return
            code = ctypes.get_errno()
            if code not in _NOT_HERE:
                raise OSError(code, os.strerror(code), source, None, target)
        _link_and_unlink(source, target, source_dir, target_dir)

    def sync(self, files: Iterable[str], folders: Iterable[str]) -> None:
        """Return when the contents of `files` and the entries of `folders` are durable.

        One `syncfs` serves a whole batch. Where others write to the same file system it can take long, so after a
        slow one single `fsync`s are tried for a while, but for file systems that need it to keep renames whole. They
        may be slower still, since each waits for the disk: once they have taken as long, `syncfs` is kept to for as
        long a while. A name that is gone is passed over: whoever removed it answers for it.

        Raises:
            OSError: the kernel could not write (EIO, ENOSPC). Such an error is reported once and the pages are then
                clean, so it must never be retried as if nothing had happened. What the kernel remembers of `files` is
                dropped: whoever reads them next reads what is on the disk.
        """
        files = list(files)
        if self._syncfs is None:
            for _ in _each_durable(files, folders):
                pass
            return
        few = len(files) <= self._FEW_FILES
        if (few or self._rounds_one_by_one) and not self._at_once:
            self._rounds_one_by_one = max(0, self._rounds_one_by_one - 1)
            if self._sync_one_by_one(files, folders, math.inf if few else self._syncfs_took_s):
                return
        started = self._clock()
        try:
            self._sync_everything(self._syncfs)
        except OSError:
            for path in files:
                with contextlib.suppress(OSError):
                    _forget(path)
            raise
        self._syncfs_took_s = self._clock() - started
        self._rounds_at_once = max(0, self._rounds_at_once - 1)
        if self._syncfs_took_s > self._SLOW_SYNCFS_S and not self._rounds_at_once:
            self._rounds_one_by_one = self._ROUNDS

    def _sync_one_by_one(self, files: Sequence[str], folders: Iterable[str], most_s: float) -> bool:
        """False where that takes too long, or no descriptor is to be had: the one that we hold does for everything."""
        ends_s = self._clock() + most_s
        try:
            for _ in _each_durable(files, folders):
                if self._clock() > ends_s:
                    self._rounds_one_by_one, self._rounds_at_once = 0, self._ROUNDS
                    return False
        except OSError as error:
            if error.errno not in {errno.EMFILE, errno.ENFILE}:
                raise
            return False
        return True

    def _sync_everything(self, syncfs: Callable[[int], int]) -> None:
        if syncfs(self._root_fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code))
        if self._asks_again:
            os.fsync(self._root_fd)

    def holds(self, root: str) -> bool:
        """Whether a path still leads to the folder that this was made for: a mount may have gone or come over it."""
        try:
            return os.path.samestat(os.stat(root), os.fstat(self._root_fd))
        except OSError:
            return False


def _type_of(libc: ctypes.CDLL, fd: int) -> int:
    """The number of a file system's type, from `statfs(2)`."""
    told = (ctypes.c_long * 64)()  # more than any architecture fills
    return int(told[0]) if libc.fstatfs(fd, told) == 0 else 0


def _kernel() -> tuple[int, ...]:
    """The first two numbers of this Linux's release; later than any where it has none."""
    found = re.match(r"(\d+)\.(\d+)", os.uname().release)
    return (int(found[1]), int(found[2])) if found else _SYNCFS_TELLS_ALL


def _each_durable(files: Iterable[str], folders: Iterable[str]) -> Iterator[str]:
    """Make the contents of files durable, then the entries of folders; each is told of when it is."""
    for path in files:
        _fsync(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        yield path
    for folder in folders:
        _fsync(folder, os.O_RDONLY | os.O_DIRECTORY)
        yield folder


def _fsync(path: str, flags: int) -> None:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError):
        fd = os.open(path, flags | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        except OSError:
            _forget(fd)
            raise
        finally:
            os.close(fd)


def _forget(file: str | int) -> None:
    """Drop the pages of a file that the kernel holds and takes for written."""
    fd = os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC) if isinstance(file, str) else file
    try:
        with contextlib.suppress(OSError):
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        if isinstance(file, str):
            os.close(fd)


def _link_and_unlink(source: str, target: str, source_dir: int | None, target_dir: int | None) -> None:
    """The same guarantee where `renameat2` lacks the flag; killed in between, both names are one inode."""
    try:
        os.link(source, target, src_dir_fd=source_dir, dst_dir_fd=target_dir, follow_symlinks=False)
    except FileExistsError:
        if not os.path.samestat(os.lstat(source, dir_fd=source_dir), os.lstat(target, dir_fd=target_dir)):
            raise
    os.unlink(source, dir_fd=source_dir)


def is_there(path: str) -> bool:
    """Whether something has this name; where `os.path.lexists` takes a disk that fails to answer for a no, this raises.

    Raises:
        OSError: nobody knows.
    """
    try:
        os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def is_folder(path: str) -> bool:
    """Whether it is a folder and no link to one; unlike `os.path.isdir`, this raises where a disk fails to answer."""
    try:
        return stat.S_ISDIR(os.lstat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def require_gone(path: str) -> None:
    """Make sure that what was not found is really not there: a network file system can say so of a file that is.

    Raises:
        OSError: ESTALE, which is waited for: its folder lists it, or is there and cannot be listed. Or nobody knows.
    """
    folder, name = os.path.split(path)
    try:
        hidden = name in os.listdir(folder)
    except (FileNotFoundError, NotADirectoryError):
        hidden = is_folder(folder) or is_there(path)
    if hidden:
        raise OSError(errno.ESTALE, "a file is there and cannot be found", path)


def may_rename_out_of(folder: str) -> bool:
    """Whether this user may take files out of a folder: it may be written to, and is not somebody else's sticky one."""
    try:
        return os.geteuid() == 0 or (not is_sticky_of_another(folder) and os.access(folder, os.W_OK | os.X_OK))
    except OSError:
        return False


def is_sticky_of_another(folder: str) -> bool:
    """Whether a folder lets everybody take out their own files only, and is not this user's.

    Raises:
        OSError: it cannot be looked at.
    """
    status = os.stat(folder)
    return bool(status.st_mode & stat.S_ISVTX) and os.geteuid() not in (0, status.st_uid)


def is_written_to(fd: int) -> bool:
    """Whether any process of this machine has the file open for writing, as far as the kernel will tell us.

    A read lease is refused while there is a writer. Only the owner of a file and the superuser may ask for one, and
    only on local file systems; elsewhere the answer is False. A writer that opens the file in the instant that we hold
    the lease is made to wait, and we are told so by a signal: SIGURG, which does nothing, where SIGIO would kill us.
    """
    try:
        fcntl.fcntl(fd, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError as error:
        return error.errno == errno.EAGAIN
    fcntl.fcntl(fd, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def fs_time_ns(fd: int) -> int:
    """Touch an open file and return the time that its file system gave it, in ns: the clock of all its ctimes."""
    os.utime(fd)
    return os.fstat(fd).st_ctime_ns
