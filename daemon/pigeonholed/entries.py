"""What the ledger is told, and what it tells: frozen values, none of which knows a table."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

    from pigeonholed.images import Arrival, Fingerprint, Placement, Prediction, Reason
    from pigeonholed.settling import Signature


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to become of an arrival: committed before its file moves.

    Attributes:
        arrival: whose plan it is.
        fingerprint: what was read.
        placement: which part of the output.
        destination: path relative to the output, as `os.fsdecode` gives it; empty for an arrival that stays.
        prediction: None for what gets no label.
        reason: set for what is rejected.
        detail: one sentence beside the reason.
        width: pixels, where known.
        height: pixels, where known.
        stands: what comes later with the same bytes is its duplicate.
        beside: where the companions of the arrival go, in their order.
    """

    arrival: Arrival
    fingerprint: Fingerprint
    placement: Placement
    destination: str
    prediction: Prediction | None = None
    reason: Reason | None = None
    detail: str | None = None
    width: int | None = None
    height: int | None = None
    stands: bool = False
    beside: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Copy:
    """A durable copy in the work folder: what was read of the original, and is in the copy.

    `original` is set where that stays in its inbox, and must be known again.
    """

    arrival: Arrival
    fingerprint: Fingerprint
    original: Signature | None = None


@dataclass(frozen=True, slots=True)
class Copied:
    """A file that was copied (or looked at) and stayed in its inbox, in that version.

    `sha256` is empty where it could not be read.
    """

    original: Signature
    sha256: str
    image_id: int


@dataclass(frozen=True, slots=True)
class InFlight:
    """A row that an earlier process left unfinished; `plan` is set once one was committed, `copied` by `ingest`."""

    arrival: Arrival
    attempts: int
    plan: Plan | None
    copied: Fingerprint | None = None


@dataclass(frozen=True, slots=True)
class Hold:
    """A file in an inbox that is passed over while it is unchanged; `path` as `os.fsdecode` gives it."""

    inbox: str
    path: str
    size: int
    mtime_ns: int


@dataclass(frozen=True, slots=True)
class Companion:
    """A file that was filed with a picture: where it came from, and where it is now."""

    path: str
    destination: str


@dataclass(frozen=True, slots=True)
class Filed:
    """A result, as far as putting its file back asks for it; `hold` says where it came from.

    `destination` is empty where the file has stayed there.
    """

    id: int
    hold: Hold
    destination: str
    placement: Placement
    sha256: str | None
    arrival: str
    reason: str | None
    detail: str | None
    filed_at: datetime | None = None
    companions: tuple[Companion, ...] = ()

    @property
    def stays(self) -> bool:
        """Whether the row is all that there is of it, beside the file in its inbox."""
        return not self.destination
