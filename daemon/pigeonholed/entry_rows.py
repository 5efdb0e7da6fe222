"""The rows of arrivals and results: made of what the ledger is told (`of_`), and read as what it tells (`to_`)."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from pigeonholed.entries import Companion, Copied, Filed, Hold, InFlight, Plan
from pigeonholed.images import Arrival, Fingerprint, ImageFile, Placement, Prediction, Reason, Status
from pigeonholed.paths import from_text, to_text
from pigeonholed.settling import Signature

if TYPE_CHECKING:
    from collections.abc import Sequence
    from datetime import datetime

    from pigeonholed.entries import Copy
    from pigeonholed.steps import HoldState

Row = dict[str, Any]
"""Columns by their names; `b_` before those of a statement that changes a row."""


def of_claim(arrival: Arrival, now: datetime) -> Row:
    """An arrival before its file is touched."""
    return {
        "id": arrival.id,
        "inbox": arrival.file.inbox,
        "source_path": to_text(arrival.file.path),
        "size_bytes": arrival.file.size,
        "mtime_ns": arrival.file.mtime_ns,
        "status": Status.CLAIMED.value,
        "arrived_at": now,
        "arrival": arrival.key,
        "token": arrival.token,
    }


def of_companion(companion: Arrival) -> Row:
    """What travels with an arrival, before it is touched."""
    return {
        "image_id": companion.id,
        "part": companion.part,
        "source_path": to_text(companion.file.path),
        "size_bytes": companion.file.size,
        "mtime_ns": companion.file.mtime_ns,
    }


def of_version(file: ImageFile) -> Row:
    """Which file, in which version."""
    return {
        "b_inbox": file.inbox,
        "b_source_path": to_text(file.path),
        "b_size_bytes": file.size,
        "b_mtime_ns": file.mtime_ns,
    }


def of_ingest(copy: Copy) -> Row:
    """A private copy that is durable, of a picture or of what travels with it."""
    return {
        "b_id": copy.arrival.id,
        "b_token": copy.arrival.token,
        "b_status": Status.INGESTED.value,
        "b_part": copy.arrival.part,
        "b_sha256": copy.fingerprint.sha256,
        "b_size_bytes": copy.fingerprint.size,
        "b_mtime_ns": copy.fingerprint.mtime_ns,
    }


def of_copied(inbox: str, path: str, copied: Copied) -> Row:
    """A file that stays in its inbox and is known."""
    return {
        "inbox": inbox,
        "source_path": to_text(path),
        "size_bytes": copied.original.size,
        "mtime_ns": copied.original.mtime_ns,
        "ctime_ns": copied.original.ctime_ns,
        "inode": copied.original.inode,
        "sha256": copied.sha256,
        "image_id": copied.image_id,
    }


def of_original(arrival: Arrival, read: Fingerprint, original: Signature) -> Row:
    """The same, of an arrival whose file stays after it was read."""
    return of_copied(arrival.file.inbox, arrival.file.path, Copied(original, read.sha256 or "", arrival.id))


def of_looked_at(plan: Plan) -> Row:
    """The same, of one that was only looked at, in the version that was read."""
    read = plan.fingerprint
    return of_original(plan.arrival, read, Signature(read.size, read.mtime_ns, read.ctime_ns, read.inode))


def of_plan(plan: Plan, now: datetime) -> Row:
    """What is to become of an arrival."""
    prediction = plan.prediction
    return {
        "b_id": plan.arrival.id,
        "b_token": plan.arrival.token,
        "b_status": Status.PLANNED.value,
        "b_sha256": plan.fingerprint.sha256,
        "b_size_bytes": plan.fingerprint.size,
        "b_mtime_ns": plan.fingerprint.mtime_ns,
        "b_width": plan.width,
        "b_height": plan.height,
        "b_outcome": plan.placement.value,
        "b_reason": None if plan.reason is None else plan.reason.value,
        "b_detail": plan.detail,
        "b_model": None if prediction is None else prediction.model,
        "b_model_version": None if prediction is None else prediction.version,
        "b_label": None if prediction is None else prediction.label,
        "b_confidence": None if prediction is None else prediction.confidence,
        "b_destination": to_text(plan.destination) or None,
        "b_classified_at": None if prediction is None else now,
    }


def of_content(plan: Plan) -> Row:
    """Whose duplicate is what comes later with the same bytes."""
    return {"inbox": plan.arrival.file.inbox, "sha256": plan.fingerprint.sha256, "image_id": plan.arrival.id}


def of_predictions(plan: Plan) -> list[Row]:
    """What a model said, the best label first; none where none was asked."""
    if plan.prediction is None:
        return []
    return [
        {"image_id": plan.arrival.id, "rank": rank, "label": label, "confidence": confidence}
        for rank, (label, confidence) in enumerate(plan.prediction.ranked, 1)
    ]


def of_places_beside(plan: Plan) -> list[Row]:
    """Where what travels with an arrival goes."""
    return [
        {"b_id": companion.id, "b_part": companion.part, "b_destination": to_text(place)}
        for companion, place in zip(plan.arrival.companions, plan.beside, strict=True)
    ]


def of_return(file: Filed, state: HoldState) -> Row:
    """A file that is about to be put back."""
    return {
        "image_id": file.id,
        "inbox": file.hold.inbox,
        "source_path": to_text(file.hold.path),
        "size_bytes": file.hold.size,
        "mtime_ns": file.hold.mtime_ns,
        "state": state.value,
    }


def to_copied(row: Any) -> Copied:
    """A file that stays in its inbox and is known."""
    original = Signature(row.size_bytes, row.mtime_ns, row.ctime_ns, row.inode)
    return Copied(original, row.sha256, row.image_id)


def to_hold(row: Any) -> Hold:
    """Where a file came from, in which version."""
    return Hold(row.inbox, from_text(row.source_path), row.size_bytes, row.mtime_ns)


def to_filed(row: Any, companions: Sequence[Any]) -> Filed:
    """A result, with the rows of what was filed with it."""
    return Filed(
        row.id,
        to_hold(row),
        from_text(row.destination or ""),
        Placement(row.outcome),
        row.sha256,
        row.arrival,
        row.reason,
        row.detail,
        row.filed_at,
        tuple(
            Companion(from_text(part.source_path), from_text(part.destination))
            for part in companions
            if part.destination is not None
        ),
    )


def to_arrival(row: Any, seen_s: float, companions: Sequence[Any]) -> Arrival:
    """An arrival, with the rows of what travels with it; first seen at `seen_s` (monotonic)."""
    file = ImageFile(row.inbox, from_text(row.source_path), row.size_bytes, row.mtime_ns)
    arrival = Arrival(row.id, file, row.arrival, row.token, seen_s, row.deaths)
    return arrival.with_companions(
        (
            part.part,
            ImageFile(row.inbox, from_text(part.source_path), part.size_bytes, part.mtime_ns),
            part.sha256 is not None,
        )
        for part in companions
    )


def to_in_flight(row: Any, seen_s: float, companions: Sequence[Any]) -> InFlight:
    """What was left unfinished, with the rows of what travels with it; first seen at `seen_s` (monotonic)."""
    if row.status == Status.PLANNED:  # what was not taken by then has never come along
        companions = [part for part in companions if part.destination is not None]
        arrival = to_arrival(row, seen_s, companions)
        beside = tuple(from_text(part.destination) for part in companions)
        return InFlight(arrival, row.attempts, replace(_plan_of(row, arrival), beside=beside))
    arrival = to_arrival(row, seen_s, companions)
    copied = Fingerprint(row.sha256, row.size_bytes, row.mtime_ns) if row.status == Status.INGESTED else None
    return InFlight(arrival, row.attempts, None, copied)


def _plan_of(row: Any, arrival: Arrival) -> Plan:
    """The plan as it was committed; of the prediction the best label, which is all that a move needs."""
    prediction = None
    if row.label is not None:
        prediction = Prediction(row.model, row.model_version, ((row.label, row.confidence),))
    return Plan(
        arrival,
        Fingerprint(row.sha256, row.size_bytes, row.mtime_ns),
        Placement(row.outcome),
        from_text(row.destination),
        prediction,
        None if row.reason is None else Reason(row.reason),
        row.detail,
        row.width,
        row.height,
    )
