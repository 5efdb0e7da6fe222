"""Small changes of the protocol, each of which must be found out: what is left out here is needed there.

What may be left out without harm is listed as well (`SPARE`), and a test sees to it that it stays so.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from protocol import model
from protocol.model import COPYING, HOSTILE, RENAMING, SKIP, Protocol, Result, Step
from protocol.state import NOWHERE, Image, Item, Process, World, at, changed, fated, renamed, with_folder
from protocol.world import begin


@dataclass(frozen=True)
class Mutant:
    """One change.

    Attributes:
        name: what is wrong with it.
        protocol: the changed tables.
        world: a beginning, with faults enough to find it out.
    """

    name: str
    protocol: Protocol
    world: World


# -- ways to change a table -------------------------------------------------------------------------------------------


def _changed(protocol: Protocol, **routines: Iterable[Step]) -> Protocol:
    tables = {name: tuple(steps) for name, steps in routines.items()}
    return replace(protocol, routines={**protocol.routines, **tables})


def without(protocol: Protocol, *left_out: Step, of: str = "") -> Protocol:
    """Steps are left out, in one routine or in all of them."""
    routines = {
        name: [step for step in steps if step not in left_out]
        for name, steps in protocol.routines.items()
        if of in {"", name}
    }
    return _changed(protocol, **routines)


def instead(protocol: Protocol, old: Step, new: Step) -> Protocol:
    """Another step everywhere."""
    routines = {
        name: [new if step is old else step for step in steps] for name, steps in protocol.routines.items()
    }  # fmt: skip
    return _changed(protocol, **routines)


def moving_early(protocol: Protocol) -> Protocol:
    """Files are moved just before their plan is committed."""
    steps = list(protocol.routines["turn"])
    steps.insert(steps.index(model.plan), move_at_once)
    steps[steps.index(model.move)] = note_moves
    return _changed(protocol, turn=steps)


def earlier(protocol: Protocol, routine: str, step: Step, *, than: Step) -> Protocol:
    """A step comes before another one that it should come after."""
    steps = [other for other in protocol.routines[routine] if other is not step]
    steps.insert(steps.index(than), step)
    return _changed(protocol, **{routine: steps})


def taken_at_once(protocol: Protocol) -> Protocol:
    """A file that is put back to be tried again is claimed as soon as it is in the inbox."""
    return replace(protocol, passed_over=protocol.passed_over - {"retrying"})


# -- steps that are wrong ---------------------------------------------------------------------------------------------


def move(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """rename, which overwrites, instead of renameat2 with NOREPLACE."""
    for item in fated(items, "move")[:1]:
        if (there := at(image, item.destination)) and at(image, model.work(item.id)):
            image = changed(image, there, None)
    return model.move(image, process, items)


def move_at_once(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Move all files, before anything says so."""
    for item in items:
        if file := at(image, model.work(item.id)):
            image = renamed(with_folder(image, "cat"), file, item.destination)
    return image, process, items, model.NEXT


