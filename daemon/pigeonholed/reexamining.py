"""Another look at a picture that is filed: its very bytes read again, and what follows from what a model says now."""

from __future__ import annotations

import os
from dataclasses import replace
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from pigeonholed import beneath
from pigeonholed.decoding import decode_here, examine
from pigeonholed.images import Decoded, Placement, Rejected, Status, mtime_ns_of
from pigeonholed.paths import to_text
from pigeonholed.placing import alternatives, placement_of
from pigeonholed.refilings import Refiling, Result

if TYPE_CHECKING:
    from collections.abc import Callable

    from pigeonholed.decoding import Demand
    from pigeonholed.delivery import Delivery
    from pigeonholed.images import Classified, Fingerprint, Withdrawn
    from pigeonholed.imaging import Picture
    from pigeonholed.refilings import Candidate

GONE = "it is not where it was filed"
CHANGED = "its content has changed since it was filed"
_BEYOND = 2.0  # a threshold that no confidence comes up to


class Outcome(StrEnum):
    """What another look at a filed picture led to; the words are those of the metric and of the command."""

    MOVED = "moved"  # it belongs elsewhere now, and is there
    RENEWED = "renewed"  # it has another label, and its place is the same
    UNCHANGED = "unchanged"  # label and place are the same
    LEFT = "left"  # nothing of it was touched, for a reason


class _Changed(Exception):
    """These are not the bytes that were filed."""


def read_again(candidate: Candidate, delivery: Delivery, demand: Demand) -> Decoded | str:
    """Read the very bytes that were filed and decode them, as for the service; why that cannot be, where it cannot.

    No link below the root is followed, and nothing is made of bytes that are not those of the row.
    """
    root, path = _place_of(candidate, delivery)
    expected = candidate.fingerprint.sha256

    def decode(data: bytes, fingerprint: Fingerprint, demand: Demand) -> Picture:
        if fingerprint.sha256 != expected:
            raise _Changed
        return decode_here(data, fingerprint, demand)

    try:
        with beneath.folder(root, os.path.dirname(path)) as folder:
            full_path = os.path.join(beneath.path_of(folder), os.path.basename(path))
            result = examine(candidate.arrival, full_path, demand, decode)
    except (_Changed, OSError) as error:
        return _why(error)
    return result if isinstance(result, Decoded) else _why_not(result, expected)


def is_as_it_was(candidate: Candidate, delivery: Delivery, read: Fingerprint) -> bool:
    """A last look before the plan: what was hashed and decoded must still be what is there."""
    root, path = _place_of(candidate, delivery)
    try:
        with beneath.folder(root, os.path.dirname(path)) as folder:
            status = os.lstat(os.path.basename(path), dir_fd=folder)
    except OSError:
        return False
    return (status.st_size, mtime_ns_of(status)) == (read.size, read.mtime_ns)


def refiling_of(
    candidate: Candidate, outcome: Classified, delivery: Delivery, place: Callable[[Candidate, str], str]
) -> Refiling:
    """The new result. Where the template gives the same place as before, the file stays, whatever its name is.

    Args:
        candidate: what is filed.
        outcome: what the model says now.
        delivery: of its inbox.
        place: finds a free name near a wanted one.
    """
    # The time that was recorded: somebody may have touched the file since, and that moves nothing.
    outcome = replace(outcome, fingerprint=candidate.fingerprint)
    old, placement = candidate.result, placement_of(outcome)
    if old.destination is None:
        return Refiling(candidate, Result(placement, outcome.prediction, None), None)
    threshold = 0.0 if old.placement is Placement.SORTED else _BEYOND
    before = delivery.placer.destination(replace(outcome, prediction=old.prediction, threshold=threshold))
    wanted = delivery.placer.destination(outcome)
    numbered = alternatives(wanted, candidate.arrival.key, lambda _path: False)
    stays = wanted == before or old.destination in numbered
    destination = old.destination if stays else place(candidate, wanted)
    return Refiling(candidate, Result(placement, outcome.prediction, destination), wanted)


def outcome_of(refiling: Refiling) -> Outcome:
    """What a new result is beside the old one."""
    if refiling.moves:
        return Outcome.MOVED
    old, new = refiling.candidate.result, refiling.result
    same = (old.placement, old.prediction.label) == (new.placement, new.prediction.label)
    return Outcome.UNCHANGED if same else Outcome.RENEWED


def told(candidate: Candidate, refiling: Refiling | None, why: str | None = None) -> dict[str, Any]:
    """What is told of one file; without a refiling it was left, and `why` says why."""
    old, new = candidate.result, None if refiling is None else refiling.result
    return {
        "image": candidate.arrival.id,
        "inbox": candidate.arrival.file.inbox,
        "path": to_text(candidate.arrival.file.path),
        "result": (Outcome.LEFT if refiling is None else outcome_of(refiling)).value,
        "reason": why,
        "label_before": old.prediction.label,
        "label": None if new is None else new.prediction.label,
        "outcome_before": old.placement.value,
        "outcome": None if new is None else new.placement.value,
        "confidence_before": old.prediction.confidence,
        "confidence": None if new is None else new.prediction.confidence,
        "destination_before": None if old.destination is None else to_text(old.destination),
        "destination": None if new is None or new.destination is None else to_text(new.destination),
    }


def _place_of(candidate: Candidate, delivery: Delivery) -> tuple[str, str]:
    """A root and the way from there to the file: what has no destination has stayed in its inbox."""
    if candidate.result.destination is None:
        return delivery.inbox, candidate.arrival.file.path
    return delivery.output.root, candidate.result.destination


def _why(error: Exception) -> str:
    match error:
        case _Changed():
            return CHANGED
        case NotADirectoryError():
            return "a link or a file is on the way to where it was filed"
        case FileNotFoundError():
            return GONE
        case _:
            return f"it cannot be read: {getattr(error, 'strerror', None) or error}"


def _why_not(result: Rejected | Withdrawn, expected: str | None) -> str:
    if isinstance(result, Rejected):
        changed = result.fingerprint.sha256 not in (None, expected)
        return CHANGED if changed else f"it cannot be looked at ({result.reason}): {result.detail}"
    return GONE if result.status is Status.LOST else result.detail
