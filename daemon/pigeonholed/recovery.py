"""Taking up what an earlier process left unfinished. The disk says where each file is, the row what was to happen."""

from __future__ import annotations

import contextlib
import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from pigeonholed.contents import is_same_content
from pigeonholed.copy_custody import Copying
from pigeonholed.disk import is_there
from pigeonholed.errors import Misconfigured, Unavailable
from pigeonholed.hold_folder import HoldFolder
from pigeonholed.images import Fingerprint, Status, Withdrawn, accompanied
from pigeonholed.metrics import Metrics
from pigeonholed.originals import Held
from pigeonholed.paths import to_text
from pigeonholed.patience import Patience
from pigeonholed.sweeping import sweep
from pigeonholed.whereabouts import has, hold_of, is_in_inbox, is_one_file, let_go, original_is, require_gone

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from pigeonholed.custody import Refusal
    from pigeonholed.delivery import Delivery
    from pigeonholed.entries import InFlight, Plan
    from pigeonholed.finishing import Finisher
    from pigeonholed.images import Arrival
    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output

log = structlog.get_logger()


@dataclass(slots=True)
class Findings:
    """What became of the unfinished rows.

    Attributes:
        again: claimed, and in the work folder: to be decoded and classified again.
        to_copy: claimed, and to be copied again: from a hold folder, or as the inbox's files are copied now.
        to_move: planned, and still in the work folder.
        moved: planned, and found at their destinations.
        vanished: claimed, and taken away by their owners before the claim happened.
        lost: nowhere. Must never happen.
        strange: of inboxes that are not configured, or away with what they may hold; left alone.
    """

    again: list[Arrival] = field(default_factory=list)
    to_copy: list[tuple[HoldFolder | None, Arrival]] = field(default_factory=list)
    to_move: list[Plan] = field(default_factory=list)
    moved: list[Plan] = field(default_factory=list)
    vanished: list[Arrival] = field(default_factory=list)
    lost: list[Arrival] = field(default_factory=list)
    strange: list[Arrival] = field(default_factory=list)


def recover(
    ledger: Ledger,
    finisher: Finisher,
    deliveries: Mapping[str, Delivery],
    now_s: float,
    patience: Patience | None = None,
    metrics: Metrics | None = None,
) -> list[Arrival]:
    """Finish every move that was planned, and return what must be decoded and classified again.

    The moves go through the finisher that does them every day, the copies through the custody that makes them.

    Raises:
        OSError: a disk does not say what is on it. No row is judged by what is not known.
    """
    metrics = metrics or Metrics(process=False)
    findings = Findings()
    rows = ledger.in_flight(now_s)
    _refuse_if_nowhere(rows, deliveries)
    for row in rows:
        _look(row, deliveries, findings)
    _refuse_if_away(findings, deliveries)
    left_alone = {arrival.key for arrival in findings.strange}
    metrics.accounts.resumed(row.arrival for row in rows if row.arrival.key not in left_alone)
    finisher.confirm_found(findings.moved)
    finisher.resume(findings.to_move)
    finisher.settle()
    finisher.turn([Withdrawn(arrival, Status.LOST, "it is in none of its places") for arrival in findings.lost])
    for arrival in findings.vanished:
        deliveries[arrival.file.inbox].give_back_companions(arrival)
    _sync_vanished(findings, deliveries)
    ledger.close(findings.vanished, Status.VANISHED, "it was gone before it was claimed")
    metrics.accounts.vanished(findings.vanished)
    for refusal in _copy_again(findings, deliveries, ledger, patience or Patience()):
        ledger.close([refusal.arrival], Status.VANISHED, refusal.why)
        metrics.accounts.vanished([refusal.arrival])
    findings.again = _with_companions(findings.again, deliveries, ledger, patience or Patience())
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
    orphans = sweep(deliveries, {arrival.token for arrival in (*findings.again, *findings.strange)}, ledger)
    metrics.orphans_found_total.inc(orphans)
    return findings.again


def _sync_vanished(findings: Findings, deliveries: Mapping[str, Delivery]) -> None:
    """Makes durable that these files are not in the work folder.

    One may have been given back just before the process died: a power cut would undo that rename, and leave the file
    where no row that lives looks for it.
    """
    folders: dict[Output, set[str]] = {}
    for arrival in findings.vanished:
        if arrival.stays:
            continue
        delivery = deliveries[arrival.file.inbox]
        back = os.path.dirname(os.path.join(delivery.inbox, arrival.file.path))
        folders.setdefault(delivery.output, set()).update((back, delivery.output.batch_folder(arrival.token)))
    for output, changed in folders.items():
        output.disk.sync([], changed)


def _refuse_if_nowhere(rows: Sequence[InFlight], deliveries: Mapping[str, Delivery]) -> None:
    """Files that wait in an output, or were to go there, need it named until they are filed."""
    for name, delivery in deliveries.items():
        if delivery.nowhere and (
            count := sum(row.arrival.file.inbox == name and not row.arrival.stays for row in rows)
        ):
            raise Misconfigured(
                f"{count} files of the inbox {name} were on their way to an output that the configuration does not "
                f'name any more, or that is away: name it for this inbox, or mount it; action = "none" may stay'
            )


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
    elif row.arrival.stays:
        _look_for_staying(row.arrival, delivery, findings)
    elif row.plan is not None:
        _look_for_planned(row.arrival, row.plan, delivery, findings)
    elif row.copied is not None:
        _look_for_copied(row.arrival, row.copied, delivery, findings)
    else:
        _look_for_claimed(row.arrival, delivery, findings)