def note_moves(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """They are moved already."""
    return image, process._replace(moved=(*process.moved, *items)), (), SKIP


def replan(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Another name is taken without saying so in the database."""
    refused = fated(items, "refused")
    items = tuple(item._replace(fate="move") if item.fate == "refused" else item for item in items)
    return image, process, items, model.Flow("back", "move") if refused else SKIP


def look(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Whatever is at a destination is taken for the file that was planned to go there, before the work folder is."""
    for item in fated(items, "")[:1]:
        row = model.row_of(image, item.id)
        if row.status == "planned" and at(image, row.destination):
            items = tuple(other._replace(fate="moved") if other == item else other for other in items)
            return image, process, items, model.AGAIN
    return model.look(image, process, items)


def look_at_inbox(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """A claimed file that is not in the inbox any more has vanished."""
    for item in fated(items, "")[:1]:
        if model.row_of(image, item.id).status == "claimed" and not at(image, model.NAME):
            items = tuple(other._replace(fate="vanished") if other == item else other for other in items)
            return image, process, items, model.AGAIN
    return model.look(image, process, items)


def resume_returns(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Whatever is at a destination is taken for the file that was to be put back from there."""
    begun = tuple(Item(row.id, row.sha256, row.destination) for row in image.rows if row.hold in model.RETURNING)
    stayed = tuple(item for item in begun if at(image, item.destination))
    image = model.cancel_return(image, process, stayed)[0]
    gone = tuple(item for item in begun if item not in stayed)
    return image, process, gone, model.NEXT if stayed else SKIP


def sync_new_folders(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Only class folders that this very process made; one that was killed may have made some as well."""
    return model.sync_new_folders(image, process, items) if process.made else (image, process, items, SKIP)


def last_look(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """A name that a file is just leaving counts as free at once."""
    settled = image._replace(rows=tuple(row._replace(hold="") for row in image.rows))
    _, process, items, flow = model.last_look(settled, process, items)
    return image, process, items, flow


def redirect(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Another name is only kept in mind."""
    _, process, items, flow = model.redirect(image, process, items)
    return image, process, items, SKIP if flow is SKIP else flow


def move_over(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Within the output, what is in the way is overwritten."""
    for item in fated(items, "refile"):
        if over := at(image, item.destination):
            image = changed(image, over, None)
    return model.move_on(image, process, items)


def move_unplanned(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Within the output, a file moves before the plan of it is committed."""
    planned = model.begin_refiling(image, process, items)[0]
    moved = model.make_other_folder(planned, process, items)[0]
    moved, process, items, flow = model.move_on(moved, process, items)
    return moved._replace(rows=image.rows), process, items, flow


def resume_forwards(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start, whatever is in the new place counts as the file."""
    found = [Item(row.id, row.sha256, row.destination) for row in image.rows if row.source]
    there = tuple(item._replace(fate="refiled" if at(image, item.destination) else "refile") for item in found)
    return image, process, there, SKIP


def resume_backwards(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """At the start, every row says again what it said before."""
    rows = tuple(
        row._replace(status="filed", destination=row.source, source="") if row.source else row for row in image.rows
    )
    return image._replace(rows=rows), process, (), model.NEXT if rows != image.rows else SKIP


def discard_copy(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """A copy that is there is taken for whole: it is used as it is."""
    used: tuple[Item, ...] = ()
    for item in fated(items, "copy"):
        if copied := at(image, model.part(item.id)) or at(image, model.work(item.id)):
            image = renamed(image, copied, model.work(item.id))
            if source := at(image, model.hold(item.id)):
                image = renamed(image, source, NOWHERE)
            used = (*used, item)
    items = tuple(item._replace(fate="again") if item in used else item for item in items)
    image, process, items, flow = model.discard_copy(image, process, items)
    return image, process, items, model.NEXT if used else flow


def look_in_hold(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """Where no original is held, a copy in the work folder is used, though the original may be back in the inbox."""
    for item in fated(items, "")[:1]:
        is_claimed = model.row_of(image, item.id).status == "claimed"
        if is_claimed and at(image, model.work(item.id)) and not at(image, model.hold(item.id)):
            items = tuple(other._replace(fate="again") if other == item else other for other in items)
            return image, process, items, model.AGAIN
    return model.look_in_hold(image, process, items)


def unlink_early(image: Image, process: Process, items: tuple[Item, ...]) -> Result:
    """The original goes now."""
    for item in fated(items, "copy")[:1]:
        if source := at(image, model.hold(item.id)):
            return renamed(image, source, NOWHERE), process, items, model.NEXT
    return image, process, items, SKIP


def before(protocol: Protocol, routine: str, step: Step, *, new: Step) -> Protocol:
    """One more step."""
    steps = list(protocol.routines[routine])
    steps.insert(steps.index(step), new)
    return _changed(protocol, **{routine: steps})


# -- the list ---------------------------------------------------------------------------------------------------------

_CUT = begin(power_cuts=1)
_KILL = begin(kills=1)
_CUT_AND_DROP = begin(power_cuts=1, drops=1)

_RENAMING = [
    ("contents are not synced before the plan", without(RENAMING, model.sync_contents), _CUT),
    ("claims are not synced before the plan", without(RENAMING, model.sync_claims), _CUT),
    ("the work folder's own name is not synced before the plan", without(RENAMING, model.sync_work_folders), _CUT),
    ("moves are not synced before `filed`", without(RENAMING, model.sync_moves), _CUT),
    ("moves found at the start are not synced before `filed`",
     without(RENAMING, model.sync_moves, of="start"), begin(kills=1, power_cuts=1)),
    ("moves are not synced before the next batch's commit says `filed`",
     without(RENAMING, model.sync_moves, of="turn"), _CUT_AND_DROP),
    ("a new class folder's name is not synced before `filed`", without(RENAMING, model.sync_new_folders), _CUT),
    ("the file is claimed before its row is committed",
     earlier(RENAMING, "claim", model.take_in, than=model.claim), _KILL),
    ("the plan is committed before the claim is synced",
     earlier(RENAMING, "turn", model.plan, than=model.sync_contents), _CUT),
    ("the file is moved before its plan is committed", moving_early(RENAMING), _KILL),
    ("`filed` is committed before the move is synced",
     earlier(RENAMING, "settle", model.confirm, than=model.sync_moves), _CUT),
    ("a move overwrites", instead(RENAMING, model.move, move), begin(outsiders=1)),
    ("another name is not committed before the move", instead(RENAMING, model.replan, replan), begin(outsiders=1)),
    ("at the start, whatever is at the destination counts as the file",
     instead(RENAMING, model.look, look), begin(kills=1, outsiders=1)),
    ("at the start, the work folder is not looked into", instead(RENAMING, model.look, look_at_inbox), _KILL),
    ("at the start, nothing is looked at", without(RENAMING, model.look_for_rows), _KILL),
    ("two processes own the output", replace(RENAMING, locked=False), begin(kills=1, drops=1)),
    ("commits are not durable", replace(RENAMING, durable_commits=False), _CUT),
    ("what is given back is not synced before `vanished`",
     without(RENAMING, model.sync_given_back), begin(power_cuts=1, writes=1)),
    ("a file that is given back is closed before it is moved",
     earlier(RENAMING, "turn", model.close_given_back, than=model.give_back), begin(kills=1, writes=1)),
    ("a return is not synced before `returned`", without(RENAMING, model.sync_return), begin(power_cuts=1, returns=1)),
    ("a file goes back before the intent is committed",
     earlier(RENAMING, "return", model.move_back, than=model.begin_return), begin(kills=1, returns=1)),
    ("a return that is resumed is not synced before `returned`",
     without(RENAMING, model.sync_return, of="start"), begin(kills=1, power_cuts=1, returns=1)),
    ("what was given back is not synced when the start finds its row still open",
     without(RENAMING, model.sync_vanished), begin(kills=1, power_cuts=1, writes=1)),
    ("a class folder that an earlier process made is not synced before `filed`",
     instead(RENAMING, model.sync_new_folders, sync_new_folders), begin(kills=1, power_cuts=1)),
    ("the name of a file that is going back is given to another of the same bytes",
     taken_at_once(instead(RENAMING, model.last_look, last_look)), begin(kills=1, retries=1)),
    ("at the start, whatever is at the destination counts as not put back yet",
     instead(RENAMING, model.resume_returns, resume_returns), begin(kills=1, outsiders=1, returns=1)),
    ("a file that is filed anew is not synced before `filed`",
     without(RENAMING, model.sync_refiled), begin(power_cuts=1, refilings=1)),
    ("a file that was being filed anew is not synced before the start says `filed`",
     without(RENAMING, model.sync_refiled, of="start"), begin(kills=1, power_cuts=1, refilings=1)),
    ("the class folder that it goes to is not synced before `filed`",
     without(RENAMING, model.sync_other_folder), begin(power_cuts=1, refilings=1)),
    ("a file is filed anew before the plan of that is committed",
     _changed(RENAMING, refile=(move_unplanned, model.begin_refiling, *RENAMING.routines["refile"][1:])),
     begin(kills=1, refilings=1)),
    ("a move within the output overwrites",
     instead(RENAMING, model.move_on, move_over), begin(outsiders=1, refilings=1)),
    ("another name within the output is not committed before the move",
     instead(RENAMING, model.redirect, redirect), begin(outsiders=1, refilings=1)),
    ("at the start, moves within the output are not looked for",
     without(RENAMING, model.resume_refiling), begin(kills=1, refilings=1)),
    ("at the start, whatever is in the new place counts as the file that was to go there",
     instead(RENAMING, model.resume_refiling, resume_forwards), begin(kills=1, outsiders=1, refilings=1)),
    ("at the start, a move within the output is taken back though the file has gone",
     instead(RENAMING, model.resume_refiling, resume_backwards), begin(kills=1, refilings=1)),
]  # fmt: skip

_COPYING = [
    ("the copy's content is not synced before its source goes",
     without(COPYING, model.sync_copy, model.sync_contents), _CUT),
    ("the copy's content is not synced before `ingested`", without(COPYING, model.sync_copy), _CUT),
    ("the copy's name is not synced before its source goes", without(COPYING, model.sync_copy_name), _CUT),
    ("the work folder's own name is not synced before the source goes",
     without(COPYING, model.sync_work_folders), _CUT),
    ("the hold is not synced before `ingested`", without(COPYING, model.sync_holds), _CUT),
    ("moves are not synced before `filed`", without(COPYING, model.sync_moves), _CUT),
    ("a new class folder's name is not synced before `filed`", without(COPYING, model.sync_new_folders), _CUT),
    ("the source goes before its copy's name is synced",
     before(COPYING, "claim", model.sync_copy_name, new=unlink_early), _CUT),
    ("the source goes before the copy has its name",
     before(COPYING, "claim", model.name_copy, new=unlink_early), _KILL),
    ("`ingested` is committed before the copy has its name",
     earlier(COPYING, "claim", model.ingest, than=model.name_copy), _KILL),
    ("the file is claimed before its row is committed",
     earlier(COPYING, "claim", model.take_in_hold, than=model.claim), _KILL),
    ("the file is moved before its plan is committed", moving_early(COPYING), _KILL),
    ("a source that came back is left where it is", without(COPYING, model.unlink_leftovers), _CUT),
    ("a copy whose original is not held is used", instead(COPYING, model.look_in_hold, look_in_hold), _CUT),
    ("what an earlier process had copied is trusted", instead(COPYING, model.discard_copy, discard_copy), _CUT),
    ("two processes own the output", replace(COPYING, locked=False), begin(kills=1, drops=1)),
    ("commits are not durable", replace(COPYING, durable_commits=False), _CUT),
    ("what is copied back is not synced before it has its name",
     without(COPYING, model.sync_copy_back, model.sync_finished), begin(power_cuts=1, returns=1)),
    ("what is copied back goes from where it was filed before its new name is synced",
     without(COPYING, model.sync_back), begin(power_cuts=1, returns=1)),
    ("what was filed goes before what is copied back has its name",
     earlier(COPYING, "return", model.unlink_filed, than=model.name_back), begin(kills=1, returns=1)),
    ("what is copied back and still filed stays filed as well",
     without(COPYING, model.sync_finished, model.finish_copies), begin(kills=1, returns=1)),
    ("what was copied back is not synced when the start removes what was filed",
     without(COPYING, model.sync_finished), begin(kills=1, power_cuts=1, returns=1)),
    ("half of what was being copied back is left where it is",
     without(COPYING, model.discard_back, of="start"), begin(kills=1, returns=1)),
    ("a return is not synced before `returned`",
     without(COPYING, model.sync_return), begin(power_cuts=1, returns=1)),
    ("what is being copied back is claimed before it is gone from where it was filed",
     taken_at_once(COPYING), begin(kills=1, retries=1)),
]  # fmt: skip

_HOSTILE = [
    ("the copy's content is not synced before its source goes",
     without(HOSTILE, model.sync_copy, model.sync_contents), _CUT),
    ("the copy's name is not synced before its source goes", without(HOSTILE, model.sync_copy_name), _CUT),
    ("the hold is not synced before `ingested`", without(HOSTILE, model.sync_holds), _CUT),
    ("the file is claimed before its row is committed",
     earlier(HOSTILE, "claim", model.take_in_hold, than=model.claim), _KILL),
    ("a source that came back is left where it is", without(HOSTILE, model.unlink_leftovers), _CUT),
    ("a copy whose original is not held is used", instead(HOSTILE, model.look_in_hold, look_in_hold), _CUT),
    ("what an earlier process had copied is trusted", instead(HOSTILE, model.discard_copy, discard_copy), _CUT),
    ("a return is not synced before `returned`",
     without(HOSTILE, model.sync_return), begin(power_cuts=1, returns=1)),
]  # fmt: skip


def _named(protocol: Protocol, variant: str, name: str) -> Protocol:
    return replace(protocol, name=f"{variant}, but {name}")


MUTANTS = [
    Mutant(f"{variant.name}: {name}", _named(protocol, variant.name, name), world)
    for variant, changes in (
        (RENAMING, _RENAMING),
        (COPYING, _COPYING),
        (HOSTILE, _HOSTILE),
    )
    for name, protocol, world in changes
]
"""Each must be caught."""

SPARE = [
    Mutant("copying: the finisher syncs contents once more",
           without(COPYING, model.sync_contents, of="turn"), begin(kills=1, power_cuts=1)),
    Mutant("copying: an original that goes before `ingested` is committed has a durable copy",
           before(COPYING, "claim", model.ingest, new=unlink_early), begin(kills=1, power_cuts=1)),
    Mutant("copying: the finisher syncs work folders once more",
           without(COPYING, model.sync_work_folders, of="turn"), begin(kills=1, power_cuts=1)),
    Mutant("sweeping before the rows are looked at leaves no folder behind",
           earlier(RENAMING, "start", model.sweep, than=model.close_lost), begin(kills=1, power_cuts=1)),
]  # fmt: skip
"""Each could be left out: no violation follows."""
