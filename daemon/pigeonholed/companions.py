"""Sidecars: small files beside a picture (`x.jpg.xmp`, `x.xmp`) that travel with it. Here, what they are called."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence


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


def room_for(picture: str, companions: Sequence[str]) -> int:
    """How many bytes behind the name of their picture the names of companions may take."""
    name = os.path.basename(picture)
    names = beside(name, os.path.basename(picture), [os.path.basename(companion) for companion in companions])
    return max((len(os.fsencode(place)) - len(os.fsencode(name)) for place in names), default=0)
