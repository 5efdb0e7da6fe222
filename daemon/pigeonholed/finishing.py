"""The end of the line: record what is to become of each file, move it, make it durable, confirm it.

One turn serves a batch. Its sync makes two things durable at once: the claims of this batch and the moves of the one
before; its commit records two things at once: the plans of this batch and that the one before is filed. Each commit
states only facts that are durable already, and each move only follows a plan that is committed.
"""

from __future__ import annotations

import errno
import json
import os
from contextlib import nullcontext, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from itertools import chain
from typing import TYPE_CHECKING, Any

import structlog

from pigeonholed import beneath
from pigeonholed.companions import beside, room_for
from pigeonholed.custody import Renaming
from pigeonholed.disk import is_folder, is_there, require_gone
from pigeonholed.duplicates import Originals, compared, content_of
from pigeonholed.entries import Plan
from pigeonholed.images import Classified, Duplicate, Original, Placement, Status, Withdrawn, mtime_ns_of
from pigeonholed.log_lines import escaped
from pigeonholed.metrics import Stage
from pigeonholed.paths import to_text
from pigeonholed.placing import alternatives, clear_of_files, cut, flattened, placement_of, sidecar_of
from pigeonholed.staying import look_again

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pigeonholed.custody import Custody
    from pigeonholed.duplicates import Filed
    from pigeonholed.images import Arrival, Handled, Outcome
    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience
    from pigeonholed.placing import Placer

log = structlog.get_logger()

_LONGEST_PATH = 4095  # PATH_MAX without its final NUL
_LONGEST_NUMBER = 16  # behind a name that is taken
_LONGEST_EXPLANATION = 1 << 20
_OTHER_NAME = frozenset({errno.EEXIST, errno.ENAMETOOLONG})
"""After these a file is moved to another name."""
_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.ELOOP})
"""A class folder that we may not write to or that leads to another mount: waited for, since a person can mend it."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How the files of one inbox leave it.

    Attributes:
        inbox: the folder they came from.
        output: the folder they go to.
        placer: renders their destinations.
        custody: how they were taken, and how they go back; by renaming, where nothing else is said.
        nowhere: the configuration names no output for them; `output` holds nothing then.
        sets_aside: what has the same bytes as a filed picture of the inbox goes to a folder of its own.
    """

    inbox: str
    output: Output
    placer: Placer
    custody: Custody = None  # type: ignore[assignment]
    nowhere: bool = False
    sets_aside: bool = False

    def __post_init__(self) -> None:
        if self.custody is None:
            object.__setattr__(self, "custody", Renaming(self.inbox, self.output))


