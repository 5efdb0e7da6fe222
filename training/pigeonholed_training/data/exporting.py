"""Reviewed pictures as training data: class folders or a list, of files that are proven to be what the rows say."""

from __future__ import annotations

import contextlib
import csv
import errno
import os
import secrets
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from pigeonholed import durable
from pigeonholed.labels import fault_among, fault_of
from pigeonholed.paths import to_text
from pigeonholed.spreadsheets import shielded
from pigeonholed_training.data.classing import ClassFolders
from pigeonholed_training.data.proof import Refused, prove, reading
from pigeonholed_training.errors import Misconfigured, Unavailable, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping
    from pathlib import Path

    from pigeonholed_training.data.reviews import Labelled, Source

    _Put = Callable[[Labelled, str], None]

COLUMNS: Final = ("path", "label", "sha256", "source")
"""Of a list; training reads the first two."""

_NAMED: Final = 1000  # pictures left out that a tally names; it counts all
_PRIVATE: Final = ".pigeonholed"  # in every output that the daemon has used
_FULL: Final = {errno.ENOSPC, errno.EDQUOT}


@dataclass(frozen=True, slots=True)
class Left:
    """A picture that was left out.

    Attributes:
        image: its id.
        path: where it should be, relative to its output, escaped as in the database.
        why: the end of a sentence about it.
    """

    image: int
    path: str
    why: str


@dataclass(slots=True)
class Tally:
    """What came of an export so far.

    Attributes:
        labels: pictures of each class.
        sources: the same by who said so.
        copied: files that were copied.
        linked: files that were linked.
        kept: files that were there already.
        left_out: pictures that were not taken.
        left: the first of these.
    """

    labels: Counter[str] = field(default_factory=Counter)
    sources: Counter[Source] = field(default_factory=Counter)
    copied: int = 0
    linked: int = 0
    kept: int = 0
    left_out: int = 0
    left: list[Left] = field(default_factory=list)

    @property
    def pictures(self) -> int:
        """How many were taken."""
        return self.labels.total()

    def take(self, picture: Labelled) -> None:
        """Counts one that is in the export."""
        self.labels[picture.label] += 1
        self.sources[picture.source] += 1

    def leave(self, picture: Labelled, why: str) -> None:
        """Counts one that is not."""
        self.left_out += 1
        if len(self.left) < _NAMED:
            self.left.append(Left(picture.image, to_text(picture.destination or ""), why))


def is_list(out: Path) -> bool:
    """Whether the user means a list, not a folder."""
    return out.suffix.lower() == ".csv"


def check_place(out: Path, inboxes: Iterable[Path], outputs: Iterable[Path]) -> None:
    """Finds out before any work whether an export can be written there.

    Raises:
        WrongUsage: the daemon would sort it, or it would lie among sorted pictures, or there is something else.
    """
    for folders, what in ((inboxes, "inbox"), (outputs, "output")):
        for folder in folders:
            inner, outer = os.path.realpath(out), os.path.realpath(folder)
            if (common := os.path.commonpath([inner, outer])) in {inner, outer}:
                where = "in" if common == outer else "around"
                raise WrongUsage(f"Cannot export into {out}: it is {where} the {what} {folder}; choose another place.")
    if os.path.lexists(out) and not (_is_ours(out) if is_list(out) else out.is_dir()):
        what = "no list of an earlier export" if is_list(out) else "no folder"
        raise WrongUsage(f"Cannot export into {out}: it is there already, and is {what}; choose another name.")


def _is_ours(file: Path) -> bool:
    try:
        with open(file, "rb") as stream:
            return stream.readline(100).strip() == ",".join(COLUMNS).encode()
    except OSError:
        return False


