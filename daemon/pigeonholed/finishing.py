"""The end of the line: record what is to become of each file, move it, make it durable, confirm it.

One turn serves a batch. Its sync makes two things durable at once: the claims of this batch and the moves of the one
before; its commit records two things at once: the plans of this batch and that the one before is filed. Each commit
states only facts that are durable already, and each move only follows a plan that is committed.
"""

from __future__ import annotations

import errno
import os
from contextlib import nullcontext, suppress
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pigeonholed import beneath
from pigeonholed.disk import is_folder, is_there
from pigeonholed.entries import Plan
from pigeonholed.explanations import Drafts
from pigeonholed.images import Placement, Status, Withdrawn
from pigeonholed.metrics import Stage
from pigeonholed.paths import to_text
from pigeonholed.placing import alternatives, room_below, sidecar_of
from pigeonholed.planning import Planner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from contextlib import AbstractContextManager

    from pigeonholed.delivery import Delivery
    from pigeonholed.duplicates import Filed
    from pigeonholed.images import Arrival, Handled
    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience

log = structlog.get_logger()

_LONGEST_NUMBER = 16  # behind a name that is taken
_OTHER_NAME = frozenset({errno.EEXIST, errno.ENAMETOOLONG})
"""After these a file is moved to another name."""
_REFUSALS = frozenset({errno.EACCES, errno.EPERM, errno.EXDEV, errno.ELOOP})
"""A class folder that we may not write to or that leads to another mount: waited for, since a person can mend it."""


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
        self._planner = Planner(deliveries, contents, patience)
        self._moved: list[Plan] = []
        self._folders: dict[Output, set[str]] = {}
        self._drafts = Drafts()

    def turn(self, handled: Sequence[Handled]) -> None:
        """Plan and move a batch, and confirm the one before."""
        if staying := [item for item in handled if item.arrival.stays]:
            self._note(staying)
        plans, withdrawn = self._planner.of_claimed([item for item in handled if not item.arrival.stays])
        if plans:
            with self._timed(Stage.RECORD):
                for plan in plans:
                    self._drafts.write(self._output_of(plan), plan)
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
            self._drafts.write(self._output_of(plan), plan)
        for output in {self._output_of(plan) for plan in plans}:
            if drafts := self._drafts.of(output, plans):
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

    def _note(self, handled: Sequence[Handled]) -> None:
        """Record what becomes of files that stay where they are: a row, and nothing on any disk."""
        plans, withdrawn = self._planner.of_staying(handled)
        if plans:
            self._ledger.note(plans)
            self._on_filed(plans)
        if withdrawn:
            self._withdraw(withdrawn)
        for item in handled:  # only now, when the ledger knows those that are not to come again
            self._deliveries[item.arrival.file.inbox].custody.release([item.arrival])

    def _caught_up(self, plan: Plan) -> Plan:
        """What travels with a picture follows it where a power cut has kept its move and undone theirs."""
        output = self._output_of(plan)
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

    def _reach(self, output: Output) -> bool:
        """Wait for the output while its mount is away; true if it was."""
        try:
            output.require()
        except OSError:
            self._patience.retry("file", f"reach the output {to_text(output.root)}", output.require)
            return True
        return False

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
            files[output] += self._drafts.of(output, plans)
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
                    refused.append(self._planner.renamed(plan))
            if refused:
                self._sync_companions(refused)
                self._ledger.plan(refused)
            waiting = refused

    def _sync_companions(self, plans: Sequence[Plan]) -> None:
        """What went ahead of a picture and came back is back for certain, before its plan names another place."""
        for plan in plans:
            if plan.beside:
                output = self._output_of(plan)
                self._make_durable(output, [], self._folders.get(output, set()))

    def _moves(self, plan: Plan) -> bool:
        """Move one file; False when its name is too long, or taken, or that of a folder on the way. Safe to repeat."""
        output = self._output_of(plan)
        if len(os.fsencode(plan.destination)) > room_below(output.root) + _LONGEST_NUMBER:
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
        output = self._output_of(plan)
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
        if plan.placement is Placement.REJECTED and not self._drafts.place(output, plan, folder, name):
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
        output = self._output_of(plan)
        target = os.path.join(output.root, plan.destination)
        self._folders.setdefault(output, set()).update(
            (os.path.dirname(target), output.batch_folder(plan.arrival.token))
        )

    def _touch_above(self, plan: Plan) -> None:
        """Remember the folders above a target: whoever made them may have died before they were durable."""
        output = self._output_of(plan)
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
                self._deliveries[item.arrival.file.inbox].give_back(item.arrival)
        for item in withdrawn:
            self._deliveries[item.arrival.file.inbox].give_back_companions(item.arrival)
        for status in (Status.VANISHED, Status.LOST):
            chosen = [item for item in withdrawn if item.status is status]
            for detail in {item.detail for item in chosen}:
                self._ledger.close([item.arrival for item in chosen if item.detail == detail], status, detail)
        for inbox in {item.arrival.file.inbox for item in withdrawn if item.status is Status.VANISHED}:
            self._deliveries[inbox].custody.forget()  # an original that stayed is to be taken again, as it is
        self._on_withdrawn(withdrawn)
        self._remove_folders(item.arrival for item in withdrawn)

    def _output_of(self, plan: Plan) -> Output:
        return self._deliveries[plan.arrival.file.inbox].output

    def _remove_folders(self, arrivals: Iterator[Arrival]) -> None:
        done = {(self._deliveries[arrival.file.inbox].output, arrival.token) for arrival in arrivals}
        for output, token in done:
            output.remove_batch_folder(token)


def _moving(plan: Plan) -> str:
    return f"move a file to {to_text(plan.destination)}"
