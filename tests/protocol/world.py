"""What can happen next: a step of any thread, and what comes from outside: kills, power cuts, droppers, outsiders."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from itertools import product

from protocol.model import AGAIN, DIE, SKIP, Protocol, Step, other_folder, read
from protocol.state import (
    IDLE,
    NAME,
    NOWHERE,
    OUTSIDER,
    Budget,
    File,
    Folder,
    Image,
    Item,
    Process,
    Thread,
    World,
    at,
    changed,
    folder_of,
    free_name,
    with_folder,
    work,
)

Happening = tuple[str, World]
Taken = tuple[str, Image, Process | None]
"""Names of the steps, and what came of them. Without a process: it has died of it."""
_THREADS = ("claimer", "finisher", "returner")


def begin(kills: int = 0, **more: int) -> World:
    """A daemon without work; A has been dropped, and its dropper has not synced it."""
    image = Image((File("A", (NAME,), synced=False),), (), (), frozenset("A"))
    return World(image, (Process(ready=True),), Budget(kills, **more))


def happenings(world: World, protocol: Protocol) -> Iterator[Happening]:
    """Everything that can happen next, with its name."""
    image, processes, left = world
    for index, process in enumerate(processes):
        for name, image_then, process_then in steps(image, process, protocol):
            others = processes[:index] + processes[index + 1 :]
            then = others if process_then is None else tuple(sorted((*others, process_then)))
            yield name, World(image_then, then, left)
    if not processes:
        yield "start", World(image, (started(),), left)
    elif not protocol.locked and len(processes) == 1 and left.kills:
        yield "start another", World(image, tuple(sorted((*processes, started()))), left._replace(kills=left.kills - 1))
    yield from _outside(world, protocol)


# -- threads ----------------------------------------------------------------------------------------------------------


def started() -> Process:
    """A process that has the lock and has done nothing yet."""
    return Process(finisher=Thread("start"))


@lru_cache(maxsize=1 << 17)
def steps(image: Image, process: Process, protocol: Protocol) -> tuple[Taken, ...]:
    """One step of each thread that has anything to do. The same image and process come with many budgets."""
    return tuple(_steps(image, process, protocol))


def _steps(image: Image, process: Process, protocol: Protocol) -> Iterator[Taken]:
    for name in _THREADS:
        thread: Thread = getattr(process, name)
        beginnings = (thread,) if thread.routine else _beginnings(name, image, process, protocol)
        for beginning in beginnings:
            rest = process
            if beginning.routine == "turn" and thread is IDLE:
                rest = process._replace(handled=process.handled[len(beginning.items) :])
            yield _step(image, rest, name, beginning, protocol)
    if process.decoding:
        yield "read", *read(image, process)


def _beginnings(name: str, image: Image, process: Process, protocol: Protocol) -> Iterator[Thread]:
    """What an idle thread may begin."""
    if name == "claimer" and process.ready:
        file = at(image, NAME)
        if file is not None and not _passed_over(image, file, protocol):
            yield Thread("claim", 0, (Item(_new_number(image), file.content),))
    if name == "finisher":
        for size in range(1, len(process.handled) + 1):
            yield Thread("turn", 0, process.handled[:size])
        if process.moved:
            yield Thread("settle")


def _new_number(image: Image) -> int:
    """An id that no row has, which stands for a token that no folder has."""
    used = [row.id for row in image.rows]
    used += [int(folder.name.partition("/")[2]) for folder in image.folders if "/" in folder.name]
    return max(used, default=0) + 1


def _passed_over(image: Image, file: File, protocol: Protocol) -> bool:
    """Whether it is being put back, or an undo has put it there to stay."""
    return any(row.hold in protocol.passed_over and row.sha256 == file.content for row in image.rows)


def _step(image: Image, process: Process, name: str, thread: Thread, protocol: Protocol) -> Taken:
    """Take one step that changes something, and pass over those that have nothing to do.

    A run of syncs is one step: a power cut in the midst of it can do nothing that it could not have done before it.
    """
    routine, index, items = thread
    taken: list[str] = []
    rows = image.rows
    while index < len(protocol.routines[routine]):
        step = protocol.routines[routine][index]
        image_then, process_then, items_then, flow = step(image, process, items)
        if taken and flow is not SKIP and not _goes_with(taken[-1], step.__name__):
            break
        image, process, items = image_then, process_then, items_then
        if flow is DIE:
            return f"{step.__name__} fails", image, None
        if flow is not SKIP:
            taken.append(step.__name__)
        if flow.kind == "to":
            routine, index = flow.to, 0
        elif flow.kind == "back":
            index = _index(protocol.routines[routine], flow.to)
        elif flow is not AGAIN:
            index += 1
    if not protocol.durable_commits and rows != image.rows:
        image = image._replace(earlier=(*image.earlier, rows))
    after = Thread(routine, index, items) if index < len(protocol.routines[routine]) else IDLE
    return ", ".join(taken), image, process._replace(**{name: after})


def _goes_with(before: str, name: str) -> bool:
    """`submit` only tells the decoder."""
    return name == "submit" or (before.startswith("sync") and name.startswith("sync"))


def _index(routine: tuple[Step, ...], name: str) -> int:
    return next(index for index, step in enumerate(routine) if step.__name__ == name)


# -- from outside -----------------------------------------------------------------------------------------------------


def _outside(world: World, protocol: Protocol) -> Iterator[Happening]:
    image, processes, left = world
    if left.kills:
        for process in processes:
            others = tuple(other for other in processes if other is not process)
            yield "KILL", World(image, others, left._replace(kills=left.kills - 1))
    if left.power_cuts:
        for after in power_cut(image):
            yield "POWER CUT", World(after, (), left._replace(power_cuts=left.power_cuts - 1))
    lying = at(image, NAME)
    if left.drops and lying is None:
        yield "another file is dropped", World(dropped(image), processes, left._replace(drops=left.drops - 1))
    if left.overwrites and left.drops and lying is not None and not lying.ours and lying.content == "A":
        gone = changed(image, lying, lying._replace(trail=(*lying.trail, NOWHERE)))
        gone = gone._replace(promised=gone.promised - {lying.content})
        fewer = left._replace(drops=left.drops - 1, overwrites=left.overwrites - 1)
        yield "its dropper overwrites it", World(dropped(gone), processes, fewer)
    if left.writes:
        yield from _writer(world)
    if left.outsiders:
        yield from _outsider(world)
    if left.refilings:
        yield from _refiling(world)
    for wish, fate in (("returns", "returning"), ("retries", "retrying")):
        if getattr(left, wish):
            yield from _return(world, wish, fate)


def dropped(image: Image) -> Image:
    """B, of the same name, whose entry its dropper has not synced."""
    image = changed(image, None, File("B", (NOWHERE, NAME), synced=True))
    return image._replace(promised=image.promised | {"B"})


def _writer(world: World) -> Iterator[Happening]:
    """The dropper has not finished, as we find out in time: later, only a copy is safe from it."""
    image, processes, left = world
    looked_at = {item.id for process in processes for item in process.finisher.items}
    safe = {work(row.id) for row in image.rows if row.status == "claimed" and row.id not in looked_at} | {NAME}
    for file in image.files:
        if file.content == "A" and file.place in safe:
            longer = changed(image, file, file._replace(content="A, longer", synced=False))
            longer = longer._replace(promised=longer.promised - {"A"} | {"A, longer"})
            yield "its dropper writes on", World(longer, processes, left._replace(writes=left.writes - 1))


def _outsider(world: World) -> Iterator[Happening]:
    """Somebody's file comes at the worst moment: at a name that is about to be moved to, or was just left."""
    image, processes, left = world
    busy = [item for process in processes for item in (*process.finisher.items, *process.returner.items)]
    names = {item.destination for item in busy if item.destination} | {row.source for row in image.rows if row.source}
    for name in names:
        if at(image, name) is None:
            fewer = left._replace(outsiders=left.outsiders - 1)
            yield f"an outsider takes {name}", World(outsider_at(image, name), processes, fewer)


