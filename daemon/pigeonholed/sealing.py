"""The seal of a folder: a `SHA256SUMS` that names every file in it, so that any change is noticed.

The format is that of `sha256sum`; `sha256sum --check SHA256SUMS` in the folder does the same check by hand.
"""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import stat
from typing import TYPE_CHECKING

from pigeonholed import durable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SEAL = "SHA256SUMS"
MAX_FILES = 4096  # folders among them
MAX_FILE_BYTES = 4 << 30
MAX_BYTES = 8 << 30  # of all files together
MAX_TEXT_BYTES = 8 << 20  # the seal itself, and any file that is read as text

_CHUNK_BYTES = 1 << 20
# Plain ASCII words: no file in a bundle needs more, and none of them can surprise a shell, a log or another system.
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}(/[A-Za-z0-9_][A-Za-z0-9._-]{0,127}){0,7}")
_LINE = re.compile(r"([0-9a-f]{64}) [ *](.+)")


class SealError(Exception):
    """The folder is not what its seal says; the message names the file and the fault, without the folder."""


def seal(folder: Path) -> None:
    """Writes `SHA256SUMS` over every other file of `folder`, durably, after all of them are on the disk.

    Raises:
        SealError: the folder holds a link, a device, an over-large file or an unusual name.
        OSError: reading or writing failed.
    """
    lines = [f"{_digest(folder, name)}  {name}\n" for name in sorted(_files(folder)) if name != SEAL]
    durable.sync_tree(folder)
    durable.write_file(folder / SEAL, "".join(lines).encode("ascii"))


def verify(folder: Path) -> dict[str, str]:
    """Checks every file of `folder` against its seal.

    Returns:
        The path of each file, relative to `folder`, and its SHA-256 in lower-case hex.

    Raises:
        SealError: no seal or a malformed one; a file that is missing, unlisted, changed, over-large, or no regular
            file; a name that is absolute, leads outside or is otherwise unusual.
    """
    listed = _parse(read(folder, SEAL, limit=MAX_TEXT_BYTES).decode("utf-8", "replace"))
    present = set(_files(folder)) - {SEAL}
    if sum(_size(folder / name) for name in present) > MAX_BYTES:
        raise SealError(f"its files are larger than {MAX_BYTES} bytes together")
    for name in sorted(present - listed.keys()):
        raise SealError(f"{name} is not listed in {SEAL}")
    for name, expected in listed.items():
        if _digest(folder, name) != expected:
            raise SealError(f"{name} does not match its checksum")
    return listed


def digest_of(folder: Path) -> str:
    """SHA-256 of the seal itself, which stands for every byte of the folder.

    Raises:
        SealError: there is none, or it cannot be read.
    """
    return _digest(folder, SEAL)


def read(folder: Path, name: str, *, expected: str | None = None, limit: int = MAX_FILE_BYTES) -> bytes:
    """The content of one file, opened once and without following a link at its end.

    Args:
        folder: the sealed folder.
        name: path relative to it.
        expected: SHA-256 that these very bytes must have; None leaves that unchecked.
        limit: the most bytes accepted.

    Raises:
        SealError: missing, unreadable, no regular file, larger than `limit`, or not the expected bytes.
    """
    digest = hashlib.sha256()
    chunks = []
    for chunk in _chunks(folder, name, limit):
        digest.update(chunk)
        chunks.append(chunk)
    if expected is not None and digest.hexdigest() != expected:
        raise SealError(f"{name} does not match its checksum")
    return b"".join(chunks)


def _parse(text: str) -> dict[str, str]:
    """The lines of a seal as name -> digest."""
    listed: dict[str, str] = {}
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            raise SealError(f"{SEAL} is not in the format of sha256sum")
        _check_name(match[2])
        if match[2] in listed:
            raise SealError(f"{SEAL} lists {match[2]} twice")
        listed[match[2]] = match[1]
    if not listed:
        raise SealError(f"{SEAL} is empty")
    return listed


def _check_name(name: str) -> None:
    """Refuses names that are absolute, climb out, are hidden, or hold anything but plain ASCII words."""
    if not _NAME.fullmatch(name):
        raise SealError(f"the file name {name[:200]!r} is not allowed in it")


def _files(folder: Path, prefix: str = "", left: Iterator[int] | None = None) -> Iterator[str]:
    """Relative paths of all files; anything that is neither a regular file nor a folder is refused.

    `left` counts down what may still come, over all folders.
    """
    left = iter(range(MAX_FILES)) if left is None else left
    try:
        with os.scandir(folder / prefix) as entries:
            children = sorted(itertools.islice(entries, MAX_FILES + 1), key=lambda entry: entry.name)
    except OSError as fault:
        raise SealError(f"it cannot be listed ({fault.strerror})") from fault
    for entry in children:
        if next(left, None) is None:
            raise SealError(f"it holds more than {MAX_FILES} files")
        name = prefix + entry.name
        _check_name(name)
        if entry.is_dir(follow_symlinks=False):
            yield from _files(folder, name + "/", left)
        elif entry.is_file(follow_symlinks=False):
            yield name
        else:
            raise SealError(f"{name} is a symbolic link or a special file")


def _size(path: Path) -> int:
    try:
        return os.lstat(path).st_size
    except OSError:  # gone meanwhile; that is told when it is read
        return 0


def _digest(folder: Path, name: str) -> str:
    """SHA-256 of one file in lower-case hex."""
    digest = hashlib.sha256()
    for chunk in _chunks(folder, name, MAX_FILE_BYTES):
        digest.update(chunk)
    return digest.hexdigest()


def _chunks(folder: Path, name: str, limit: int) -> Iterator[bytes]:
    """The content of a regular file in pieces; counted while reading, because a file can grow after it was sized."""
    try:
        # O_NONBLOCK: opening a pipe must not wait for its other end.
        fd = os.open(folder / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(fd, "rb", buffering=0) as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise SealError(f"{name} is no regular file")
            left = limit
            while chunk := stream.read(_CHUNK_BYTES):
                left -= len(chunk)
                if left < 0:
                    raise SealError(f"{name} is larger than {limit} bytes")
                yield chunk
    except FileNotFoundError as fault:
        raise SealError(f"{name} is missing") from fault
    except OSError as fault:
        raise SealError(f"{name} cannot be read ({fault.strerror})") from fault
