"""What lies in work and hold folders, and no row explains."""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from pigeonholed.findings import Finding, Kind
from pigeonholed.hold_folder import HOLD
from pigeonholed.output import PRIVATE
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

_AT_REST = frozenset({"owner", "lock"})
_ARRIVAL = re.compile(r"(?:[0-9]{1,18}-)?([0-9a-f]{32})(?:\.held|\.part|\.json|\.json\.part)?")
_STARTS = "the next start of 'pigeonholed run' removes it"


def left_over(
    outputs: Sequence[str], inboxes: Sequence[str], is_flying: Callable[[str], bool], *, resting: bool
) -> Iterator[Finding]:
    """Files in flight whose row is none of those that are not finished.

    Args:
        outputs: whose work folders are looked into.
        inboxes: whose hold folders are.
        is_flying: whether the row of an arrival, by its key, is not finished.
        resting: no process works there: an empty folder is left over, too.
    """
    for root, name, known in (
        *((output, PRIVATE, _AT_REST) for output in dict.fromkeys(outputs)),
        *((inbox, HOLD, frozenset[str]()) for inbox in dict.fromkeys(inboxes)),
    ):
        yield from _within(root, name, known, is_flying, resting=resting)


def _within(
    root: str, name: str, known: frozenset[str], is_flying: Callable[[str], bool], *, resting: bool
) -> Iterator[Finding]:
    folder = os.path.join(root, name)
    try:
        entries = sorted(os.listdir(folder))
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        yield Finding(Kind.UNREADABLE, name, f"cannot be looked into: {error.strerror}", root)
        return
    for entry in entries:
        if entry in known:
            continue
        path = f"{name}/{entry}"
        batch = _names(os.path.join(folder, entry))
        if batch is None:
            yield from _unless_gone(root, path, "is in a work folder, and no row explains it")
        elif not batch and resting:
            yield from _unless_gone(root, path, "is an empty folder of a batch that is over", _STARTS)
        for file in batch or ():
            key = _ARRIVAL.fullmatch(file)
            if key is None or not is_flying(key[1]):
                yield from _unless_gone(root, f"{path}/{file}", "is in a work folder, and no row explains it")


def _names(path: str) -> list[str] | None:
    """The names in a folder; None for what is none, or is gone."""
    try:
        if not stat.S_ISDIR(os.lstat(path).st_mode):
            return None
        return sorted(os.listdir(path))
    except OSError:
        return None


def _unless_gone(root: str, path: str, what: str, remedy: str = "") -> Iterator[Finding]:
    if os.path.lexists(os.path.join(root, path)):
        yield Finding(Kind.LEFT_OVER, to_text(path), what, root, remedy=remedy)
