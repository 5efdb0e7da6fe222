"""Sidecars: small files beside a picture (`x.jpg.xmp`, `x.xmp`) that travel with it. Their names, and which are there.

In code they are called companions: a sidecar of ours, the reason for a rejected file, is another thing.
"""

from __future__ import annotations

import contextlib
import os
import stat
from typing import TYPE_CHECKING

from pigeonholed.images import ImageFile
from pigeonholed.settling import Signature, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from pigeonholed.ignoring import NameFilter
    from pigeonholed.images import Arrival
    from pigeonholed.settling import Marks

_WRITER_PAUSE_S = 0.5


def is_companion(name: str, suffixes: tuple[str, ...]) -> bool:
    """Whether a file is no picture but belongs to one, whether or not that is there; case does not matter.

    Args:
        name: of the file.
        suffixes: lower-case, each with its dot; none where sidecars do not travel.
    """
    return bool(suffixes) and name.lower().endswith(suffixes)


def candidates(path: str, suffixes: Iterable[str]) -> Iterator[str]:
    """Paths at which companions of a picture may be: its name, or its stem, with a suffix, small or in capitals."""
    stem, _extension = os.path.splitext(path)
    for suffix in suffixes:
        for written in dict.fromkeys((suffix, suffix.upper())):
            yield path + written
            if stem != path:
                yield stem + written


def beside(destination: str, picture: str, companions: Sequence[str]) -> tuple[str, ...]:
    """Where companions go when their picture goes to `destination`: beside it, with the stem that it gets.

    Args:
        destination: of the picture.
        picture: its path where it came from.
        companions: their paths where they came from.
    """
    stem, _extension = os.path.splitext(picture)
    new_stem, _extension = os.path.splitext(destination)
    taken = {destination}
    places = []
    for companion in companions:
        ending = companion.removeprefix(picture)
        place = destination + ending
        if ending == companion:
            ending = companion.removeprefix(stem)
            place = new_stem + ending
        number = 1
        while place in taken:  # the picture has lost its extension, or got a suffix of ours for one
            place = f"{destination}.{number}{ending}"
            number += 1
        taken.add(place)
        places.append(place)
    return tuple(places)


def places_beside(destination: str, arrival: Arrival) -> tuple[str, ...]:
    """Where the companions of an arrival go, if it goes to `destination`; in their order."""
    if not arrival.companions:
        return ()
    return beside(destination, arrival.file.path, [companion.file.path for companion in arrival.companions])


def room_for(picture: str, companions: Sequence[str]) -> int:
    """How many bytes behind the name of their picture the names of companions may take."""
    name = os.path.basename(picture)
    names = beside(name, os.path.basename(picture), [os.path.basename(companion) for companion in companions])
    return max((len(os.fsencode(place)) - len(os.fsencode(name)) for place in names), default=0)


class Company:
    """The sidecars of one inbox, as far as they are beside a picture that is complete.

    Args:
        inbox: its name.
        root: its folder.
        suffixes: as for `is_companion`.
        marks: prove that a file has not changed for a while.
        is_open: whether a file (full path, signature, now) is known to be written to; raises OSError where it cannot be
            read.
        names: which are left alone.

    Owned by the claiming thread.
    """

    def __init__(
        self,
        inbox: str,
        root: str,
        suffixes: tuple[str, ...],
        marks: Marks,
        is_open: Callable[[str, Signature, float], bool],
        names: NameFilter,
    ) -> None:
        self._inbox = inbox
        self._root = root
        self._suffixes = suffixes
        self._marks = marks
        self._is_open = is_open
        self._names = names
        self._window = Window()

    def beside(self, path: str, now_s: float) -> tuple[tuple[ImageFile, ...], float]:
        """Those of a picture that are complete, and in how many seconds the others may be; 0 where there are none."""
        found: list[ImageFile] = []
        wait_s = 0.0
        for companion in candidates(path, self._suffixes):
            full_path = os.path.join(self._root, companion)
            with contextlib.suppress(OSError):  # it is not there, or cannot be read and stays
                status = os.lstat(full_path)
                if not stat.S_ISREG(status.st_mode) or self._names.excludes(companion):
                    continue
                signature = Signature.of(status)
                rests_s = self._changes_for_s(companion, full_path, signature, now_s)
                if rests_s > 0:
                    wait_s = max(wait_s, rests_s)
                else:
                    found.append(ImageFile(self._inbox, companion, signature.size, signature.mtime_ns))
        return tuple(found), wait_s

    def forget(self, path: str) -> None:
        """A picture was taken with what is beside it, or is gone."""
        for companion in candidates(path, self._suffixes):
            self._window.forget(companion)

    def _changes_for_s(self, path: str, full_path: str, signature: Signature, now_s: float) -> float:
        settle_s = self._marks.settle_s
        if settle_s > 0 and not self._marks.settled(signature.ctime_ns, now_s):
            unchanged_s = self._window.unchanged_s(path, signature, now_s, announced=True)
            if unchanged_s < settle_s:
                return settle_s - unchanged_s
        return _WRITER_PAUSE_S if self._is_open(full_path, signature, now_s) else 0.0
