"""Moving files out of a data set, and back: nothing is deleted or overwritten, and a list says what went where."""

from __future__ import annotations

import contextlib
import csv
import errno
import hashlib
import os
import secrets
import shutil
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pigeonholed_training.errors import Misconfigured, TrainingError, Unavailable, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

LIST: Final = "set-aside.csv"
"""The list in the folder that files were moved to: from, to, why."""

_NO_LINKS: Final = {errno.EXDEV, errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


@dataclass(frozen=True, slots=True)
class Move:
    """One file that was moved; absolute paths."""

    source: str
    destination: str
    why: str


def check_place(data: Path, root: Path, folder: Path) -> None:
    """Sees to it that what is set aside is out of the data set.

    Raises:
        WrongUsage: `folder` is the data set, or in it, or around it, or is no folder.
    """
    inside, outside = os.path.realpath(folder), os.path.realpath(data if data.is_dir() else root)
    if os.path.lexists(folder) and not folder.is_dir():
        raise WrongUsage(f"Cannot set files aside in {folder}: it is no folder.")
    if data.is_dir() and os.path.commonpath([inside, outside]) in {inside, outside}:
        where = "in" if inside.startswith(outside) else "around"
        raise WrongUsage(f"Cannot set files aside in {folder}: it is {where} the data set {data}; name another folder.")


def set_aside(
    root: Path, paths: Mapping[str, str], folder: Path, on_move: Callable[[Move], None] = lambda _move: None
) -> list[Move]:
    """Moves files to the same places below `folder`; a taken name becomes `name-1`.

    Every move is written into the list `LIST` there before it is made.

    Args:
        root: what relative paths are relative to.
        paths: of the files, each with the reason.
        folder: is made if it is missing; may be on another disk.
        on_move: told of each move after it was made.

    Raises:
        TrainingError: a file cannot be moved; it is where it was, and those before it are moved.
        Unavailable: the disk is full.
    """
    try:
        os.makedirs(folder, exist_ok=True)
        with _list_of(folder) as note:
            moves = []
            for path, why in paths.items():
                source = os.path.abspath(os.path.join(root, path))
                move = _move(source, os.path.abspath(os.path.join(folder, path.lstrip("/"))), why, note)
                on_move(move)
                moves.append(move)
            return moves
    except OSError as fault:
        raise _said(fault, f"Cannot set files aside in {folder}") from fault


def put_back(folder: Path, on_move: Callable[[Move], None] = lambda _move: None) -> list[Move]:
    """Moves back what the list in `folder` names and is still there; where the old place is taken it stays.

    Raises:
        WrongUsage: there is no such list.
        Misconfigured: it is none.
        TrainingError: a file cannot be moved.
    """
    file = folder / LIST
    try:
        with open(file, encoding="utf-8", errors="surrogateescape", newline="") as stream:
            rows = list(csv.DictReader(stream))
        listed = [Move(row["to"], row["from"], row["why"]) for row in rows]
    except OSError as fault:
        raise WrongUsage(f"Cannot put back what is in {folder}: {file}: {fault.strerror}.") from fault
    except (KeyError, csv.Error) as fault:
        raise Misconfigured(f"Cannot put back what is in {folder}: {file} is no list of moved files.") from fault
    moves = []
    for move in listed:
        if os.path.lexists(move.source) and not os.path.lexists(move.destination):
            try:
                os.makedirs(os.path.dirname(move.destination), exist_ok=True)
                _place(move.source, move.destination)
            except OSError as fault:
                raise _said(fault, f"Cannot put {move.source} back") from fault
            on_move(move)
            moves.append(move)
    return moves


def _said(fault: OSError, what: str) -> TrainingError:
    kind = Unavailable if fault.errno in {errno.ENOSPC, errno.EDQUOT} else TrainingError
    return kind(f"{what}: {fault.filename or ''}{': ' if fault.filename else ''}{fault.strerror or fault}.")


@contextlib.contextmanager
def _list_of(folder: Path) -> Iterator[Callable[[Move], None]]:
    """Something that adds to the list; what it was told is on the disk when it is left."""
    with open(folder / LIST, "a", encoding="utf-8", errors="surrogateescape", newline="") as stream:
        writer = csv.writer(stream)
        if stream.tell() == 0:
            writer.writerow(("from", "to", "why"))

        def note(move: Move) -> None:
            writer.writerow((move.source, move.destination, move.why))
            stream.flush()

        try:
            yield note
        finally:
            with contextlib.suppress(OSError):
                os.fsync(stream.fileno())


def _move(source: str, wanted: str, why: str, note: Callable[[Move], None]) -> Move:
    os.makedirs(os.path.dirname(wanted), exist_ok=True)
    for destination in _names(wanted):
        if os.path.lexists(destination):
            continue
        move = Move(source, destination, why)
        note(move)
        try:
            _place(source, destination)
        except FileExistsError:
            continue  # somebody was faster
        return move
    raise AssertionError


def _names(wanted: str) -> Iterator[str]:
    yield wanted
    stem, extension = os.path.splitext(wanted)
    number = 0
    while True:
        number += 1
        yield f"{stem}-{number}{extension}"


def _place(source: str, destination: str) -> None:
    """Moves one file to a name that is free; at every moment it is whole at one of the two.

    Raises:
        FileExistsError: the name was not free.
        OSError: it is where it was.
    """
    if os.path.islink(source):
        os.symlink(os.readlink(source), destination)
    else:
        try:
            os.link(source, destination, follow_symlinks=False)
        except OSError as fault:
            if fault.errno not in _NO_LINKS:
                raise
            _copy(source, destination)
    os.unlink(source)


def _copy(source: str, destination: str) -> None:
    """For another disk, or one that knows no hard links: a whole copy, compared, under a name that was free."""
    temporary = os.path.join(os.path.dirname(destination), f".{secrets.token_hex(6)}.tmp")
    try:
        shutil.copyfile(source, temporary, follow_symlinks=False)
        with contextlib.suppress(OSError):
            shutil.copystat(source, temporary)
        with open(temporary, "rb") as stream:
            os.fsync(stream.fileno())
        if _digest(source) != _digest(temporary):
            raise OSError(errno.EIO, "the copy differs from the file", source)
        os.close(os.open(destination, os.O_WRONLY | os.O_CREAT | os.O_EXCL))
        os.replace(temporary, destination)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)


def _digest(path: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