def _refiling(world: World) -> Iterator[Happening]:
    """Another model sees something else in a file that is filed."""
    image, processes, left = world
    for process in processes:
        if process.ready and not process.returner.routine:
            for row in image.rows:
                if row.status == "filed" and not row.hold:
                    name = free_name(image, (), other_folder(row.destination))
                    asked = process._replace(returner=Thread("refile", 0, (Item(row.id, row.sha256, name, "refile"),)))
                    others = tuple(other for other in processes if other is not process)
                    fewer = left._replace(refilings=left.refilings - 1)
                    yield "another model looks", World(image, tuple(sorted((*others, asked))), fewer)


def outsider_at(image: Image, name: str) -> Image:
    """A file that is nobody's arrival, and must stay as it is."""
    image = changed(with_folder(image, folder_of(name), synced=True), None, File(OUTSIDER, (name,), synced=True))
    return image._replace(promised=image.promised | {OUTSIDER})


def _return(world: World, wish: str, fate: str) -> Iterator[Happening]:
    image, processes, left = world
    for process in processes:
        if process.ready and not process.returner.routine:
            for row in image.rows:
                file = at(image, row.destination) if row.status == "filed" and not row.hold else None
                if file is not None and file.content == row.sha256:
                    item = Item(row.id, row.sha256, row.destination, fate)
                    asked = process._replace(returner=Thread("return", 0, (item,)))
                    others = tuple(other for other in processes if other is not process)
                    fewer = left._replace(**{wish: getattr(left, wish) - 1})
                    yield f"{wish} asked for", World(image, tuple(sorted((*others, asked))), fewer)


