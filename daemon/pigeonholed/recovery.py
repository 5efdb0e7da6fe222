"""Taking up what an earlier process left unfinished. The disk says where each file is, the row what was to happen."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pigeonholed.contents import holds
from pigeonholed.errors import Unavailable
from pigeonholed.images import Status, Withdrawn
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from pigeonholed.finishing import Delivery, Finisher
    from pigeonholed.images import Arrival
    from pigeonholed.ledger import InFlight, Ledger, Plan
    from pigeonholed.output import Output

log = structlog.get_logger()


@dataclass(slots=True)
class Findings:
    """What became of the unfinished rows.

    Attributes:
        again: claimed, and in the work folder: to be decoded and classified again.
        to_move: planned, and still in the work folder.
        moved: planned, and found at their destinations.
        vanished: claimed, and taken away by their owners before the claim happened.
        lost: nowhere. Must never happen.
        strange: of inboxes that are not configured; left alone.
    """

    again: list[Arrival] = field(default_factory=list)
    to_move: list[Plan] = field(default_factory=list)
    moved: list[Plan] = field(default_factory=list)
    vanished: list[Arrival] = field(default_factory=list)
    lost: list[Arrival] = field(default_factory=list)
    strange: list[Arrival] = field(default_factory=list)


def recover(ledger: Ledger, finisher: Finisher, deliveries: Mapping[str, Delivery], now_s: float) -> list[Arrival]:
    """Finish every move that was planned, and return what must be decoded and classified again.

    The moves go through the finisher that does them every day.
    """
    findings = Findings()
    rows = ledger.in_flight(now_s)
    for row in rows:
        _look(row, deliveries, findings)
    _refuse_if_away(findings, deliveries)
    finisher.confirm_found(findings.moved)
    finisher.resume(findings.to_move)
    finisher.settle()
    finisher.turn([Withdrawn(arrival, Status.LOST, "it is in none of its places") for arrival in findings.lost])
    _sync_vanished(findings, deliveries)
    ledger.close(findings.vanished, Status.VANISHED, "it was gone before it was claimed")
    ledger.begin_again(findings.again)
    if rows:
        log.info(
            "work_resumed",
            again=len(findings.again),
            moved=len(findings.to_move),
            found=len(findings.moved),
            vanished=len(findings.vanished),
            lost=len(findings.lost),
            of_unknown_inboxes=len(findings.strange),
        )
    sweep(deliveries, {arrival.token for arrival in (*findings.again, *findings.strange)})
    return findings.again


def _sync_vanished(findings: Findings, deliveries: Mapping[str, Delivery]) -> None:
    """Makes durable that these files are not in the work folder.

    One may have been given back just before the process died: a power cut would undo that rename, and leave the file
    where no row that lives looks for it.
    """
    folders: dict[Output, set[str]] = {}
    for arrival in findings.vanished:
        delivery = deliveries[arrival.file.inbox]
        back = os.path.dirname(os.path.join(delivery.inbox, arrival.file.path))
        folders.setdefault(delivery.output, set()).update((back, delivery.output.batch_folder(arrival.token)))
    for output, changed in folders.items():
        output.disk.sync([], changed)


def _refuse_if_away(findings: Findings, deliveries: Mapping[str, Delivery]) -> None:
    """An output that nobody owned yet, while files in flight should be in it, is not where it was."""
    for arrival in findings.lost:
        output = deliveries[arrival.file.inbox].output
        if output.fresh:
            output.disown()
            raise Unavailable(
                f"{len(findings.lost)} files in flight should be in the output {output.root}, which is empty; "
                "if its mount is away, mount it again"
            )


def _look(row: InFlight, deliveries: Mapping[str, Delivery], findings: Findings) -> None:
    delivery = deliveries.get(row.arrival.file.inbox)
    if delivery is None:
        findings.strange.append(row.arrival)
        return
    waits = os.path.lexists(delivery.output.work_path(row.arrival))
    if row.plan is not None:
        if waits:
            findings.to_move.append(row.plan)
        elif _is_there(delivery, row.plan):
            findings.moved.append(row.plan)
        else:
            findings.lost.append(row.arrival)
    elif waits or _claim_again(row.arrival, delivery):
        findings.again.append(row.arrival)
    else:
        findings.vanished.append(row.arrival)


def _is_there(delivery: Delivery, plan: Plan) -> bool:
    """Whether the very bytes of a plan are at its destination."""
    path = os.path.join(delivery.output.root, plan.destination)
    return holds(path, plan.fingerprint.size, plan.fingerprint.sha256)


def _claim_again(arrival: Arrival, delivery: Delivery) -> bool:
    """Do the rename that was recorded but never happened, if the file is still the one that was recorded."""
    source = os.path.join(delivery.inbox, arrival.file.path)
    try:
        status = os.lstat(source)
        if (status.st_size, status.st_mtime_ns) != (arrival.file.size, arrival.file.mtime_ns):
            return False
        os.makedirs(delivery.output.batch_folder(arrival.token), mode=0o700, exist_ok=True)
        os.rename(source, delivery.output.work_path(arrival))
    except OSError:
        # Gone, or out of reach: a file that was not taken comes again as a new arrival. The disk has the last word.
        return os.path.lexists(delivery.output.work_path(arrival))
    return True


def sweep(deliveries: Mapping[str, Delivery], used: Collection[str]) -> None:
    """Remove empty work folders that no row in flight uses; what is not empty is reported and never touched."""
    outputs: set[Output] = {delivery.output for delivery in deliveries.values()}
    for output in outputs:
        for token in output.batch_folders():
            if token in used:
                continue
            with contextlib.suppress(OSError):
                os.rmdir(output.batch_folder(token))
                continue
            log.error("orphans_found", folder=to_text(output.batch_folder(token)), remedy="pigeonholed fsck")
