"""Where a command writes what it was asked for: a file that is whole or not there, or the standard output."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sys
from contextlib import contextmanager
from typing import IO, TYPE_CHECKING

from pigeonholed.durable import sync
from pigeonholed.errors import UserError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Unwritten(UserError):
    """A file could not be written; what was there before is there still."""


class Exists(UserError):
    """There is a file of that name, and nobody said that it may go."""

    exit_code = 2


@contextmanager
def whole_file(path: Path, *, replace: bool) -> Iterator[IO[bytes]]:
    """A file to write to, beside `path`, which it becomes at the end; durable then.

    Where the body fails nothing is left; a kill leaves a hidden temporary file beside it.

    Args:
        path: in an existing folder.
        replace: what has this name may go.

    Raises:
        Exists: something has this name.
        Unwritten: the folder is missing or not writable, or the disk is full.
    """
    if not replace and os.path.lexists(path):
        raise _exists(path)
    if path.is_dir():
        raise Unwritten(f"cannot write {path}: it is a folder; name a file in it")
    draft = path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}.tmp")
    try:
        fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
    except OSError as error:
        raise _unwritten(path, error) from None
    try:
        with os.fdopen(fd, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(fd)
        if replace:
            os.rename(draft, path)
        else:
            _rename_new(draft, path)
        sync(path.parent)
    except FileExistsError:
        raise _exists(path) from None
    except OSError as error:
        raise _unwritten(path, error) from None
    finally:
        with contextlib.suppress(OSError):
            os.unlink(draft)


@contextmanager
def standard_output() -> Iterator[IO[bytes]]:
    """The standard output in bytes; a reader who has gone (`| head`) ends it without a word.

    Raises:
        Unwritten: it cannot take more, as on a full disk.
    """
    try:
        sys.stdout.flush()
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
    except BrokenPipeError:
        # Python flushes once more at its end, and must find nobody to complain to.
        os.dup2(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC), sys.stdout.fileno())
    except OSError as error:
        raise Unwritten(f"cannot write to the standard output: {error.strerror or error}") from None


def _rename_new(draft: Path, path: Path) -> None:
    try:
        os.link(draft, path)
    except OSError as error:
        if error.errno not in {errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK}:
            raise
        if os.path.lexists(path):  # a file system without links: the look has to do
            raise FileExistsError(path) from None
        os.rename(draft, path)


def _exists(path: Path) -> Exists:
    return Exists(f"cannot write {path}: there is a file of that name; name another, or say --force to replace it")


def _unwritten(path: Path, error: OSError) -> Unwritten:
    return Unwritten(f"cannot write {path}: {error.strerror or error}")
