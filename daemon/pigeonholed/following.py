"""Sidecars of a picture that is filed anew: they go ahead of it, and come back where it cannot go.

Their rows say where they were until the picture's says that it is where it belongs: where they go follows from that.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import structlog

from pigeonholed import beneath
from pigeonholed.disk import is_there
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from pigeonholed.output import Output

log = structlog.get_logger()

Step = tuple[str, str]
"""Where a sidecar was, and where it goes: below the output, as `os.fsdecode` gives it."""

_OUT_OF_REACH = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


def rename(output: Output, old: str, new: str) -> None:
    """Move a file within an output, never over anything and through no link; folders on its way are made.

    Raises:
        OSError: as `rename(2)`; FileExistsError where the name is taken.
    """
    with ExitStack() as stack:
        source = stack.enter_context(beneath.folder(output.root, os.path.dirname(old)))
        target = stack.enter_context(beneath.folder(output.root, os.path.dirname(new), make=True))
        output.disk.rename_new(os.path.basename(old), os.path.basename(new), source_dir=source, target_dir=target)


def go_ahead(output: Output, steps: Iterable[Step], gone: list[Step]) -> None:
    """Move what is there, and add it to `gone`; what its owner took away, or replaced by a link, is left out.

    Raises:
        OSError: as `rename`.
    """
    for old, new in steps:
        if not _is_file(output, old):
            continue
        try:
            rename(output, old, new)
        except OSError:
            if not is_there(os.path.join(output.root, old)):
                gone.append((old, new))  # it happened, whatever was said of it
            raise
        gone.append((old, new))


def come_back(output: Output, gone: list[Step]) -> list[Step]:
    """Undo what `go_ahead` did, durably; what cannot go back, because its old name is taken, is returned.

    Raises:
        OSError: nobody knows how far one has come.
    """
    stuck: list[Step] = []
    for old, new in gone:
        try:
            with suppress(FileNotFoundError):  # its owner was faster
                rename(output, new, old)
        except (FileExistsError, NotADirectoryError):
            log.warning("sidecar_left", path=to_text(new), error=f"its old place {to_text(old)} is taken")
            stuck.append((old, new))
    if gone:
        output.disk.sync([], folders_of(output, gone))
        output.require()  # where it was away, its names may have led nowhere
    gone.clear()
    return stuck


def gone_ahead(output: Output, steps: Iterable[Step]) -> list[Step]:
    """What an earlier process has moved: it is in its new place, and not in its old one."""
    return [(old, new) for old, new in steps if not is_there(os.path.join(output.root, old)) and _is_file(output, new)]


def folders_of(output: Output, steps: Sequence[Step]) -> set[str]:
    """Whose entries these moves change, or may have made."""
    folders: set[str] = set()
    for old, new in steps:
        folders.add(os.path.dirname(os.path.join(output.root, old)))
        path = os.path.join(output.root, new)
        while len(path) > len(output.root):
            path = os.path.dirname(path)
            folders.add(path)
    return folders


def _is_file(output: Output, path: str) -> bool:
    """Whether a regular file is there, through no link.

    Raises:
        OSError: nobody knows.
    """
    try:
        with beneath.folder(output.root, os.path.dirname(path)) as folder:
            return stat.S_ISREG(os.lstat(os.path.basename(path), dir_fd=folder).st_mode)
    except OSError as error:
        if error.errno in _OUT_OF_REACH:
            return False
        raise
