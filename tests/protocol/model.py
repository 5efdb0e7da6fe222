"""The delivery protocol as a table of steps over a disk and a database, small enough to try everything that can happen.

What our daemon does, in its order (names are those of its functions). RENAMING, inbox and output on one mount:

    claimer     make_batch_folder   mkdir .pigeonholed/TOKEN                            Output.make_batch_folder
                claim               COMMIT rows `claimed` with token, size and mtime    Ledger.claim
                take_in             rename INBOX/x -> .pigeonholed/TOKEN/KEY            Output.take_in
                  (gone: close_missed  COMMIT `vanished`, then rmdir of the empty folder)
    decoder     read                read, hash, decode; changes nothing                 decoding.examine
    finisher    last_look           lstat: still what was hashed; choose a free name    Planner.of_claimed
                sync_contents       fsync of each file of this batch          \
                sync_claims         fsync of TOKEN and of the inbox's folder   | one Disk.sync: a syncfs, or fsyncs
                sync_work_folders   fsync of .pigeonholed, which names TOKEN   | in any order
                sync_moves          fsync of the class folders and TOKENs      | of the batch before
                sync_new_folders    fsync of what names a new class folder    /  of the batch before
                plan                COMMIT `planned` with hash and destination, and `filed` for the batch before
                remove_batch_folders  rmdir TOKEN of the batch before
                make_folders        mkdir of the class folder where it is missing
                move                renameat2(NOREPLACE) to the destination
                replan              a name was taken: COMMIT another destination, then move again
                give_back           a file that was still written to: renameat2(NOREPLACE) into the inbox,
                sync_given_back     fsync of both folders,
                close_given_back    COMMIT `vanished`
      settle    sync_moves, sync_new_folders, confirm (COMMIT `filed`), remove_batch_folders: when nothing more waits
    start       lock                flock of state folder and output: the kernel drops it when the last thread has gone,
                                    so no step of a dead process comes late. That is the fence; there are no leases.
                resume_returns      what is still at its destination stays `filed`      Returner.resume
                sync_return, end_return   what is not there is back
                look                each row in flight: in the work folder? else a `claimed` one is taken again if the
                                    inbox has what was recorded, a `planned` one must be at its destination, by hash
                make_folders .. remove_batch_folders: the finisher's own code moves and confirms
                close_lost, sync_vanished, close_vanished, sweep; then what was only `claimed` goes to the decoder again
    undo        begin_return        COMMIT the intent                                   Ledger.begin_return
                move_back           renameat2(NOREPLACE) to the inbox
                sync_return         fsync of both folders
                end_return          COMMIT `returned`     (name taken: cancel_return)
    reclassify  begin_refiling      COMMIT `planned` with another destination, and where it comes from
                make_other_folder   mkdir of the class folder where it is missing       Refilings.begin, Refiler._move
                move_on             renameat2(NOREPLACE) within the output
                redirect            a name was taken: COMMIT another destination, then move again
                sync_refiled        fsync of both class folders,
                sync_other_folder   and of what names a class folder: one Disk.sync
                end_refiling        COMMIT `filed`, and that it comes from nowhere
    start       resume_refiling     after the returns: what is still in its old place is moved, what is in the new
                                    one is made durable, what is in neither is as it was        Refiler.resume

COPYING, inbox on another mount (reference 1.5, with our statuses):

    claimer     make_batch_folder, claim  as above; make_hold_folder between them       HoldFolder.folder
                take_in_hold        rename INBOX/x -> INBOX/.pigeonholed-hold/TOKEN/    Held.take
                copy                into KEY.part in the batch folder                   Copier.copy
                sync_copy           fsync of it
                name_copy           rename KEY.part -> KEY, over a copy that an earlier process has left
                sync_copy_name      fsync of TOKEN                            \
                sync_holds          fsync of the hold, its root and the inbox  | in any order
                sync_work_folders   fsync of .pigeonholed                     /
                ingest              COMMIT `ingested` with the hash                     Ledger.ingest
                unlink_source       unlink of the original; its sync is nobody's: a power cut may bring it back at
                                    any later time
                remove_hold_folder  rmdir of the hold's TOKEN                           Custody.end
    finisher    as above, but for sync_claims: that is done
    start       finish_copies       what was copied back and is still filed as well is removed from there
                look_in_hold        as look; an original that is held is the truth, and a `claimed` row is copied from
                                    it anew. What is in the work folder counts where no original is held; but one that
                                    a power cut has put back into the inbox is taken again
                unlink_copied       an original whose copy is recorded and there
                                    .. the moves, as above; then, an arrival after the other:
                discard_copy        unlink of KEY.part, which proves nothing
                copy .. remove_hold_folder
                discard_halves      what is still a KEY.part                            sweeping.sweep
                unlink_leftovers    originals of rows that are further than `claimed`
                discard_back        half of what was being copied back
    undo        begin_return        COMMIT the intent
                copy_back           into the root of the hold                           originals.copy_back
                sync_copy_back      fsync of it
                name_back           renameat2(NOREPLACE) into the inbox; taken: discard_back, cancel_return
                sync_back           fsync of the inbox's folder
                unlink_filed        unlink of what was filed
                sync_return, end_return

HOSTILE, an inbox whose droppers are not trusted, on the same mount: as COPYING, but the hold is the batch folder in the
output, and undo renames. In the model the two keep two names, so that a power cut may do more to them than it can.

What the model takes for granted: a rename is atomic (journalling file systems); a commit that returned is durable
(SQLite `synchronous=FULL`); fsync tells the truth; contents tell files apart (the daemon compares size and hash).
It proves the order of the steps, not the code of any of them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from protocol.state import (
    NAME,
    NOWHERE,
    RETURNING,
    File,
    Image,
    Item,
    Process,
    Row,
    at,
    back,
    changed,
    committed,
    fated,
    folder_of,
    free_name,
    has_folder,
    hold,
    part,
    renamed,
    row_of,
    synced_folder,
    synced_folders,
    with_folder,
    without_folder,
    work,
    written,
)


class Flow(NamedTuple):
    """How a thread goes on after a step: by default with the next one."""

    kind: str
    to: str = ""


NEXT, SKIP, AGAIN, DIE = Flow("next"), Flow("skip"), Flow("again"), Flow("die")
"""`SKIP`: there was nothing to do. `DIE`: the stage fails and the process ends, as the crew sees to."""

Result = tuple[Image, Process, tuple[Item, ...], Flow]
Step = Callable[[Image, Process, tuple[Item, ...]], Result]


# -- claiming ---------------------------------------------------------------------------------------------------------


def make_batch_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    return with_folder(image, f"work/{items[0].id}"), process, items, NEXT


def make_one_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The batch folder, which is the hold as well."""
    image = with_folder(image, f"hold/{items[0].id}")
    return make_batch_folder(image, process, items)


