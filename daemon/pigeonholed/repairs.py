"""What repairing is about: one thing to mend, and what is to be recorded when it is durable."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from pigeonholed import beneath

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from pigeonholed.amendments import Found
    from pigeonholed.entries import Filed
    from pigeonholed.findings import Kind
    from pigeonholed.output import Output

_LONGEST = 4 * 4096  # each byte as an escape


class Left(Exception):
    """Something stays as it is; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to mend; paths are relative to the output, as `os.fsdecode` gives them."""

    kind: Kind
    output: Output
    path: str
    image: int | None
    found: str | None = None
    other: int | None = None


@dataclass(slots=True)
class Batch:
    """What is to be recorded together, once it is durable."""

    rows: Mapping[int, Filed]
    explained: set[str]
    sidecars: set[str]
    gone: list[tuple[int, str]] = field(default_factory=list)
    moved: list[tuple[int, str]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    followed: list[tuple[int, str, str | None]] = field(default_factory=list)
    files: dict[Output, list[str]] = field(default_factory=dict)
    folders: dict[Output, set[str]] = field(default_factory=dict)

    def keep(self, output: Output, path: str) -> None:
        """Make a file and its name durable before anything is recorded."""
        full_path = os.path.join(output.root, path)
        self.files.setdefault(output, []).append(full_path)
        self.keep_names(output, path)

    def keep_names(self, output: Output, path: str) -> None:
        """Make what is in its folder, and what is not, durable; and the folders above."""
        folder = os.path.dirname(os.path.join(output.root, path))
        folders = self.folders.setdefault(output, set())
        while len(folder) >= len(output.root):
            folders.add(folder)
            folder = os.path.dirname(folder)


def is_storable(text: str) -> bool:
    """Whether it is a path as the database has it: no half characters, and no longer than any path."""
    return len(text) <= _LONGEST and not any("\ud800" <= character <= "\udfff" for character in text)


@contextlib.contextmanager
def opened(output: Output, path: str) -> Iterator[int]:
    """A regular file below an output, through no link."""
    try:
        fd = beneath.open_beneath(output.root, path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.ENAMETOOLONG}:
            raise Left(f"it cannot be read: {error.strerror}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Left("it is no regular file")
        yield fd
    finally:
        os.close(fd)
