"""Folders that are there with all they should hold, or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import TYPE_CHECKING

from pigeonholed_training.errors import Misconfigured, Unavailable, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextlib.contextmanager
def new_folder(folder: Path, what: str) -> Iterator[Path]:
    """A hidden folder beside `folder` to write into; it takes that name when all went well, else it is removed.

    After a kill it stays until the next try.

    Args:
        folder: must not exist, or be empty.
        what: is being made, for messages: "the data set".

    Raises:
        WrongUsage: there is something.
        Unavailable: the disk is full.
        Misconfigured: the folder cannot be written.
    """
    folder = folder.absolute()
    require_new(folder, what)
    partial = folder.with_name(f".{folder.name}.partial")
    try:
        if partial.exists():
            shutil.rmtree(partial)
        partial.mkdir(parents=True)
        yield partial
        os.rename(partial, folder)
    except OSError as fault:
        full = fault.errno in {errno.ENOSPC, errno.EDQUOT}
        kind = Unavailable if full else Misconfigured
        raise kind(f"Cannot write {what} into {folder}: {fault.strerror or fault}.") from fault
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def require_new(path: Path, what: str) -> None:
    """Sees to it that nothing is overwritten; an empty folder is as good as none.

    Raises:
        WrongUsage: there is something.
    """
    if os.path.lexists(path) and not (path.is_dir() and not os.listdir(path)):
        raise WrongUsage(f"Cannot write {what} into {path}: it is there already; choose another name.")


def require_room(folder: Path, needed: int, what: str) -> None:
    """Finds out before any work whether the disk has room.

    Raises:
        Unavailable: it has not.
    """
    place = folder.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    if free < needed:
        raise Unavailable(
            f"Cannot write {what} into {folder}: it takes {needed / 1e6:,.0f} MB and {free / 1e6:,.0f} MB are free."
        )