class Finisher:
    """Files outcomes, a batch at a turn. Owned by the finishing thread.

    Args:
        deliveries: by inbox.
        ledger: records plans and confirmations.
        contents: what is filed, for inboxes that set duplicates aside.
        patience: waits for full disks and lost mounts.
        on_filed: told of the plans that have become results, once each.
        on_withdrawn: told of arrivals that leave no result, once each.
        on_taken: told of plans whose name somebody else has taken, before they get another.
        timed: measures the recording and the filing of a batch.
    """

    def __init__(
        self,
        deliveries: Mapping[str, Delivery],
        ledger: Ledger,
        contents: Filed,
        patience: Patience,
        on_filed: Callable[[Sequence[Plan]], None],
        on_withdrawn: Callable[[Sequence[Withdrawn]], None],
        on_taken: Callable[[Plan], None] = lambda _plan: None,
        timed: Callable[[Stage], AbstractContextManager[object]] = lambda _stage: nullcontext(),
    ) -> None:
        self._deliveries = deliveries
        self._ledger = ledger
        self._patience = patience
        self._on_filed = on_filed
        self._on_withdrawn = on_withdrawn
        self._on_taken = on_taken
        self._timed = timed
        asking = [inbox for inbox, delivery in deliveries.items() if delivery.sets_aside]
        self._originals = Originals(asking, contents, patience, "file")
        self._moved: list[Plan] = []
        self._folders: dict[Output, set[str]] = {}
        self._drafts: set[str] = set()  # reasons that are durable with the next sync, or are already

    def turn(self, handled: Sequence[Handled]) -> None:
        """Plan and move a batch, and confirm the one before."""
        if staying := [item for item in handled if item.arrival.stays]:
            self._note(staying)
        plans, withdrawn = self._planned([item for item in handled if not item.arrival.stays])
        if plans:
            with self._timed(Stage.RECORD):
                self._draft(plans)
                self._sync(plans)
                self._ledger.plan(plans, [plan.arrival for plan in self._moved])
            self._confirmed()
            with self._timed(Stage.FILE):
                self._move(plans)
        if withdrawn:
            self._withdraw(withdrawn)

    def resume(self, plans: Sequence[Plan]) -> None:
        """Move files whose plan an earlier process committed."""
        for plan in plans:
            self._touch_above(plan)
        self._draft(plans)
        for output in {self._deliveries[plan.arrival.file.inbox].output for plan in plans}:
            if drafts := self._drafts_for(output, plans):
                output.disk.sync(drafts, [])
        self._move(plans)

    def settle(self) -> None:
        """Confirm what has been moved; called when nothing else is there to do."""
        if self._moved:
            self._sync([])
            self._ledger.confirm([plan.arrival for plan in self._moved])
            self._confirmed()

    def confirm_found(self, plans: Sequence[Plan]) -> None:
        """Confirm files that an earlier process moved: they were found at their destinations."""
        for plan in plans:
            self._touch(plan)
            self._touch_above(plan)
            self._moved.append(self._caught_up(plan))

    def _caught_up(self, plan: Plan) -> Plan:
        """What travels with a picture follows it where a power cut has kept its move and undone theirs."""
        output = self._deliveries[plan.arrival.file.inbox].output
        for index, companion in enumerate(plan.arrival.companions):
            places = alternatives(plan.beside[index], companion.key, lambda _path: False)
            while is_there(output.work_path(companion)):
                place = next(places)
                if place != plan.beside[index]:
                    plan = replace(plan, beside=(*plan.beside[:index], place, *plan.beside[index + 1 :]))
                    self._ledger.plan([plan])
                with suppress(FileExistsError), beneath.folder(output.root, os.path.dirname(place)) as folder:
                    output.disk.rename_new(output.work_path(companion), os.path.basename(place), target_dir=folder)
        return plan

    def _planned(self, handled: Sequence[Handled]) -> tuple[list[Plan], list[Withdrawn]]:
        plans: list[Plan] = []
        withdrawn: list[Withdrawn] = []
        promised: set[tuple[str, str]] = set()
        outcomes: list[Outcome] = []
        for item in handled:
            if isinstance(item, Withdrawn):
                withdrawn.append(item)
            elif (fault := self._changed(item)) is not None:
                withdrawn.append(fault)
            else:
                outcomes.append(item)
        known = self._originals.of(outcomes)
        for outcome in self._in_order(outcomes):
            result = compared(outcome, known)
            if isinstance(result, Withdrawn):
                withdrawn.append(result)
                continue
            plan = self._plan(result, promised)
            root = self._deliveries[plan.arrival.file.inbox].output.root
            promised.update((root, path) for path in (plan.destination, *plan.beside))
            plans.append(plan)
            if plan.stands:
                known[content_of(result)] = Original(plan.arrival.id, to_text(plan.destination))
        return plans, withdrawn

    def _note(self, handled: Sequence[Handled]) -> None:
        """Record what becomes of files that stay where they are: a row, and nothing on any disk."""
        outcomes: list[Outcome] = []
        withdrawn: list[Withdrawn] = []
        for item in handled:
            seen: Handled = item
            if not isinstance(item, Withdrawn):
                look = partial(look_again, item, self._deliveries[item.arrival.file.inbox].inbox)
                seen = self._patience.retry("file", "look at a file of an inbox", look)
            if isinstance(seen, Withdrawn):
                withdrawn.append(seen)
            else:
                outcomes.append(seen)
        plans: list[Plan] = []
        known = self._originals.of(outcomes)
        for outcome in self._in_order(outcomes):
            result = compared(outcome, known)
            if isinstance(result, Withdrawn):
                withdrawn.append(result)
                continue
            plans.append(self._plan_to(result, ""))
            if plans[-1].stands:
                known[content_of(result)] = Original(result.arrival.id, None)
        if plans:
            self._ledger.note(plans)
            self._on_filed(plans)
        if withdrawn:
            self._withdraw(withdrawn)
        for item in handled:  # only now, when the ledger knows those that are not to come again
            self._deliveries[item.arrival.file.inbox].custody.release([item.arrival])

    def _in_order(self, outcomes: list[Outcome]) -> Sequence[Outcome]:
        """Where equal ones come together, the first that arrived is the original, whichever thread was faster."""
        return sorted(outcomes, key=lambda outcome: outcome.arrival.id) if self._originals else outcomes

    def _changed(self, outcome: Outcome) -> Withdrawn | None:
        """A last look before the plan: what was hashed and decoded must still be what is there."""
        arrival = outcome.arrival
        look = partial(self._deliveries[arrival.file.inbox].output.status_of, arrival)
        try:
            status = self._patience.retry("file", "look at a claimed file", look)
        except FileNotFoundError:
            return Withdrawn(arrival, Status.LOST, "it disappeared from the work folder")
        if (status.st_size, mtime_ns_of(status)) != (outcome.fingerprint.size, outcome.fingerprint.mtime_ns):
            return Withdrawn(arrival, Status.VANISHED, "it was still being written to")
        return None

    def _reach(self, output: Output) -> bool:
        """Wait for the output while its mount is away; true if it was."""
        try:
            output.require()
        except OSError:
            self._patience.retry("file", f"reach the output {to_text(output.root)}", output.require)
            return True
        return False

    def _plan(self, outcome: Outcome, promised: set[tuple[str, str]]) -> Plan:
        delivery = self._deliveries[outcome.arrival.file.inbox]
        placement = placement_of(outcome)
        wanted = flattened(delivery.placer.destination(outcome), room_below(delivery.output))
        taken = self._taken(delivery.output, placement, promised, outcome.arrival)
        return self._plan_to(outcome, free_name(wanted, outcome.arrival, taken))

    def _plan_to(self, outcome: Outcome, destination: str) -> Plan:
        """What is recorded of an outcome; without a destination where the file stays in its inbox."""
        arrival = outcome.arrival
        prediction, reason, detail = None, None, None
        if isinstance(outcome, Classified):
            prediction, detail = outcome.prediction, _warning(outcome)
        elif isinstance(outcome, Duplicate):
            detail = f"the same bytes as {outcome.original}"
        else:
            reason, detail = outcome.reason, outcome.detail
        return Plan(
            arrival,
            outcome.fingerprint,
            placement_of(outcome),
            destination,
            prediction,
            reason,
            detail,
            outcome.width,
            outcome.height,
            self._deliveries[arrival.file.inbox].sets_aside and isinstance(outcome, Classified),
            places_beside(destination, arrival),
        )

    def _taken(
        self, output: Output, placement: Placement, promised: set[tuple[str, str]], arrival: Arrival
    ) -> Callable[[str], bool]:
        """Which names are in use as far as we can see; the move itself decides."""

        def in_use(path: str) -> bool:
            return (output.root, path) in promised or path in output.leaving or os.path.lexists(f"{output.root}/{path}")

        def taken(path: str) -> bool:
            if in_use(path) or any(map(in_use, places_beside(path, arrival))):
                return True
            return placement is Placement.REJECTED and os.path.lexists(sidecar_of(f"{output.root}/{path}"))

        return taken

    def _sync(self, plans: Sequence[Plan]) -> None:
        """Make durable: the contents and claims of `plans`, their reasons, and the moves before them."""
        files: dict[Output, list[str]] = {}
        folders: dict[Output, set[str]] = {output: set(paths) for output, paths in self._folders.items()}
        for plan in plans:
            delivery = self._deliveries[plan.arrival.file.inbox]
            output = delivery.output
            files.setdefault(output, []).extend(map(output.work_path, (plan.arrival, *plan.arrival.companions)))
            changed = folders.setdefault(output, set())
            changed.update((output.private, output.batch_folder(plan.arrival.token)))
            if not delivery.custody.copies:  # a copy was recorded only after its original's claim was durable
                changed.add(os.path.dirname(os.path.join(delivery.inbox, plan.arrival.file.path)))
        for output in files:
            files[output] += self._drafts_for(output, plans)
        for output in files.keys() | folders.keys():
            self._make_durable(output, files.get(output, []), folders.get(output, set()))

    def _make_durable(self, output: Output, files: Sequence[str], folders: set[str]) -> None:
        output.disk.sync(files, folders)
        while self._reach(output):  # it was away, so its names may have led nowhere
            output.disk.sync(files, folders)

    def _move(self, plans: Sequence[Plan]) -> None:
        """Move planned files; where an outsider took the name in between, plan another name and go on."""
        waiting = list(plans)
        while waiting:
            refused: list[Plan] = []
            for plan in waiting:
                if self._patience.retry("file", _moving(plan), partial(self._moves, plan), also=_REFUSALS):
                    self._touch(plan)
                    self._moved.append(plan)
                else:
                    self._on_taken(plan)
                    refused.append(self._renamed(plan))
            if refused:
                self._sync_companions(refused)
                self._ledger.plan(refused)
            waiting = refused

    def _sync_companions(self, plans: Sequence[Plan]) -> None:
        """What went ahead of a picture and came back is back for certain, before its plan names another place."""
        for plan in plans:
            if plan.beside:
                output = self._deliveries[plan.arrival.file.inbox].output
                self._make_durable(output, [], self._folders.get(output, set()))

    def _renamed(self, plan: Plan) -> Plan:
        delivery = self._deliveries[plan.arrival.file.inbox]
        wanted = plan.destination
        output = delivery.output

        def is_file(path: str) -> bool:
            full_path = os.path.join(output.root, path)
            return os.path.lexists(full_path) and not is_folder(full_path)

        # Only now is it worth a look whether a folder on the way is somebody's file, or a link that leads away.
        clear = clear_of_files(flattened(wanted, room_below(output)), plan.arrival.key, is_file)
        taken = self._taken(output, plan.placement, {(output.root, wanted)}, plan.arrival)
        destination = free_name(clear, plan.arrival, taken)
        return replace(plan, destination=destination, beside=places_beside(destination, plan.arrival))

    def _moves(self, plan: Plan) -> bool:
        """Move one file; False when its name is too long, or taken, or that of a folder on the way. Safe to repeat."""
        output = self._deliveries[plan.arrival.file.inbox].output
        if len(os.fsencode(plan.destination)) > room_below(output) + _LONGEST_NUMBER:
            return False  # folder by folder we would come there, and nobody else by its path
        try:
            return self._moves_to_its_name(plan)
        except NotADirectoryError:
            return False
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            return False

    def _moves_to_its_name(self, plan: Plan) -> bool:
        output = self._deliveries[plan.arrival.file.inbox].output
        folder, _, name = plan.destination.rpartition("/")
        if plan.placement is Placement.REJECTED:
            self._make_folders(output, os.path.join(output.root, folder))
        try:
            with beneath.folder(output.root, folder) as fd:
                return self._moves_into(fd, name, plan, output)
        except FileNotFoundError:
            self._make_folders(output, os.path.join(output.root, folder))
        with beneath.folder(output.root, folder) as fd:
            return self._moves_into(fd, name, plan, output)

    def _moves_into(self, folder: int, name: str, plan: Plan, output: Output) -> bool:
        if plan.placement is Placement.REJECTED and not self._explain(output, plan, folder, name):
            return False
        try:
            if plan.beside:
                self._move_companions(output, plan, folder)
            output.disk.rename_new(output.work_path(plan.arrival), name, target_dir=folder)
        except OSError as error:
            if plan.beside and error.errno in _OTHER_NAME:
                self._fetch_companions(output, plan, folder)
            if error.errno != errno.EEXIST:
                raise
            if plan.placement is Placement.REJECTED:
                os.unlink(sidecar_of(name), dir_fd=folder)
            return False
        return True

    def _move_companions(self, output: Output, plan: Plan, folder: int) -> None:
        """What travels with a picture goes ahead of it; safe to repeat.

        Raises:
            FileExistsError: a name is taken.
        """
        for companion, place in zip(plan.arrival.companions, plan.beside, strict=True):
            work = output.work_path(companion)
            if is_there(work):
                output.disk.rename_new(work, os.path.basename(place), target_dir=folder)
            elif not is_there(os.path.join(output.root, place)):
                log.critical("sidecar_lost", inbox=companion.file.inbox, path=to_text(companion.file.path))

    def _fetch_companions(self, output: Output, plan: Plan, folder: int) -> None:
        """What went ahead waits with its picture again; what still does is what had no room."""
        self._touch(plan)
        for companion, place in zip(plan.arrival.companions, plan.beside, strict=True):
            work = output.work_path(companion)
            if not is_there(work):
                with suppress(FileNotFoundError):
                    output.disk.rename_new(os.path.basename(place), work, source_dir=folder)

    def _draft(self, plans: Sequence[Plan]) -> None:
        """Write the reasons of rejected files where they become durable with their plans.

        Not only beside the file: a power cut could keep such a name and lose what it leads to.
        """
        for plan in plans:
            if plan.placement is Placement.REJECTED:
                draft = self._deliveries[plan.arrival.file.inbox].output.draft_path(plan.arrival)
                with suppress(OSError):  # a full disk is waited for when the file is moved
                    _write(draft, plan)
                    self._drafts.add(draft)

    def _drafts_for(self, output: Output, plans: Sequence[Plan]) -> list[str]:
        mine = (plan.arrival for plan in plans if self._deliveries[plan.arrival.file.inbox].output is output)
        return [draft for arrival in mine if (draft := output.draft_path(arrival)) in self._drafts]

    def _explain(self, output: Output, plan: Plan, folder: int, name: str) -> bool:
        """Put the reason beside where a rejected file will be; False when somebody else's file has that name."""
        sidecar, draft = sidecar_of(name), output.draft_path(plan.arrival)
        if draft not in self._drafts:
            _write(draft, plan)
            output.disk.sync([draft], [])
        self._drafts.discard(draft)  # a rename that fails may have been done
        try:
            output.disk.rename_new(draft, sidecar, target_dir=folder)
        except FileExistsError:
            if not explains(os.path.join(beneath.path_of(folder), sidecar), plan.arrival.key):
                self._drafts.add(draft)  # for the name that is tried next
                return False
            os.unlink(draft)
        return True

    def _make_folders(self, output: Output, folder: str) -> None:
        """Make a class folder and what is above it, remembering whose entries must be made durable."""
        output.require()  # never make folders where a mount should be
        made = folder
        while made != output.root and not is_folder(made):
            made = os.path.dirname(made)
            self._folders.setdefault(output, set()).add(made)
        with beneath.folder(output.root, os.path.relpath(folder, output.root), make=True):
            pass

    def _touch(self, plan: Plan) -> None:
        output = self._deliveries[plan.arrival.file.inbox].output
        target = os.path.join(output.root, plan.destination)
        self._folders.setdefault(output, set()).update(
            (os.path.dirname(target), output.batch_folder(plan.arrival.token))
        )

    def _touch_above(self, plan: Plan) -> None:
        """Remember the folders above a target: whoever made them may have died before they were durable."""
        output = self._deliveries[plan.arrival.file.inbox].output
        folder = os.path.dirname(os.path.join(output.root, plan.destination))
        while len(folder) > len(output.root):
            folder = os.path.dirname(folder)
            self._folders.setdefault(output, set()).add(folder)

    def _confirmed(self) -> None:
        """Forget the batch that the ledger has just confirmed, and tell of it."""
        filed, self._moved = self._moved, []
        self._folders.clear()
        if filed:  # told before anything here can fail: the rows say so already
            self._on_filed(filed)
        self._remove_folders(plan.arrival for plan in filed)

    def _withdraw(self, withdrawn: Sequence[Withdrawn]) -> None:
        """Give files back that still change; raise the alarm for files that are gone."""
        for item in withdrawn:
            if item.status is Status.VANISHED and not item.arrival.stays:
                self._give_back(item.arrival)
        self.give_back_companions([item.arrival for item in withdrawn])
        for status in (Status.VANISHED, Status.LOST):
            chosen = [item for item in withdrawn if item.status is status]
            for detail in {item.detail for item in chosen}:
                self._ledger.close([item.arrival for item in chosen if item.detail == detail], status, detail)
        for inbox in {item.arrival.file.inbox for item in withdrawn if item.status is Status.VANISHED}:
            self._deliveries[inbox].custody.forget()  # an original that stayed is to be taken again, as it is
        self._on_withdrawn(withdrawn)
        self._remove_folders(item.arrival for item in withdrawn)

    def give_back_companions(self, arrivals: Sequence[Arrival]) -> None:
        """What came with pictures that leave no result goes back to where it was."""
        for arrival in arrivals:
            output = self._deliveries[arrival.file.inbox].output
            for companion in arrival.companions:
                if is_there(output.work_path(companion)):
                    self._give_back(companion)

    def _give_back(self, arrival: Arrival) -> None:
        delivery = self._deliveries[arrival.file.inbox]
        source = delivery.output.work_path(arrival)
        wanted = (arrival.file.path, os.path.basename(arrival.file.path))  # the other where its folder is none any more
        for name in chain.from_iterable(alternatives(path, arrival.key, lambda _path: False) for path in wanted):
            target = os.path.join(delivery.inbox, name)
            try:
                with beneath.folder(delivery.inbox, os.path.dirname(name), make=True) as folder:
                    delivery.custody.put_back(source, os.path.join(beneath.path_of(folder), os.path.basename(name)))
            except (FileExistsError, NotADirectoryError):
                continue
            # Before the row is closed: after a power cut no file may be in the work folder without a row that lives.
            delivery.output.disk.sync([], [os.path.dirname(target), delivery.output.batch_folder(arrival.token)])
            return
        raise FileExistsError(errno.EEXIST, "no name is free to give a file back under", delivery.inbox)

    def _remove_folders(self, arrivals: Iterator[Arrival]) -> None:
        done = {(self._deliveries[arrival.file.inbox].output, arrival.token) for arrival in arrivals}
        for output, token in done:
            output.remove_batch_folder(token)


