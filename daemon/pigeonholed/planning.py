"""What is to become of a batch of outcomes: which file goes where, and what its row will say.

Looks at disks, and changes nothing on any: whoever is told a plan records it first.
"""

from __future__ import annotations

import os
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING

from pigeonholed.companions import places_beside
from pigeonholed.disk import is_folder
from pigeonholed.duplicates import Originals, compared, content_of
from pigeonholed.entries import Plan
from pigeonholed.images import Classified, Duplicate, Original, Placement, Status, Withdrawn, mtime_ns_of
from pigeonholed.paths import to_text
from pigeonholed.placing import clear_of_files, flattened, free_name, placement_of, room_below, sidecar_of
from pigeonholed.staying import look_again

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.delivery import Delivery
    from pigeonholed.duplicates import Filed
    from pigeonholed.images import Arrival, Handled, Outcome
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience


class Planner:
    """Plans batches. Owned by the finishing thread.

    Args:
        deliveries: by inbox.
        contents: what is filed, for inboxes that set duplicates aside.
        patience: waits for what cannot be looked at now.
    """

    def __init__(self, deliveries: Mapping[str, Delivery], contents: Filed, patience: Patience) -> None:
        self._deliveries = deliveries
        self._patience = patience
        asking = [inbox for inbox, delivery in deliveries.items() if delivery.sets_aside]
        self._originals = Originals(asking, contents, patience, "file")

    def of_claimed(self, handled: Sequence[Handled]) -> tuple[list[Plan], list[Withdrawn]]:
        """Plans for files in work folders, each with a place of its own, and those of which nothing will be filed."""
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

    def of_staying(self, handled: Sequence[Handled]) -> tuple[list[Plan], list[Withdrawn]]:
        """Plans for files that stay in their inboxes, which have no place, and those of which nothing is recorded."""
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
        return plans, withdrawn

    def renamed(self, plan: Plan) -> Plan:
        """The same under another name, since somebody else has its own."""
        output, wanted = self._deliveries[plan.arrival.file.inbox].output, plan.destination

        def is_file(path: str) -> bool:
            full_path = os.path.join(output.root, path)
            return os.path.lexists(full_path) and not is_folder(full_path)

        # Only now is it worth a look whether a folder on the way is somebody's file, or a link that leads away.
        clear = clear_of_files(flattened(wanted, room_below(output.root)), plan.arrival.key, is_file)
        taken = self._taken(output, plan.placement, {(output.root, wanted)}, plan.arrival)
        destination = free_name(clear, plan.arrival, taken)
        return replace(plan, destination=destination, beside=places_beside(destination, plan.arrival))

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

    def _plan(self, outcome: Outcome, promised: set[tuple[str, str]]) -> Plan:
        delivery = self._deliveries[outcome.arrival.file.inbox]
        placement = placement_of(outcome)
        wanted = flattened(delivery.placer.destination(outcome), room_below(delivery.output.root))
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


def _warning(outcome: Classified) -> str | None:
    """What is to be known of a file that was filed all the same."""
    names = outcome.fingerprint.names
    return f"the file has {names} names (hard links): through another it can still be changed" if names > 1 else None