def export(
    pictures: Iterable[Labelled],
    outputs: Mapping[str, Path],
    out: Path,
    *,
    labels: Iterable[str] = (),
    link: bool = False,
    on_picture: Callable[[Tally], None] = lambda _tally: None,
) -> Tally:
    """Takes every picture that is where its row says, with the bytes that its row says, and names the others.

    Into a folder, each becomes `out/LABEL/NAME` (`ClassFolders`), and after an interruption the same call goes on. Into
    a list goes a line for each; it is there whole or not at all, and replaces an earlier one.

    Args:
        pictures: what to take.
        outputs: folder of the output of each inbox.
        out: a folder, new or with class folders in it; or a file ending in .csv.
        labels: that will come; of two that would be the same folder on some disks the first one is taken.
        link: hard links where the disk allows them, in the place of copies.
        on_picture: told the tally after each picture.

    Raises:
        Unavailable: an output is missing (its mount may be away), the disk is full, or another export is at work.
        Misconfigured: it cannot be written there.
    """
    tally = Tally()
    try:
        with _list(out) if is_list(out) else _folders(out, link, tally) as (put, there):
            known = _Labels([*there, *labels])
            for picture in pictures:
                try:
                    known.require(picture.label)
                    put(picture, _place(picture, outputs))
                except Refused as refused:
                    tally.leave(picture, str(refused))
                else:
                    tally.take(picture)
                on_picture(tally)
    except OSError as fault:
        kind, hint = (Unavailable, "; make room, and run it again") if fault.errno in _FULL else (Misconfigured, "")
        raise kind(f"Cannot export into {out}: {fault.strerror or fault}{hint}.") from fault
    return tally


class _Labels:
    """Labels that can be classes beside each other.

    Args:
        first: they are there, or will be; of two that would be the same folder the first is known.
    """

    def __init__(self, first: Iterable[str]) -> None:
        self._known: list[str] = []
        for label in first:
            with contextlib.suppress(Refused):
                self.require(label)

    def require(self, label: str) -> None:
        """Refuses a label that a model could not have."""
        if label in self._known:
            return
        if fault := fault_of(label):
            raise Refused(f"the label {label[:80]!a} {fault}")
        if self._known and (fault := fault_among([*self._known, label])):
            raise Refused(fault)
        self._known.append(label)


def _place(picture: Labelled, outputs: Mapping[str, Path]) -> str:
    """Where the file of a picture should be."""
    if picture.destination is None or picture.sha256 is None:
        raise Refused("it has no file of its own, or one that could not be read")
    output = outputs.get(picture.inbox)
    if output is None:
        raise Refused(f"its inbox {picture.inbox!a} is not in the configuration any more, or has no output there")
    if os.path.isabs(picture.destination) or os.pardir in picture.destination.split("/"):
        raise Refused("its row leads out of the output")
    path = os.path.join(output, picture.destination)
    if not os.path.lexists(path) and not (output / _PRIVATE).is_dir():
        # Not a million pictures that are gone: a mount that is away.
        raise Unavailable(f"Cannot export: the output {output} is missing; mount it again, or correct its path.")
    return path


@contextlib.contextmanager
def _folders(out: Path, link: bool, tally: Tally) -> Iterator[tuple[_Put, tuple[str, ...]]]:
    with ClassFolders.opened(out, link=link) as folders:

        def put(picture: Labelled, source: str) -> None:
            done = folders.put(picture, source)
            setattr(tally, done, getattr(tally, done) + 1)

        yield put, folders.found


@contextlib.contextmanager
def _list(out: Path) -> Iterator[tuple[_Put, tuple[str, ...]]]:
    folder = os.path.join(os.path.abspath(out.parent), "")
    partial = out.with_name(f".{out.name}.{secrets.token_hex(4)}.tmp")
    lines = 0
    try:
        with open(partial, "x", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator="\n")
            writer.writerow(COLUMNS)

            def put(picture: Labelled, source: str) -> None:
                nonlocal lines
                path = os.path.abspath(source).removeprefix(folder)
                if path != path.strip() or path.encode("utf-8", "replace") != os.fsencode(path):
                    raise Refused("its name cannot be kept in a list; export into a folder instead")
                with reading(source) as fd:
                    prove(fd, picture.sha256)
                writer.writerow((shielded(path), shielded(picture.label), picture.sha256, picture.source))
                lines += 1

            yield put, ()
            stream.flush()
            os.fsync(stream.fileno())
        if lines:
            os.replace(partial, out)
            durable.sync(out.parent)
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(partial)
