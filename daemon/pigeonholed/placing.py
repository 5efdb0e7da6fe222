"""Where a file goes: the template of an inbox, and another name where one is taken."""

from __future__ import annotations

import os
import string
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from pigeonholed.companions import room_for
from pigeonholed.images import Classified, Duplicate, Placement, Rejected

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pigeonholed.images import Arrival, Outcome

_NAME_BYTES = 255
_PATH_BYTES = 4095  # PATH_MAX without its final NUL
_SIDECAR = ".reason.json"
_DEFAULT = "{label}/{subdir}/{name}"


def sidecar_of(path: str) -> str:
    """Where the reason for a rejected file is written."""
    return path + _SIDECAR


def placement_of(outcome: Outcome) -> Placement:
    """Which part of the output an outcome belongs to."""
    match outcome:
        case Rejected():
            return Placement.REJECTED
        case Duplicate():
            return Placement.DUPLICATE
        case Classified(prediction=prediction, threshold=threshold):
            return Placement.SORTED if prediction.confidence >= threshold else Placement.UNSURE


@dataclass(frozen=True, slots=True)
class Placer:
    """Renders the destinations of one inbox.

    Attributes:
        template: relative path with the fields of the contract.
    """

    template: str = _DEFAULT

    def destination(self, outcome: Outcome) -> str:
        """The wanted path, relative to the output; `alternatives` gives others where it is taken."""
        path = outcome.arrival.file.path
        match outcome:
            case Rejected(reason=reason):
                return cut(f"_rejected/{reason.value}/{path}", len(_SIDECAR))
            case Duplicate():
                return f"_duplicates/{path}"
            case Classified():
                below = self._rendered(outcome)
                return below if placement_of(outcome) is Placement.SORTED else f"_unsure/{below}"

    def _rendered(self, outcome: Classified) -> str:
        path = outcome.arrival.file.path
        if self.template == _DEFAULT:
            rendered = f"{outcome.prediction.label}/{path}"
        else:
            rendered = string.Formatter().vformat(self.template, (), _fields(outcome))
        components = [_safe(component) for component in rendered.split("/") if component]
        return "/".join(components)


def _fields(outcome: Classified) -> dict[str, object]:
    subdir, _, name = outcome.arrival.file.path.rpartition("/")
    stem, _, extension = name.rpartition(".")
    taken = outcome.taken_at or _local_time(outcome.fingerprint.mtime_ns)
    return {
        "label": outcome.prediction.label,
        "subdir": subdir,
        "name": name,
        "stem": stem or name,  # as in .name, which has nothing but a stem
        "ext": extension if stem else "",
        "inbox": outcome.arrival.file.inbox,
        "date": taken,
        "confidence": outcome.prediction.confidence,
        "model": outcome.prediction.model,
        "version": outcome.prediction.version,
    }


def _local_time(mtime_ns: int) -> datetime:
    """When a file was changed; a time that no calendar holds (anybody can set one) becomes the epoch."""
    try:
        return datetime.fromtimestamp(mtime_ns / 1e9).astimezone()
    except (OverflowError, ValueError, OSError):
        return datetime.fromtimestamp(0).astimezone()


def _safe(component: str) -> str:
    """A component that is none of our own folders, nothing hidden, and no way out of the output."""
    if component[0] in "._":
        component = "-" + component
    return component if len(component) < _NAME_BYTES // 4 else _shortened(component, "")


def cut(path: str, room: int) -> str:
    """Leave room for a suffix behind the last component."""
    folder, _, name = path.rpartition("/")
    if len(os.fsencode(name)) + room <= _NAME_BYTES:
        return path
    return f"{folder}/{_shortened(name, '', room)}"


def flattened(path: str, most_bytes: int) -> str:
    """The same path, or where it is too long for the system, its label (and what is above that) and its name."""
    if len(os.fsencode(path)) <= most_bytes:
        return path
    first, *folders, name = path.split("/")
    kept = [first, *folders[: 1 if first.startswith("_") else 0], name]
    return "/".join(kept)


def clear_of_files(path: str, key: str, is_file: Callable[[str], bool]) -> str:
    """The same path where no folder on the way is a file; such a folder gets another name as a file would.

    Args:
        path: the wanted path.
        key: of the arrival, 32 hex digits.
        is_file: whether a path is there and is no folder.
    """
    *folders, name = path.split("/")
    way = ""
    for folder in folders:
        way = next(alternatives(f"{way}{folder}", key, is_file)) + "/"
    return way + name


def alternatives(path: str, key: str, taken: Callable[[str], bool], room: int = 0) -> Iterator[str]:
    """The names to try, in order: the wanted one, -1 to -9, then one that is nobody else's.

    Args:
        path: the wanted path.
        key: of the arrival, 32 hex digits.
        taken: whether a path is known to be in use.
        room: bytes to be left behind each name.
    """
    folder, slash, name = path.rpartition("/")
    if not taken(path):
        yield path
    room = max(room, len(_SIDECAR) if path.startswith("_rejected/") else 0)
    for number in range(1, 10):
        other = f"{folder}{slash}{_shortened(name, f'-{number}', room)}"
        if not taken(other):
            yield other
    yield f"{folder}{slash}{_shortened(name, f'-{key[-12:]}', room)}"


def free_name(wanted: str, arrival: Arrival, taken: Callable[[str], bool]) -> str:
    """The wanted name or another that is free, also for what travels with the file."""
    if not arrival.companions:
        return next(alternatives(wanted, arrival.key, taken))
    room = room_for(arrival.file.path, [companion.file.path for companion in arrival.companions])
    return next(alternatives(cut(wanted, room), arrival.key, taken, room))


def room_below(root: str) -> int:
    """How many bytes a path below an output folder may have, so that its users can name what is there."""
    return _PATH_BYTES - len(os.fsencode(root)) - 64  # for a number, a sidecar and the slashes


def _shortened(name: str, suffix: str, room: int = 0) -> str:
    """Put a suffix behind the stem, cutting the stem at a character so that the name stays within 255 bytes."""
    stem, extension = os.path.splitext(name)
    if len(os.fsencode(extension)) > 32:  # no extension, but a name with a dot early in it
        stem, extension = name, ""
    most = _NAME_BYTES - room - len(os.fsencode(extension + suffix))
    while len(os.fsencode(stem)) > most:
        stem = stem[:-1]
    return stem + suffix + extension
