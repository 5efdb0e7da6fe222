"""Unix sockets at a path: made private, dead ones replaced, links never followed, paths of any length."""

from __future__ import annotations

import errno
import os
import socket
import stat
import time
from typing import TYPE_CHECKING

from pigeonholed.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

_LONGEST_ADDRESS = 107  # bytes, of what the kernel takes as the path of a socket
_BACKLOG = 64


def listen(path: Path) -> socket.socket:
    """Make a socket of mode 0600 at `path` and listen; the socket of a killed process is replaced.

    Raises:
        Unavailable: a process listens there.
        OSError: it cannot be made; something that is there and is no socket is left alone.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        # On Linux, what bind makes gets the mode of the socket itself: there is no moment at which others may connect,
        # and no umask is changed, which other threads would feel.
        os.fchmod(listener.fileno(), 0o600)
        try:
            _bind(listener, path)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise
            _remove_dead(path)
            _bind(listener, path)
        listener.listen(_BACKLOG)
    except BaseException:
        listener.close()
        raise
    return listener


def dial(path: Path, ends_s: float) -> socket.socket:
    """Connect to exactly what is at `path`; waits until `ends_s` (monotonic) for a place in its queue.

    Raises:
        FileNotFoundError, ConnectionRefusedError: nobody listens there.
        TimeoutError: its queue was full all the time.
        OSError: it is no socket (`ENOTSOCK`), or not ours to use.
    """
    while True:
        try:
            return _dial(path)
        except BlockingIOError:
            if time.monotonic() >= ends_s:
                raise TimeoutError from None
            time.sleep(0.02)


def inode_of(path: Path) -> tuple[int, int] | None:
    """What tells one file from another that takes its name later; None where there is none."""
    try:
        status = os.lstat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino


def _bind(listener: socket.socket, path: Path) -> None:
    if len(os.fsencode(path)) <= _LONGEST_ADDRESS:
        listener.bind(os.fspath(path))
        return
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        short = f"/proc/self/fd/{folder}/{path.name}"
        if len(os.fsencode(short)) > _LONGEST_ADDRESS:
            raise OSError(errno.ENAMETOOLONG, "its name is too long for a socket")
        listener.bind(short)
    finally:
        os.close(folder)


def _remove_dead(path: Path) -> None:
    before = inode_of(path)
    try:
        _dial(path).close()
    except ConnectionRefusedError:
        if before is not None and inode_of(path) == before:
            os.unlink(path)
        return
    except FileNotFoundError:
        return
    except BlockingIOError:
        pass  # its queue is full, so somebody holds it
    except OSError as error:
        if error.errno != errno.ENOTSOCK:
            raise
        raise OSError(errno.EEXIST, "something that is no socket is there, and is left alone") from None
    raise Unavailable(
        f"another process answers at the control socket {path}; stop it, or name another path in [control].socket"
    )


def _dial(path: Path) -> socket.socket:
    target = os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        if not stat.S_ISSOCK(os.fstat(target).st_mode):
            raise OSError(errno.ENOTSOCK, "it is no socket")
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            connection.setblocking(False)  # a connection to a Unix socket is made at once or not at all
            connection.connect(f"/proc/self/fd/{target}")
        except BaseException:
            connection.close()
            raise
        return connection
    finally:
        os.close(target)
