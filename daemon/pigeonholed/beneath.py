"""Files and folders below a root, reached without following a link: what somebody swaps in on the way leads nowhere.

The root itself may be reached through links, which are the administrator's. A descriptor stays the folder that it was
opened as, whatever its names become, so what is done through it is done there.
"""

from __future__ import annotations

import contextlib
import errno
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_FLAGS = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.EOPNOTSUPP})


@contextmanager
def folder(root: str, relative: str, *, make: bool = False) -> Iterator[int]:
    """A descriptor of the folder ROOT/RELATIVE, good as a `dir_fd` and, by `path_of`, as part of a path.

    Args:
        root: an existing folder.
        relative: the way from there, empty for the root itself.
        make: whether what is missing below the root is made.

    Raises:
        NotADirectoryError: a link or a file is on the way.
        OSError: as `open(2)` and `mkdir(2)`.
    """
    fd = os.open(root, _FLAGS)
    try:
        for name in relative.split("/") if relative else ():
            inner = _opened(name, fd, make=make)
            os.close(fd)
            fd = inner
        yield fd
    finally:
        os.close(fd)


def open_beneath(root: str, path: str, flags: int = os.O_RDONLY) -> int:
    """Open what is at ROOT/PATH.

    Args:
        root: an existing folder.
        path: the way from there, empty for the root itself.
        flags: of `open(2)`, for the last component.

    Raises:
        OSError: as `folder` and `open(2)`; ELOOP for a link.
    """
    above, _, name = path.rpartition("/")
    with folder(root, above) as fd:
        return os.open(_checked(name) if path else ".", flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=fd)


def sync_folder(fd: int) -> None:
    """Make the entries of an open folder durable, where its file system knows how.

    Raises:
        OSError: the disk failed.
    """
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise


def path_of(fd: int) -> str:
    """A path that leads to an open folder, for what takes no descriptor."""
    return f"/proc/self/fd/{fd}"


def _opened(name: str, fd: int, *, make: bool) -> int:
    try:
        return os.open(_checked(name), _FLAGS | os.O_NOFOLLOW, dir_fd=fd)
    except FileNotFoundError:
        if not make:
            raise
    with contextlib.suppress(FileExistsError):
        os.mkdir(name, dir_fd=fd)
    return os.open(name, _FLAGS | os.O_NOFOLLOW, dir_fd=fd)


def _checked(name: str) -> str:
    if name in ("", ".", ".."):
        raise NotADirectoryError(errno.ENOTDIR, "no name of anything below a folder", name)
    return name
