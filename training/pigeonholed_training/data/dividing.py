"""Writing a split down: train and test folders, or a list, that others can use and `sources.find` reads back."""

from __future__ import annotations

import csv
import errno
import io
import os
import shutil
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np

from pigeonholed import durable
from pigeonholed.spreadsheets import shielded
from pigeonholed_training.data import likeness, sources
from pigeonholed_training.data.building import new_folder, require_new, require_room
from pigeonholed_training.data.findings import name_of
from pigeonholed_training.data.inspecting import inspect
from pigeonholed_training.data.splitting import Part, allot
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from pigeonholed_training.data.inspecting import Inspected

# Whatever is split further is split by another hash than this, see `splitting.allot`.
_SALT: Final = "dataset split"
_SAME_CUT: Final = 0.25


@dataclass(frozen=True)
class Division:
    """A data set, split.

    Attributes:
        data: as it was given.
        root: what paths are relative to.
        source: how classes and split were given.
        labels: the classes.
        files: the pictures, in order of the source.
        parts: the part of each; `Part.NONE` for what is left out.
        bad: what is no picture.
    """

    data: Path
    root: Path
    source: sources.Kind
    labels: tuple[str, ...]
    files: tuple[Inspected, ...]
    parts: tuple[Part, ...]
    bad: tuple[Inspected, ...]

    def counts(self) -> dict[Part, Counter[int]]:
        """How many pictures of each class are in each part that has any."""
        counted: dict[Part, Counter[int]] = {}
        for file, part in sorted(zip(self.files, self.parts, strict=True), key=lambda pair: int(pair[1]) % 8):
            counted.setdefault(part, Counter())[file.target] += 1
        return counted


def divide(
    data: Path,
    fractions: Mapping[Part, float],
    seed: int,
    *,
    workers: int = 0,
    on_picture: Callable[[int, int], None] = lambda _done, _total: None,
) -> Division:
    """Splits a data set as training would, by content: copies and near-duplicates stay together.

    Args:
        data: folder or list (`sources.find`); what it says of a split stands.
        fractions: to be held back; the rest is for training.
        seed: another seed is another split.
        workers: threads; 0 is one for each CPU.
        on_picture: told (done, total) as it goes.

    Raises:
        WrongUsage, Misconfigured: it is no data set, or nothing in it is a picture.
    """
    listing = sources.find(data)
    looked, thumbnails = inspect(listing, workers=workers, on_picture=on_picture)
    good = [index for index, file in enumerate(looked) if file.is_picture]
    if not good:
        raise Misconfigured(f"Cannot split {data}: it holds no picture that can be read.")
    files = tuple(looked[index] for index in good)
    digests = [file.sha256 for file in files]
    parts = allot(
        digests,
        [file.target for file in files],
        fractions,
        f"{_SALT} {seed}",
        likeness.groups(digests, thumbnails[good]),
        np.array([Part.NONE if file.part is None else file.part for file in files], np.int8),
    )
    return Division(
        data=data,
        root=listing.root,
        source=listing.kind,
        labels=listing.labels,
        files=files,
        parts=tuple(map(Part, parts.tolist())),
        bad=tuple(file for file in looked if not file.is_picture),
    )


def check_place(data: Path, out: Path) -> None:
    """Finds out before any work whether a split can be written there.

    Raises:
        WrongUsage: it is there already, or in the data set.
    """
    require_new(out, "the split")
    if data.is_dir() and out.suffix.lower() != ".csv" and _is_inside(out, data):
        raise WrongUsage(f"Cannot write the split into {out}: it is in the data set {data}; choose another place.")


def write_folders(division: Division, out: Path, *, link: bool = False) -> None:
    """Writes `out/PART/CLASS/…`, all of it or nothing; the pictures themselves stay where they are.

    Args:
        division: what to write.
        out: a new folder, outside of the data set.
        link: hard links, which take no room, in the place of copies.

    Raises:
        WrongUsage: `out` is there already, or in the data set, or on another disk than what is to be linked.
        Unavailable: the disk is or will be full.
        Misconfigured: it cannot be written, or a picture cannot be read any more.
    """
    check_place(division.data, out)
    if not link:
        used = zip(division.files, division.parts, strict=True)
        require_room(out, sum(file.size_bytes for file, part in used if part is not Part.NONE), "the split")
    with new_folder(out, "the split") as partial:
        for source, place in _places(division):
            destination = os.path.join(partial, place)
            os.makedirs(os.path.dirname(destination), exist_ok=True)
            try:
                (_link if link else shutil.copy2)(source, destination)
            except OSError as fault:
                if fault.errno == errno.EXDEV:
                    raise WrongUsage(f"Cannot link into {out}: it is on another disk; use --copy.") from fault
                raise


def _link(source: str, destination: str) -> None:
    os.link(os.path.realpath(source), destination)


def _is_inside(path: Path, folder: Path) -> bool:
    inner, outer = os.path.realpath(path), os.path.realpath(folder)
    return os.path.commonpath([inner, outer]) == outer


def _places(division: Division) -> Iterator[tuple[str, str]]:
    """(path, relative place in the new folder) of every picture that is used; no place comes twice."""
    taken: set[str] = set()
    for file, part in zip(division.files, division.parts, strict=True):
        if part is Part.NONE:
            continue
        stem, extension = os.path.splitext(
            os.path.join(name_of(part), division.labels[file.target], _tail(division, file))
        )
        place, number = stem + extension, 0
        while place in taken:
            number += 1
            place = f"{stem}-{number}{extension}"
        taken.add(place)
        yield os.path.join(division.root, file.path), place


def _tail(division: Division, file: Inspected) -> str:
    """What of its path is below the folder of its class."""
    above = {"folders": 1, "split-folders": 2, "csv": 0}[division.source]
    return os.path.join(*file.path.split("/")[above:]) if above else os.path.basename(file.path)


def write_list(division: Division, file: Path) -> None:
    """Writes a CSV with the columns path, label and split; paths are relative to its folder where they can be.

    Raises:
        WrongUsage: the file is there already.
        Misconfigured: it cannot be written, or a name cannot be kept in it.
    """
    require_new(file, "the split")
    folder = os.path.abspath(file.parent)
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(("path", "label", "split"))
    for one, part in zip(division.files, division.parts, strict=True):
        if part is Part.NONE:
            continue
        path = os.path.abspath(os.path.join(division.root, one.path))
        if path.startswith(os.path.join(folder, "")):
            path = os.path.relpath(path, folder)
        if path != path.strip() or path.encode("utf-8", "replace") != os.fsencode(path):
            raise Misconfigured(f"Cannot write the split to {file}: the name {path!a} cannot be kept in a list.")
        writer.writerow((shielded(path), shielded(division.labels[one.target]), name_of(part)))
    try:
        durable.write_file(file, text.getvalue().encode("utf-8"))
    except OSError as fault:
        raise Misconfigured(f"Cannot write the split to {file}: {fault.strerror or fault}.") from fault


def is_lopsided(division: Division, fractions: Mapping[Part, float]) -> bool:
    """Whether far less was held back than asked for, as from a folder that the same seed was cut from before."""
    given = {file.part for file in division.files}
    free = sum(file.part is None or file.part is Part.TRAIN for file in division.files)
    counts = Counter(division.parts)
    return any(
        counts[part] < _SAME_CUT * share * free
        for part, share in fractions.items()
        if part is not Part.TRAIN and part not in given and share * free >= 20
    )
