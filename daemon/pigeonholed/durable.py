"""Writing files so that they survive a power cut: temporary name, fsync, rename, fsync of the folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write_file(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """Puts `data` at `path`, replacing what is there; a reader sees the old content or the new, never a part.

    When it returns, content and name are on the disk. When it raises or is killed, `path` is as it was; a kill may
    leave a hidden temporary file beside it.

    Args:
        path: a file in an existing folder.
        data: the whole new content.
        mode: permission bits of the new file (the umask is applied).

    Raises:
        OSError: the folder is missing or not writable, or the disk is full.
    """
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        with os.fdopen(fd, "wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(fd)
        os.rename(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Waits until one file's content, or one folder's list of names, is on the disk.

    Raises:
        OSError: `path` is missing or is a symbolic link, or the disk failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def sync_tree(folder: Path) -> None:
    """Waits until every file and folder in `folder`, and `folder` itself, is on the disk; the deepest first.

    Raises:
        OSError: something in it is missing or is a symbolic link, or the disk failed.
    """
    with os.scandir(folder) as entries:
        children = [(folder / entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    for child, is_folder in children:
        if is_folder:
            sync_tree(child)
        else:
            sync(child)
    sync(folder)