def places_beside(destination: str, arrival: Arrival) -> tuple[str, ...]:
    """Where the companions of an arrival go, if it goes to `destination`."""
    if not arrival.companions:
        return ()
    return beside(destination, arrival.file.path, [companion.file.path for companion in arrival.companions])


def free_name(wanted: str, arrival: Arrival, taken: Callable[[str], bool]) -> str:
    """The wanted name or another that is free, also for what travels with the file."""
    if not arrival.companions:
        return next(alternatives(wanted, arrival.key, taken))
    room = room_for(arrival.file.path, [companion.file.path for companion in arrival.companions])
    return next(alternatives(cut(wanted, room), arrival.key, taken, room))


def _warning(outcome: Classified) -> str | None:
    """What is to be known of a file that was filed all the same."""
    names = outcome.fingerprint.names
    return f"the file has {names} names (hard links): through another it can still be changed" if names > 1 else None


def room_below(output: Output) -> int:
    """How many bytes a path below an output may have, so that its users can name what is there."""
    return _LONGEST_PATH - len(os.fsencode(output.root)) - 64  # for a number, a sidecar and the slashes


def _moving(plan: Plan) -> str:
    return f"move a file to {to_text(plan.destination)}"


def _write(draft: str, plan: Plan) -> None:
    with open(draft, "w", encoding="utf-8") as file:
        file.write(explanation(plan))


