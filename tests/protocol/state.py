"""What the model of the delivery protocol is about: a disk, a database, processes; and the small changes of them.

Named tuples, because millions of them are hashed and compared.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

NOWHERE = ""
"""The place of a file that is not made yet, or unlinked."""
OUTSIDER = "outsider"
"""The content of a file that somebody else puts into a class folder. It is nobody's arrival and must stay."""
RETURNING = frozenset({"returning", "retrying"})
"""States of a hold whose file is on its way back."""


class File(NamedTuple):
    """One inode. `trail` is where it has been since its place was last synced: a power cut may put it back to any of
    these, and the last is where it is now.
    """

    content: str
    trail: tuple[str, ...]
    synced: bool  # the content is on the disk; else a power cut may tear it
    ours: bool = False  # a copy that the daemon made

    @property
    def place(self) -> str:
        return self.trail[-1]


class Folder(NamedTuple):
    """A folder that is made and removed on the way; until its entry is synced a power cut may take it away."""

    name: str
    synced: bool


class Row(NamedTuple):
    """A row of `images`; `hold` is the state of its row in `holds`, `source` where it comes from in `refilings`."""

    id: int
    status: str
    seen: str  # size and mtime at the claim, for which the content stands
    sha256: str = ""
    destination: str = ""
    hold: str = ""
    source: str = ""


class Image(NamedTuple):
    """What survives the death of every process: disk and database. `promised` is what must never be lost."""

    files: tuple[File, ...]
    folders: tuple[Folder, ...]
    rows: tuple[Row, ...]
    promised: frozenset[str]
    earlier: tuple[tuple[Row, ...], ...] = ()  # commits that could be rolled back; only where they are not durable


class Item(NamedTuple):
    """What a thread knows of one arrival, and what it is going to do with it."""

    id: int
    content: str
    destination: str = ""
    fate: str = ""


class Thread(NamedTuple):
    """Where a thread is in the table of steps."""

    routine: str = ""
    step: int = 0
    items: tuple[Item, ...] = ()


IDLE = Thread()


class Process(NamedTuple):
    """What a kill destroys: three threads, and the queues between them."""

    ready: bool = False  # recovery is done, files are claimed
    claimer: Thread = IDLE
    finisher: Thread = IDLE
    returner: Thread = IDLE
    decoding: tuple[Item, ...] = ()
    handled: tuple[Item, ...] = ()
    moved: tuple[Item, ...] = ()  # at their destinations, not yet `filed`
    filed: tuple[Item, ...] = ()  # their work folders are to be removed
    made: bool = False  # it made a class folder for what it moved


class Budget(NamedTuple):
    """What may still happen from outside."""

    kills: int = 0
    power_cuts: int = 0
    drops: int = 0
    overwrites: int = 0
    writes: int = 0
    outsiders: int = 0
    returns: int = 0
    retries: int = 0
    refilings: int = 0


class World(NamedTuple):
    """One state of everything."""

    image: Image
    processes: tuple[Process, ...]
    left: Budget


# -- places and small changes of an image -----------------------------------------------------------------------------

NAME = "inbox/x"
"""The one name in the inbox that everything is dropped under."""


def work(id_: int) -> str:
    return f"work/{id_}/file"


def part(id_: int) -> str:
    return f"work/{id_}/part"


def hold(id_: int) -> str:
    return f"hold/{id_}/file"


def back(id_: int) -> str:
    """Where a file is copied to on its way back to an inbox on another mount."""
    return f"back/{id_}"


def folder_of(place: str) -> str:
    return place.rpartition("/")[0]


def free_name(image: Image, promised: tuple[str, ...], folder: str = "cat") -> str:
    """The first name in a class folder that nothing has, and that nothing is promised or just about to leave."""
    used = {*promised, *(row.destination for row in image.rows if row.hold in RETURNING or row.source)}
    used |= {row.source for row in image.rows}
    number = 0
    while (place := f"{folder}/x-{number}" if number else f"{folder}/x") in used or at(image, place):
        number += 1
    return place


def at(image: Image, place: str) -> File | None:
    for file in image.files:
        if file.trail[-1] == place:
            return file
    return None


def has_folder(image: Image, name: str) -> bool:
    return any(folder.name == name for folder in image.folders)


def changed(image: Image, old: File | None, new: File | None) -> Image:
    """Another file instead of one. A file that is gone for good is forgotten."""
    files = list(image.files)
    if old is not None:
        files.remove(old)
    if new is not None and new.trail != (NOWHERE,):
        files.append(new)
    return image._replace(files=tuple(sorted(files)))


def renamed(image: Image, file: File, place: str) -> Image:
    return changed(image, file, file._replace(trail=(*file.trail, place)))


def synced_folder(image: Image, folder: str) -> Image:
    """fsync of a folder: what came into it came for good, and what was unlinked in it is gone for good.

    What was renamed out of it is not promised to have arrived elsewhere: only the sync of that other folder does.
    """
    for file in image.files:
        been = [index for index, place in enumerate(file.trail) if place and folder_of(place) == folder]
        if been and len(file.trail) > 1:
            unlinked = file.trail[-1] == NOWHERE and been[-1] == len(file.trail) - 2
            image = changed(image, file, file._replace(trail=file.trail[been[-1] + unlinked :]))
    return image


def synced_folders(image: Image, above: str) -> Image:
    """fsync of what names folders: each of them stays."""
    folders = (folder._replace(synced=True) if folder.name.startswith(above) else folder for folder in image.folders)
    return image._replace(folders=tuple(folders))


def written(image: Image, place: str) -> Image:
    """The content of a file is synced."""
    file = at(image, place)
    return image if file is None or file.synced else changed(image, file, file._replace(synced=True))


def with_folder(image: Image, name: str, *, synced: bool = False) -> Image:
    others = tuple(folder for folder in image.folders if folder.name != name)
    return image._replace(folders=tuple(sorted((*others, Folder(name, synced)))))


def without_folder(image: Image, name: str) -> Image:
    """rmdir: harmless where something is in it."""
    if any(file.trail[-1] and folder_of(file.trail[-1]) == name for file in image.files):
        return image
    return image._replace(folders=tuple(folder for folder in image.folders if folder.name != name))


def row_of(image: Image, id_: int) -> Row:
    return next(row for row in image.rows if row.id == id_)


def committed(image: Image, items: tuple[Item, ...], of: tuple[str, ...], change: Callable[[Row, Item], Row]) -> Image:
    """UPDATE ... WHERE id AND status: one transaction for all items."""
    by_id = {item.id: item for item in items}
    rows = (
        change(row, by_id[row.id]) if row.id in by_id and row.status in of else row
        for row in image.rows
    )  # fmt: skip
    return image._replace(rows=tuple(rows))


def fated(items: tuple[Item, ...], *fates: str) -> tuple[Item, ...]:
    return tuple(item for item in items if item.fate in fates)