@lru_cache(maxsize=1 << 15)
def power_cut(image: Image) -> tuple[Image, ...]:
    """Every image that may be found afterwards: whatever was not synced is undone or not, each for itself."""
    return tuple({after: None for rows in (image.rows, *image.earlier) for after in _cut(image._replace(rows=rows))})


def _cut(image: Image) -> Iterator[Image]:
    for places in product(*(sorted(set(file.trail)) for file in image.files)):
        lying = [place for place in places if place]
        if len(lying) == len(set(lying)):
            yield from _folders_cut(image, places)


def _folders_cut(image: Image, places: tuple[str, ...]) -> Iterator[Image]:
    """A folder whose entry was not synced may be gone, with what was synced in it; an empty one always is."""
    in_doubt = [folder.name for folder in image.folders if not folder.synced]
    held = {folder_of(place) for place in places}
    synced_in = {folder_of(place) for file, place in zip(image.files, places, strict=True) if place == file.trail[0]}
    choices = [(True, False) if name in synced_in else (name in held,) for name in in_doubt]
    for stay in product(*choices):
        gone = {name for name, stays in zip(in_doubt, stay, strict=True) if not stays}
        after = tuple(NOWHERE if folder_of(place) in gone else place for place in places)
        folders = tuple(Folder(folder.name, True) for folder in image.folders if folder.name not in gone)
        yield from _contents_cut(image._replace(folders=folders), after)


def _contents_cut(image: Image, places: tuple[str, ...]) -> Iterator[Image]:
    """A content that was not synced may be torn. Before our sync that is its dropper's own loss."""
    choices = [
        (True, False) if place and not file.synced else (True,) for file, place in zip(image.files, places, strict=True)
    ]
    for whole in product(*choices):
        promised = set(image.promised)
        files = []
        for file, place, is_whole in zip(image.files, places, whole, strict=True):
            if not file.ours and (place == file.trail[0] == NOWHERE or not is_whole):
                promised.discard(file.content)
            if place:
                files.append(File(file.content if is_whole else f"torn {file.content}", (place,), True, file.ours))
        yield image._replace(files=tuple(sorted(files)), promised=frozenset(promised), earlier=())