def make_hold_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    return with_folder(image, f"hold/{items[0].id}"), process, items, NEXT


def claim(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    (item,) = items
    if any(row.id == item.id for row in image.rows):  # ON CONFLICT DO NOTHING
        return image, process, items, NEXT
    rows = (*image.rows, Row(item.id, "claimed", item.content))
    return image._replace(rows=tuple(sorted(rows))), process, items, NEXT


def _take_in(image: Image, process: Process, items: tuple[Item, ...], to: Callable[[int], str]) -> Result:
    (item,) = items
    file = at(image, NAME)
    if not has_folder(image, folder_of(to(item.id))):
        return image, process, items, DIE
    if file is None:
        return image, process, items, Flow("to", "missed")
    over = at(image, to(item.id))  # never, as long as one process owns the output
    image = changed(image, over, None) if over else image
    return renamed(image, file, to(item.id)), process, (item._replace(fate="again"),), NEXT


def take_in(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    return _take_in(image, process, items, work)


def take_in_hold(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    image, process, items, flow = _take_in(image, process, items, hold)
    return image, process, tuple(item._replace(fate="copy") for item in items), flow


def close_missed(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    return committed(image, items, ("claimed",), lambda row, _: row._replace(status="vanished")), process, items, NEXT


def remove_missed_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for folder in ("work", "hold"):
        image = without_folder(image, f"{folder}/{items[0].id}")
    return image, process, items, NEXT


def submit(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Hand claimed files to the decoder; after recovery, claiming begins as well."""
    again = tuple(item._replace(fate="") for item in fated(items, "again"))
    return image, process._replace(ready=True, decoding=process.decoding + again), (), NEXT


def read(image: Image, process: Process) -> tuple[Image, Process]:
    item, *rest = process.decoding
    process = process._replace(decoding=tuple(rest))
    file = at(image, work(item.id))
    if file is None:
        return committed(image, (item,), ("claimed", "ingested"), lambda row, _: row._replace(status="lost")), process
    handled = item._replace(content=file.content, fate="move")
    return image, process._replace(handled=(*process.handled, handled))


# -- copying ----------------------------------------------------------------------------------------------------------
# One arrival at a time: each number of the model stands for a batch of its own.


def discard_copy(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """What an earlier process had begun to copy proves nothing."""
    before = image
    for item in fated(items, "copy")[:1]:
        if not has_folder(image, f"work/{item.id}"):
            image = with_folder(image, f"work/{item.id}")
        if file := at(image, part(item.id)):
            image = renamed(image, file, NOWHERE)
    return image, process, items, NEXT if image != before else SKIP


def copy(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not (copied := fated(items, "copy")[:1]):
        return image, process, items, SKIP
    (item,) = copied
    source = at(image, hold(item.id))
    if source is None or not has_folder(image, f"work/{item.id}"):
        return image, process, items, DIE
    image = changed(image, None, File(source.content, (NOWHERE, part(item.id)), synced=False, ours=True))
    items = tuple(i._replace(content=source.content) if i.id == item.id else i for i in items)
    return image, process, items, NEXT


def sync_copy(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    copied = fated(items, "copy")[:1]
    for item in copied:
        image = written(image, part(item.id))
    return image, process, items, NEXT if copied else SKIP


def name_copy(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    copied = fated(items, "copy")[:1]
    for item in copied:
        file = at(image, part(item.id))
        if file is None:
            return image, process, items, DIE
        if over := at(image, work(item.id)):
            image = renamed(image, over, NOWHERE)
        image = renamed(image, file, work(item.id))
    return image, process, items, NEXT if copied else SKIP


def sync_copy_name(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    copied = fated(items, "copy")[:1]
    for item in copied:
        image = synced_folder(image, f"work/{item.id}")
    return image, process, items, NEXT if copied else SKIP


def sync_holds(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """fsync of the hold, of what names it, and of the inbox's folder."""
    if not (copied := fated(items, "copy")[:1]):
        return image, process, items, SKIP
    image = synced_folder(synced_folder(image, f"hold/{copied[0].id}"), folder_of(NAME))
    return synced_folders(image, "hold/"), process, items, NEXT


def ingest(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    copied = fated(items, "copy")[:1]
    image = committed(
        image, copied, ("claimed",), lambda row, item: row._replace(status="ingested", sha256=item.content)
    )
    return image, process, items, NEXT if copied else SKIP


def _unlinked(image: Image, items: tuple[Item, ...], gone: tuple[Item, ...]) -> tuple[Image, tuple[Item, ...]]:
    for item in gone:
        if file := at(image, hold(item.id)):
            image = renamed(image, file, NOWHERE)
    return image, tuple(item._replace(fate="emptied") if item in gone else item for item in items)


def unlink_source(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    copied = fated(items, "copy")[:1]
    image, items = _unlinked(image, items, copied)
    return image, process, items, NEXT if copied else SKIP


def unlink_copied(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start: the copy is recorded, and there."""
    held = fated(items, "held")
    image, items = _unlinked(image, items, held)
    return image, process, items, NEXT if held else SKIP


def _without_holds(image: Image, items: tuple[Item, ...]) -> Image:
    for item in fated(items, "emptied"):
        image = without_folder(image, f"hold/{item.id}")
    return image


def _copied(items: tuple[Item, ...]) -> tuple[Item, ...]:
    return tuple(item._replace(fate="again") if item.fate == "emptied" else item for item in items)


def remove_hold_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not fated(items, "emptied"):
        return image, process, items, SKIP
    flow = Flow("back", "discard_copy") if fated(items, "copy") else NEXT
    return _without_holds(image, items), process, _copied(items), flow


def remove_hold_found(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not fated(items, "emptied"):
        return image, process, items, SKIP
    return _without_holds(image, items), process, _copied(items), Flow("back", "look_in_hold")


def leave_hold_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The hold is the batch folder, which the copy is in."""
    more = fated(items, "emptied") and fated(items, "copy")
    return image, process, _copied(items), Flow("back", "discard_copy") if more else SKIP


def leave_hold_found(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    emptied = fated(items, "emptied")
    return image, process, _copied(items), Flow("back", "look_in_hold") if emptied else SKIP


def unlink_leftovers(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """A source whose copy is recorded is not needed, however it came back."""
    before = image
    for row in image.rows:
        if row.status in {"ingested", "planned", "filed", "returned"} and (file := at(image, hold(row.id))):
            image = renamed(image, file, NOWHERE)
    return image, process, items, NEXT if image != before else SKIP


def discard_halves(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Copies that never were complete."""
    before = image
    for row in image.rows:
        if file := at(image, part(row.id)):
            image = renamed(image, file, NOWHERE)
    return image, process, items, NEXT if image != before else SKIP


# -- finishing --------------------------------------------------------------------------------------------------------


def last_look(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    planned: tuple[Item, ...] = ()
    for item in items:
        file = at(image, work(item.id))
        if file is None:
            return image, process, items, DIE
        if file.content != item.content:
            planned = (*planned, item._replace(fate="withdrawn"))
            continue
        name = free_name(image, tuple(other.destination for other in planned))
        planned = (*planned, item._replace(destination=name))
    return image, process, planned, NEXT


def sync_contents(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    planned = fated(items, "move")
    for item in planned:
        image = written(image, work(item.id))
    return image, process, items, NEXT if planned else SKIP


def sync_claims(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    planned = fated(items, "move")
    for item in planned:
        image = synced_folder(synced_folder(image, f"work/{item.id}"), folder_of(NAME))
    return image, process, items, NEXT if planned else SKIP


def sync_work_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not fated(items, "move", "copy"):
        return image, process, items, SKIP
    return synced_folders(image, "work/"), process, items, NEXT


def sync_moves(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for item in process.moved:
        image = synced_folder(synced_folder(image, folder_of(item.destination)), f"work/{item.id}")
    return image, process, items, NEXT if process.moved else SKIP


def sync_new_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    named = synced_folders(image, "cat") if process.moved else image
    return named, process, items, NEXT if named != image else SKIP


def _planned(row: Row, item: Item) -> Row:
    return row._replace(status="planned", sha256=item.content, destination=item.destination)


def _confirmed(image: Image, process: Process) -> tuple[Image, Process]:
    image = committed(image, process.moved, ("planned",), lambda row, _: row._replace(status="filed"))
    return image, process._replace(moved=(), filed=process.filed + process.moved, made=False)


def plan(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    planned = fated(items, "move")
    if not planned:
        return image, process, items, SKIP
    image, process = _confirmed(image, process)
    return committed(image, planned, ("claimed", "ingested", "planned"), _planned), process, items, NEXT


def confirm(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not process.moved:
        return image, process, items, SKIP
    image, process = _confirmed(image, process)
    return image, process, items, NEXT


def remove_batch_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for item in process.filed:
        image = without_folder(image, f"work/{item.id}")
    return image, process._replace(filed=()), items, NEXT if process.filed else SKIP


def remove_one_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The same where the batch folder is the hold as well."""
    for item in process.filed:
        image = _without_one_folder(image, item.id)
    return image, process._replace(filed=()), items, NEXT if process.filed else SKIP


def _without_one_folder(image: Image, id_: int) -> Image:
    gone = without_folder(without_folder(image, f"work/{id_}"), f"hold/{id_}")
    return gone if not has_folder(gone, f"work/{id_}") and not has_folder(gone, f"hold/{id_}") else image


def make_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """mkdir of the class folders that are missing."""
    before = image
    for item in fated(items, "move"):
        if not has_folder(image, folder_of(item.destination)):
            image = with_folder(image, folder_of(item.destination))
    return image, process._replace(made=process.made or image != before), items, NEXT if image != before else SKIP


def move(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Move the next file. Where its name is taken, choose another, which `replan` commits."""
    waiting = fated(items, "move")
    if not waiting:
        return image, process, items, SKIP
    item = waiting[0]
    file = at(image, work(item.id))
    if file is None or not has_folder(image, folder_of(item.destination)):
        return image, process, items, DIE
    if at(image, item.destination):
        refused = item._replace(destination=free_name(image, (item.destination,)), fate="refused")
        return image, process, tuple(refused if other == item else other for other in items), AGAIN
    process = process._replace(moved=(*process.moved, item._replace(fate="")))
    rest = tuple(other for other in items if other != item)
    return renamed(image, file, item.destination), process, rest, AGAIN if len(waiting) > 1 else NEXT


def replan(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    refused = fated(items, "refused")
    if not refused:
        return image, process, items, SKIP
    image = committed(image, refused, ("claimed", "ingested", "planned"), _planned)
    items = tuple(item._replace(fate="move") if item.fate == "refused" else item for item in items)
    return image, process, items, Flow("back", "move")


def give_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """A file that is still written to goes back into the inbox, and becomes another arrival when it is complete."""
    withdrawn = fated(items, "withdrawn")
    for item in withdrawn:
        file = at(image, work(item.id))
        if file is None or at(image, NAME):
            return image, process, items, DIE
        image = renamed(image, file, NAME)
    return image, process, items, NEXT if withdrawn else SKIP


def sync_given_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    given = fated(items, "withdrawn")
    for item in given:
        image = synced_folder(synced_folder(image, folder_of(NAME)), f"work/{item.id}")
    return image, process, items, NEXT if given else SKIP


def close_given_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    given = fated(items, "withdrawn")
    image = committed(image, given, ("claimed",), lambda row, _: row._replace(status="vanished"))
    return image, process._replace(filed=process.filed + given), items, NEXT if given else SKIP


# -- recovery ---------------------------------------------------------------------------------------------------------


def look_for_rows(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Ledger.in_flight."""
    in_flight = (row for row in image.rows if row.status in {"claimed", "ingested", "planned"})
    return image, process, tuple(Item(row.id, row.sha256, row.destination) for row in in_flight), SKIP


def look(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Find out where the file of the next row in flight is; take again what was never taken."""
    if not (unseen := fated(items, "")):
        return image, process, items, SKIP
    image, fate = _found(image, unseen[0], work, "again")
    return image, process, _with_fate(items, unseen[0], fate), AGAIN


def look_in_hold(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The same where files are copied."""
    if not (unseen := fated(items, "")):
        return image, process, items, SKIP
    row = row_of(image, unseen[0].id)
    held, copied, lying = at(image, hold(row.id)), at(image, work(row.id)), at(image, NAME)
    if row.status == "claimed" and held:
        fate = "copy"
    elif row.status == "claimed" and copied and lying and lying.content == copied.content:
        image, fate = _taken(image, lying, hold(row.id)), "copy"  # a power cut has undone its claim and not the copy
    elif row.status == "claimed" and copied:
        fate = "again"  # it was renamed, or its owner has taken the original away: nobody else has it
    else:
        image, fate = _found(image, unseen[0], hold, "copy")
        fate = "held" if row.status == "ingested" and fate == "again" and held else fate
    return image, process, _with_fate(items, unseen[0], fate), NEXT if fate == "held" else AGAIN


def _with_fate(items: tuple[Item, ...], item: Item, fate: str) -> tuple[Item, ...]:
    return tuple(other._replace(fate=fate) if other == item else other for other in items)


def _found(image: Image, item: Item, to: Callable[[int], str], fate: str) -> tuple[Image, str]:
    """Where the file of a row is; one that is still in the inbox is taken now."""
    row = row_of(image, item.id)
    waits = at(image, work(row.id))
    if row.status == "planned":
        there = at(image, row.destination)
        is_there = there is not None and there.content == row.sha256
        return image, "move" if waits else "moved" if is_there else "lost"
    if row.status == "ingested":
        return image, "again" if waits else "lost"
    if at(image, to(row.id)):
        return image, fate
    file = at(image, NAME)
    if file is not None and file.content == row.seen:
        return _taken(image, file, to(row.id)), fate
    return image, "vanished"


def _taken(image: Image, file: File, to: str) -> Image:
    if not has_folder(image, folder_of(to)):
        image = with_folder(image, folder_of(to))
    return renamed(image, file, to)


def confirm_found(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    found = fated(items, "moved")
    rest = tuple(item for item in items if item not in found)
    return image, process._replace(moved=process.moved + found), rest, SKIP


def close_lost(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    lost = fated(items, "lost")
    image = committed(image, lost, ("ingested", "planned"), lambda row, _: row._replace(status="lost"))
    return image, process, items, NEXT if lost else SKIP


def sync_vanished(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """fsync of the inbox's folder and of TOKEN: it may be in the inbox because it was given back, undurably."""
    gone = fated(items, "vanished")
    for item in gone:
        image = synced_folder(synced_folder(image, folder_of(NAME)), f"work/{item.id}")
    return image, process, items, NEXT if gone else SKIP


def close_vanished(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    gone = fated(items, "vanished")
    image = committed(image, gone, ("claimed",), lambda row, _: row._replace(status="vanished"))
    return image, process, items, NEXT if gone else SKIP


def sweep(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Remove empty work folders that nothing in flight uses, and all empty holds."""
    used = {f"work/{item.id}" for item in fated(items, "again")}
    before = image
    for folder in image.folders:
        if folder.name.startswith(("work/", "hold/")) and folder.name not in used:
            image = without_folder(image, folder.name)
    return image, process, items, NEXT if image != before else SKIP


def sweep_one_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The same where the batch folder is the hold as well."""
    used = {item.id for item in fated(items, "again")}
    before = image
    for folder in image.folders:
        kind, _, number = folder.name.partition("/")
        if kind in {"work", "hold"} and int(number) not in used:
            image = _without_one_folder(image, int(number))
    return image, process, items, NEXT if image != before else SKIP


# -- undo and retry ---------------------------------------------------------------------------------------------------


def _held(image: Image, items: tuple[Item, ...], of: str, hold_: str, status: str) -> Image:
    ids = {item.id for item in items}
    rows = (row._replace(hold=hold_, status=status) if row.id in ids and row.hold == of else row for row in image.rows)
    return image._replace(rows=tuple(rows))


def begin_return(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    image = committed(image, items, ("filed",), lambda row, item: row._replace(hold=item.fate))
    return image, process, items, NEXT


def move_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    (item,) = items
    file = at(image, item.destination)
    if file is None:
        return image, process, items, DIE
    if at(image, NAME):
        return image, process, items, Flow("to", "cancel")
    return renamed(image, file, NAME), process, items, NEXT


def sync_return(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for item in items:
        image = synced_folder(synced_folder(image, folder_of(NAME)), folder_of(item.destination))
    return image, process, items, NEXT if items else SKIP


def end_return(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not items:
        return image, process, items, SKIP
    image = _held(image, items, "returning", "held", "returned")
    return _held(image, items, "retrying", "", "returned"), process, items, NEXT


def cancel_return(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for state in ("returning", "retrying"):
        image = _held(image, items, state, "", "filed")
    return image, process, items, NEXT


def resume_returns(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start: what is still at its destination stays filed, what is not is back."""
    begun = tuple(Item(row.id, row.sha256, row.destination) for row in image.rows if row.hold in RETURNING)
    stayed = tuple(item for item in begun if (file := at(image, item.destination)) and file.content == item.content)
    image = cancel_return(image, process, stayed)[0]
    gone = tuple(item for item in begun if item not in stayed)
    return image, process, gone, NEXT if stayed else SKIP


# -- filing anew ------------------------------------------------------------------------------------------------------


def other_folder(place: str) -> str:
    """The class that another model sees."""
    return "dog" if folder_of(place) == "cat" else "cat"


def begin_refiling(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    def planned(row: Row, item: Item) -> Row:
        return row._replace(status="planned", source=row.destination, destination=item.destination)

    return committed(image, items, ("filed",), planned), process, items, NEXT


def make_other_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    before = image
    for item in fated(items, "refile"):
        if not has_folder(image, folder_of(item.destination)):
            image = with_folder(image, folder_of(item.destination))
    return image, process, items, NEXT if image != before else SKIP


def move_on(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Never over anything. Where the name is taken, choose another, which `redirect` commits."""
    if not (waiting := fated(items, "refile")):
        return image, process, items, SKIP
    (item,) = waiting
    file = at(image, row_of(image, item.id).source)
    if file is None or not has_folder(image, folder_of(item.destination)):
        return image, process, items, DIE
    if at(image, item.destination):
        name = free_name(image, (item.destination,), folder_of(item.destination))
        return image, process, (item._replace(destination=name, fate="refused"),), SKIP
    return renamed(image, file, item.destination), process, (item._replace(fate="refiled"),), NEXT


def redirect(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    if not (refused := fated(items, "refused")):
        return image, process, items, SKIP
    image = committed(image, refused, ("planned",), lambda row, item: row._replace(destination=item.destination))
    return image, process, (refused[0]._replace(fate="refile"),), Flow("back", "move_on")


def sync_refiled(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    refiled = fated(items, "refiled")
    for item in refiled:
        folders = folder_of(item.destination), folder_of(row_of(image, item.id).source)
        image = synced_folder(synced_folder(image, folders[0]), folders[1])
    return image, process, items, NEXT if refiled else SKIP


def sync_other_folder(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    named = image
    for item in fated(items, "refiled"):
        named = synced_folders(named, folder_of(item.destination))
    return named, process, items, NEXT if named != image else SKIP


def end_refiling(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    refiled = fated(items, "refiled")
    image = committed(image, refiled, ("planned",), lambda row, _: row._replace(status="filed", source=""))
    return image, process, items, NEXT if refiled else SKIP


def resume_refiling(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start: the old place first, since the very same bytes in the new one may be another's."""
    found: tuple[Item, ...] = ()
    rows = image.rows
    for row in image.rows:
        if row.source:
            old, new = at(image, row.source), at(image, row.destination)
            item = Item(row.id, row.sha256, row.destination)
            if old is not None and old.content == row.sha256:
                found = (*found, item._replace(fate="refile"))
            elif new is not None and new.content == row.sha256:
                found = (*found, item._replace(fate="refiled"))
            else:
                was = row._replace(status="filed", destination=row.source, source="")
                rows = tuple(was if other == row else other for other in rows)
    return image._replace(rows=rows), process, found, NEXT if rows != image.rows else SKIP


# -- undo to another mount --------------------------------------------------------------------------------------------


def copy_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    (item,) = items
    file = at(image, item.destination)
    if file is None:
        return image, process, items, DIE
    if at(image, NAME):
        return image, process, items, Flow("to", "cancel")
    copied = File(file.content, (NOWHERE, back(item.id)), synced=False, ours=True)
    return changed(image, None, copied), process, items, NEXT


def sync_copy_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for item in items:
        image = written(image, back(item.id))
    return image, process, items, NEXT


def name_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    (item,) = items
    file = at(image, back(item.id))
    if file is None:
        return image, process, items, DIE
    if at(image, NAME):
        return image, process, items, Flow("to", "give up")
    return renamed(image, file, NAME), process, items, NEXT


def sync_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    return synced_folder(image, folder_of(NAME)), process, items, NEXT


def unlink_filed(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    for item in items:
        if file := at(image, item.destination):
            image = renamed(image, file, NOWHERE)
    return image, process, items, NEXT


def discard_back(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Half of what was being copied back."""
    before = image
    for row in image.rows:
        if file := at(image, back(row.id)):
            image = renamed(image, file, NOWHERE)
    return image, process, items, NEXT if image != before else SKIP


def _twice(image: Image) -> tuple[Item, ...]:
    """What is in the inbox and, the very same, where it was filed."""
    lying = at(image, NAME)
    begun = (row for row in image.rows if row.hold in RETURNING and lying is not None)
    there = ((row, at(image, row.destination)) for row in begun)
    return tuple(
        Item(row.id, row.sha256, row.destination)
        for row, file in there
        if file is not None and lying is not None and file.content == lying.content
    )


def sync_finished(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start: fsync of the copy and its folder."""
    if not _twice(image):
        return image, process, items, SKIP
    return synced_folder(written(image, NAME), folder_of(NAME)), process, items, NEXT


def finish_copies(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start: what was copied back goes from where it was filed."""
    twice = _twice(image)
    image = unlink_filed(image, process, twice)[0]
    return image, process, items, NEXT if twice else SKIP


# -- the tables -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Protocol:
    """Which steps each routine takes, in order.

    Attributes:
        name: the variant, or what was changed in it.
        routines: the tables.
        locked: one process at a time owns the output.
        durable_commits: a power cut rolls no commit back.
        passed_over: states of a hold whose file is not claimed.
    """

    name: str
    routines: Mapping[str, tuple[Step, ...]]
    locked: bool = True
    durable_commits: bool = True
    passed_over: frozenset[str] = RETURNING | {"held"}


_MOVED = (sync_moves, sync_new_folders, confirm, remove_batch_folders)
_SYNCS = (sync_work_folders, sync_moves, sync_new_folders)
_PLANNED = (plan, remove_batch_folders, make_folders, move, replan)
_GIVEN_BACK = (give_back, sync_given_back, close_given_back, remove_batch_folders)
_COPY = (copy, sync_copy, name_copy, sync_copy_name, sync_holds, sync_work_folders, ingest, unlink_source)
_RESUME = (resume_returns, sync_return, end_return)
_CLOSE = (close_lost, sync_vanished, close_vanished)
_REFILE = (make_other_folder, move_on, redirect, sync_refiled, sync_other_folder, end_refiling)
_RESUME_REFILING = (resume_refiling, *_REFILE)
_TAKE_UP = (confirm_found, make_folders, move, replan, *_MOVED, *_CLOSE)
_DELIVERY = {
    "turn": (last_look, sync_contents, sync_claims, *_SYNCS, *_PLANNED, *_GIVEN_BACK),
    "settle": _MOVED,
    "missed": (close_missed, remove_missed_folder),
    "return": (begin_return, move_back, sync_return, end_return),
    "cancel": (cancel_return,),
    "refile": (begin_refiling, *_REFILE),
}

RENAMING = Protocol(
    "renaming",
    _DELIVERY
    | {
        "claim": (make_batch_folder, claim, take_in, submit),
        "start": (*_RESUME, *_RESUME_REFILING, look_for_rows, look, *_TAKE_UP, sweep, submit),
    },
)
"""Inbox and output on one mount."""

COPYING = Protocol(
    "copying",
    _DELIVERY
    | {
        "claim": (make_batch_folder, make_hold_folder, claim, take_in_hold, *_COPY, remove_hold_folder, submit),
        "turn": (last_look, sync_contents, *_SYNCS, *_PLANNED),
        "start": (sync_finished, finish_copies, *_RESUME, *_RESUME_REFILING, look_for_rows,
                  look_in_hold, unlink_copied, remove_hold_found, *_TAKE_UP,
                  discard_copy, *_COPY, remove_hold_folder,
                  discard_halves, sweep, unlink_leftovers, sweep, discard_back, submit),
        "return": (begin_return, copy_back, sync_copy_back, name_back, sync_back, unlink_filed,
                   sync_return, end_return),
        "give up": (discard_back, cancel_return),
    },
)  # fmt: skip
"""Inbox on another mount, hostile or not: originals are held on its own mount, and undo copies."""

_MOVED_HERE = (sync_moves, sync_new_folders, confirm, remove_one_folders)
HOSTILE = Protocol(
    "hostile",
    _DELIVERY
    | {
        "claim": (make_one_folder, claim, take_in_hold, *_COPY, leave_hold_folder, submit),
        "turn": (last_look, sync_contents, *_SYNCS, plan, remove_one_folders, make_folders, move, replan),
        "settle": _MOVED_HERE,
        "start": (*_RESUME, *_RESUME_REFILING, look_for_rows, look_in_hold, unlink_copied, leave_hold_found,
                  confirm_found, make_folders, move, replan, *_MOVED_HERE, *_CLOSE,
                  discard_copy, *_COPY, leave_hold_folder,
                  discard_halves, sweep_one_folders, unlink_leftovers, sweep_one_folders, submit),
    },
)  # fmt: skip
"""Hostile inbox on the mount of its output: originals are held in the batch folder, and undo renames."""

VARIANTS = (RENAMING, COPYING, HOSTILE)
