"""Where the pictures of a data set are, and of which class each is: class folders, train/test folders, a CSV."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pigeonholed.bundle import BundleError, check_labels
from pigeonholed_training.data import lists
from pigeonholed_training.data.splitting import Part
from pigeonholed_training.errors import Misconfigured, WrongUsage

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

Kind = Literal["folders", "split-folders", "csv"]


@dataclass(frozen=True, slots=True)
class Entry:
    """A file that is said to be a picture of a class; nobody has looked into it yet.

    Attributes:
        path: relative to the root of its listing; absolute where a list leads out of its folder.
        target: index into the labels.
        part: of the split, where the source says so.
    """

    path: str
    target: int
    part: Part | None


@dataclass(frozen=True)
class Listing:
    """What a data set says of itself.

    Attributes:
        root: the folder that paths are relative to.
        labels: the classes, sorted.
        entries: by class and path in a folder, in the order of the lines in a list.
        kind: of source.
        astray: paths of symbolic links that lead out of the data set or to folders; they are not followed.
    """

    root: Path
    labels: tuple[str, ...]
    entries: tuple[Entry, ...]
    kind: Kind
    astray: tuple[str, ...] = ()


def find(data: Path) -> Listing:
    """Lists a data set.

    A folder of class folders, with whatever is below each; or a folder `train` of class folders, beside it perhaps
    others for validation, calibration and test (`lists.PART_WORDS`), where `train` alone leaves the split open; or a
    file ending in .csv or .tsv (`lists.read`). Hidden entries are passed over. A link to a file is followed where it
    stays in the data set, a link to a folder only where it is a class or a part of the split.

    Raises:
        WrongUsage: there is no such folder or file.
        Misconfigured: it is no data set: fewer than two classes, names that cannot be folders beside each other, a
            class without pictures to train on.
    """
    if not os.path.isdir(data):
        return _find_in_list(data)
    names = _folders(data)
    parts = _parts_of(data, names)
    if parts is None:
        labels = _checked(data, names)
        return _listing(data, labels, "folders", {"": (None, labels)})
    train = next(name for name, part in parts.items() if part is Part.TRAIN)
    labels = _checked(data / train, _folders(data / train))
    below: dict[str, tuple[Part | None, tuple[str, ...]]] = {train: (Part.TRAIN if len(parts) > 1 else None, labels)}
    for name in sorted(parts, key=parts.__getitem__):
        if name != train:
            below[name] = (parts[name], _also_in_train(data, train, labels, name))
    return _listing(data, labels, "split-folders", below)


def _folders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.name[0] != "." and entry.is_dir())
    except OSError as fault:
        raise WrongUsage(f"Cannot train on {folder}: {fault.strerror}.") from fault


def _has_files(folder: Path) -> bool:
    with os.scandir(folder) as entries:
        return any(entry.name[0] != "." and entry.is_file() for entry in entries)


def _parts_of(data: Path, names: Sequence[str]) -> dict[str, Part] | None:
    """The part of the split that each folder holds; None where the folders are classes.

    A class may be called train, beside bus and bicycle: parts they are only where they hold class folders.
    """
    parts = {name: lists.PART_WORDS[name.casefold()] for name in names if name.casefold() in lists.PART_WORDS}
    others = [name for name in names if name not in parts]
    train = next((name for name, part in parts.items() if part is Part.TRAIN), None)
    if not parts or (others and (train is None or len(parts) == 1 or not _folders(data / train))):
        return None
    if train is None:
        raise Misconfigured(f"Cannot train on {data}: it holds {_named(names)}, but no folder 'train' to learn from.")
    if others:
        raise Misconfigured(
            f"Cannot train on {data}: beside {_named(list(parts))} it holds {_named(others)}, which is no part of a "
            "split; move that away."
        )
    if not _folders(data / train):
        raise Misconfigured(
            f"Cannot train on {data}: its folder {train!a} holds no class folders; put the pictures of each class into "
            f"a folder of their own in it, as in {train}/cat and {train}/dog."
        )
    twins = [name for name in parts if list(parts.values()).count(parts[name]) > 1]
    if twins:
        raise Misconfigured(f"Cannot train on {data}: {_named(twins)} are the same part of the split; merge them.")
    return parts


def _named(names: Sequence[str]) -> str:
    shown = [ascii(name) for name in names[:4]]
    if len(names) > len(shown):
        return f"{', '.join(shown)} and {len(names) - len(shown)} more"
    return " and ".join([", ".join(shown[:-1]), shown[-1]] if len(shown) > 1 else shown)


def _checked(folder: Path, names: Sequence[str]) -> tuple[str, ...]:
    """The classes, as they are allowed to be called."""
    if len(names) < 2:
        raise Misconfigured(
            f"Cannot train on {folder}: it must hold at least two folders of pictures, one for each class, "
            f"and it holds {f'only one, {names[0]!a}' if names else 'none'}.{_advice(folder, names)}"
        )
    return _as_labels(folder, names, "Rename that folder.")


def _advice(folder: Path, names: Sequence[str]) -> str:
    """What may have been meant by a folder with fewer than two folders in it."""
    if not names:
        return " Sort its files into such folders." if _has_files(folder) else ""
    if len(_folders(folder / names[0])) > 1 and not _has_files(folder / names[0]):
        return f" Did you mean {folder / names[0]}?"
    return ""


def _as_labels(data: Path, names: Sequence[str], advice: str) -> tuple[str, ...]:
    try:
        check_labels(names)
    except BundleError as fault:
        raise Misconfigured(f"Cannot train on {data}: {fault} {advice}") from fault
    return tuple(names)


def _also_in_train(data: Path, train: str, labels: tuple[str, ...], part: str) -> tuple[str, ...]:
    names = _folders(data / part)
    if not names and _has_files(data / part):
        raise Misconfigured(
            f"Cannot train on {data}: its folder {part!a} holds pictures but no class folders; sort them as in "
            f"{train}, or move that folder away."
        )
    for name in names:
        if name not in labels:
            raise _not_in_train(data, name, labels, f"{part}/{name}", train)
    return tuple(names)


def _not_in_train(data: Path, name: str, labels: Sequence[str], where: str, train: str) -> Misconfigured:
    folded = {label.casefold(): label for label in labels}
    near = difflib.get_close_matches(name.casefold(), folded, 1)
    hint = f"; did you mean {folded[near[0]]!a}?" if near else "."
    return Misconfigured(f"Cannot train on {data}: the class of {where} has no pictures in {train}{hint}")


def _listing(
    data: Path, labels: tuple[str, ...], kind: Kind, below: dict[str, tuple[Part | None, tuple[str, ...]]]
) -> Listing:
    """Walks the classes of each folder of the split; the empty name is the data set itself."""
    entries: list[Entry] = []
    astray: list[str] = []
    numbers = {label: number for number, label in enumerate(labels)}
    for folder, (part, names) in below.items():
        for name in names:
            inside, outside = _files(data, os.path.join(folder, name))
            entries += [Entry(path, numbers[name], part) for path in inside]
            astray += outside
    return Listing(data, labels, tuple(entries), kind, tuple(astray))


def _files(data: Path, top: str) -> tuple[list[str], list[str]]:
    """Sorted paths of what is in the folder `top` and below, and of the links that are not followed."""
    roots = tuple(os.path.join(os.path.realpath(path), "") for path in (data, data / top))
    inside: list[str] = []
    astray: list[str] = []
    folders = [top]
    while folders:
        folder = folders.pop()
        try:
            with os.scandir(os.path.join(data, folder)) as found:
                entries = [entry for entry in found if entry.name[0] != "."]
        except FileNotFoundError:
            continue  # gone since its name was read
        except OSError as fault:
            raise Misconfigured(f"Cannot train on {data}: {folder!a} cannot be read: {fault.strerror}.") from fault
        for entry in entries:
            path = f"{folder}/{entry.name}"
            if entry.is_symlink():
                follow = not entry.is_dir() and os.path.realpath(entry.path).startswith(roots)
                (inside if follow else astray).append(path)
            elif entry.is_dir(follow_symlinks=False):
                folders.append(path)
            else:
                inside.append(path)
    return sorted(inside), sorted(astray)


def _find_in_list(data: Path) -> Listing:
    if os.path.lexists(data) and data.suffix.lower() not in {".csv", ".tsv"}:
        raise WrongUsage(
            f"Cannot train on {data}: it is a file, neither a folder of class folders nor a list ending in .csv."
        )
    lines = lists.read(data)
    labels = _as_labels(data, sorted({line.label for line in lines}), "Rename that class.")
    numbers = {label: number for number, label in enumerate(labels)}
    all_train = all(line.part is Part.TRAIN for line in lines)  # then the split is as open as without the column
    entries = tuple(Entry(line.path, numbers[line.label], None if all_train else line.part) for line in lines)
    learned = {entry.target for entry in entries if entry.part in {None, Part.TRAIN}}
    for line in lines:
        if numbers[line.label] not in learned:
            usable = [label for label in labels if numbers[label] in learned]
            where = f"line {line.number}, {line.label!a},"
            raise _not_in_train(data, line.label, usable, where, "the training part")
    return Listing(data.parent, labels, entries, "csv")