def _look_for_staying(arrival: Arrival, delivery: Delivery, findings: Findings) -> None:
    """It is looked at again, if it is the one that was recorded; else what is there is a new arrival."""
    if delivery.custody.rows_only and is_in_inbox(arrival, delivery):
        delivery.custody.take(arrival)
        findings.again.append(arrival)
    else:
        findings.vanished.append(arrival)


def _look_for_planned(arrival: Arrival, plan: Plan, delivery: Delivery, findings: Findings) -> None:
    work, target = delivery.output.work_path(arrival), os.path.join(delivery.output.root, plan.destination)
    if is_there(work):
        if is_one_file(work, target):  # some file systems keep both names when the power goes in a rename
            os.unlink(work)
            findings.moved.append(plan)
        else:
            findings.to_move.append(plan)
    elif has(target, plan.fingerprint):
        findings.moved.append(plan)
    else:
        require_gone(arrival, delivery)
        findings.lost.append(arrival)


def _look_for_copied(arrival: Arrival, copied: Fingerprint, delivery: Delivery, findings: Findings) -> None:
    """The copy is durable; its original is only in the way, unless, against all promises, the copy is gone."""
    hold = hold_of(arrival, delivery)
    if is_there(delivery.output.work_path(arrival)):
        if hold is not None:
            let_go(hold, arrival)
        findings.again.append(arrival)
    elif hold is not None or original_is(copied, arrival, delivery):
        findings.to_copy.append((hold, arrival))
    else:
        require_gone(arrival, delivery)
        findings.lost.append(arrival)


def _look_for_claimed(arrival: Arrival, delivery: Delivery, findings: Findings) -> None:
    """Where an original is held, it is the truth, and a copy is made anew; else what is in the work folder is it."""
    if (hold := hold_of(arrival, delivery)) is not None:
        findings.to_copy.append((hold, arrival))
    elif is_there(work := delivery.output.work_path(arrival)):
        original = os.path.join(delivery.inbox, arrival.file.path)
        if not (delivery.custody.copies and is_same_content(work, original)):
            findings.again.append(arrival)
        elif delivery.custody.keeps or _taken_again(arrival, delivery):
            # With `keeps`, so that the original is remembered; else a power cut has undone its claim and not the copy,
            # and both would be filed. Its dropper may have replaced it just before the claim: its time decides nothing.
            findings.to_copy.append((None, arrival))
        else:
            findings.again.append(arrival)
    elif not os.path.isdir(delivery.inbox):
        findings.strange.append(arrival)  # it may be held there
    elif not _claim_again(arrival, delivery):
        require_gone(arrival, delivery)
        findings.vanished.append(arrival)
    elif delivery.custody.copies:
        findings.to_copy.append((None, arrival))
    else:
        findings.again.append(arrival)


def _with_companions(
    arrivals: list[Arrival], deliveries: Mapping[str, Delivery], ledger: Ledger, patience: Patience
) -> list[Arrival]:
    """Find what travels with files that are in our hands, by the rules for those; what was never taken stays."""
    findings = Findings()
    for arrival in arrivals:
        delivery = deliveries[arrival.file.inbox]
        for companion in arrival.companions:
            if companion.copied:
                copied = Fingerprint(None, companion.file.size, companion.file.mtime_ns)
                _look_for_copied(companion, copied, delivery, findings)
            else:
                _look_for_claimed(companion, delivery, findings)
    for companion in findings.lost:
        log.critical("sidecar_lost", inbox=companion.file.inbox, path=to_text(companion.file.path))
    _copy_again(findings, deliveries, ledger, patience)
    return accompanied(arrivals, findings.again)


def _copy_again(
    findings: Findings, deliveries: Mapping[str, Delivery], ledger: Ledger, patience: Patience
) -> list[Refusal]:
    """Copy from the originals, a batch folder at a time as every day; copies that a crash has left are replaced.

    Returns:
        What was left to its owners.
    """
    refused: list[Refusal] = []
    batches: dict[tuple[str, str, str | None], tuple[HoldFolder | None, list[Arrival]]] = {}
    for hold, arrival in findings.to_copy:
        key = (arrival.file.inbox, arrival.token, None if hold is None else hold.root)
        batches.setdefault(key, (hold, []))[1].append(arrival)
    for (inbox, token, _root), (hold, arrivals) in batches.items():
        delivery = deliveries[inbox]
        os.makedirs(delivery.output.batch_folder(token), mode=0o700, exist_ok=True)
        with contextlib.ExitStack() as stack:
            custody = delivery.custody
            if hold is not None:
                custody = Copying(Held(delivery.inbox, hold), delivery.output, ledger)
                stack.callback(custody.close)
            ingested = custody.ingest(arrivals, patience)
            custody.end(token)
        findings.again.extend(ingested.taken)
        refused.extend(ingested.refused)
    return refused


def _claim_again(arrival: Arrival, delivery: Delivery) -> bool:
    """Do the claim that was recorded but never happened, if the file is still the one that was recorded.

    Not where files are only looked at by now: it has not left its inbox, and is a new arrival there.
    """
    return not delivery.custody.rows_only and is_in_inbox(arrival, delivery) and _taken_again(arrival, delivery)


def _taken_again(arrival: Arrival, delivery: Delivery) -> bool:
    """Take what is in the inbox, whether or not an earlier process made what that needs."""
    try:
        os.makedirs(delivery.output.batch_folder(arrival.token), mode=0o700, exist_ok=True)
        delivery.custody.begin(arrival.token)
        delivery.custody.take(arrival)
    except OSError:
        # Gone, or out of reach: a file that was not taken comes again as a new arrival. The disk has the last word.
        return delivery.custody.has(arrival)
    return True