def explanation(plan: Plan, rejected_at: datetime | None = None) -> str:
    """The content of the sidecar of a rejected file."""
    rejected_at = rejected_at or datetime.now(UTC)
    content = {
        "path": to_text(plan.arrival.file.path),
        "inbox": plan.arrival.file.inbox,
        "reason": plan.reason,
        "detail": plan.detail,
        "sha256": plan.fingerprint.sha256,
        "size_bytes": plan.fingerprint.size,
        "rejected_at": rejected_at.isoformat(timespec="seconds"),
        "arrival": plan.arrival.key,
    }
    # For people, without a character that a terminal would obey: the name in it is its dropper's.
    text = json.dumps(content, indent=2, ensure_ascii=False)
    return "".join(c if c.isprintable() or c == "\n" else escaped(c) for c in text) + "\n"


def explains(sidecar: str, key: str) -> bool:
    """Whether a sidecar is ours: it was written for this very arrival.

    Raises:
        OSError: the disk fails to answer.
    """
    content = explanation_in(sidecar)
    return content is not None and content.get("arrival") == key


def explanation_in(sidecar: str) -> dict[str, Any] | None:
    """What a sidecar says, if it is one: anybody may have written it.

    Raises:
        OSError: the disk fails to answer.
    """
    try:
        # Somebody else's, if it is a link, a pipe that would be waited for, or too long or too deep to be read.
        fd = os.open(sidecar, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            content = json.loads(os.read(fd, _LONGEST_EXPLANATION))
        finally:
            os.close(fd)
    except FileNotFoundError:
        require_gone(sidecar)
        return None
    except (IsADirectoryError, ValueError, RecursionError):
        return None
    except PermissionError:
        if os.lstat(sidecar).st_uid == os.geteuid():
            raise  # it may be ours
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO, errno.EAGAIN}:
            return None
        raise
    return content if isinstance(content, dict) and "arrival" in content else None
