"""The values that flow through the daemon: one picture file, and what became of it.

Every stage wraps what it was given in a new frozen value and never changes it. The words of the enums are the
words in the database, the metrics, the folders and the log.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterable
    from datetime import datetime

    import numpy as np
    import numpy.typing as npt

    from pigeonholed.imaging import PixelSpec

    Pixels = npt.NDArray[np.uint8]
    """uint8, RGB, shape (height, width, 3)."""


class Reason(StrEnum):
    """Why a picture was refused."""

    UNREADABLE = "unreadable"  # a known format whose content cannot be decoded
    TRUNCATED = "truncated"  # its end is missing
    UNSUPPORTED = "unsupported"  # the content is of no format that we decode
    TOO_LARGE = "too-large"  # over max_pixels or max_bytes
    EMPTY = "empty"  # no bytes
    IO_ERROR = "io-error"  # reading failed again and again
    MODEL_ERROR = "model-error"  # the model gave no finite answer for it alone
    POISON = "poison"  # a child that decoded this file alone died or hung three times


class Status(StrEnum):
    """How far an arrival has come; the last four are final."""

    CLAIMED = "claimed"  # recorded, and about to be or already in the work folder
    INGESTED = "ingested"  # a durable copy is in the work folder (copying variant)
    PLANNED = "planned"  # its destination is recorded, the move may or may not have happened
    FILED = "filed"  # it is at its destination, durably
    RETURNED = "returned"  # it was filed and has been put back into its inbox
    VANISHED = "vanished"  # its owner took it away before it could be claimed
    LOST = "lost"  # must never happen


IN_FLIGHT = (Status.CLAIMED, Status.INGESTED, Status.PLANNED)
"""How far arrivals have come that the next process takes up, where one ends."""


class Placement(StrEnum):
    """Which part of the output a file belongs to."""

    SORTED = "sorted"
    UNSURE = "unsure"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"


STAYS = "stays"
"""The token of arrivals whose files stay in their inboxes: no folder holds them."""

_LAST_NS = (1 << 63) - 1  # in the year 2262; file systems go on for centuries


def mtime_ns_of(status: os.stat_result) -> int:
    """When a file was changed, in ns since the epoch, or the last moment that a database can hold before or after."""
    return max(-_LAST_NS, min(status.st_mtime_ns, _LAST_NS))


@dataclass(frozen=True, slots=True)
class ImageFile:
    """Which file, in which version: a complete regular file seen in an inbox.

    Attributes:
        inbox: name of the inbox.
        path: path relative to the inbox, as `os.fsdecode` gives it (bytes that are no UTF-8 as surrogates).
        size: bytes.
        mtime_ns: modification time, nanoseconds since the epoch.
        companions: files beside it that travel with it.
    """

    inbox: str
    path: str
    size: int
    mtime_ns: int
    companions: tuple[ImageFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Arrival:
    """A claimed file: it has a row, and its bytes wait in the work folder, or stay where they are.

    Attributes:
        id: primary key of its row.
        file: what was claimed.
        key: 32 hex digits that identify this arrival for ever; also its name in the work folder.
        token: name of the work folder that holds it; `STAYS` where none does.
        seen_s: monotonic time at which it was first seen complete.
        deaths: how many processes that decoded it alone have died of it, as far as earlier processes counted.
        companions: files that came with it, each with a key of its own and its id and token: they are taken, copied
            and given back as it is.
        part: which companion it is, from 1 on; 0 for a picture.
        copied: of a companion, whether a durable copy is recorded.
    """

    id: int
    file: ImageFile
    key: str
    token: str
    seen_s: float
    deaths: int = 0
    companions: tuple[Arrival, ...] = ()
    part: int = 0
    copied: bool = False

    @property
    def stays(self) -> bool:
        """Whether it is only looked at where it is, in its inbox."""
        return self.token == STAYS

    def with_companions(self, files: Iterable[tuple[int, ImageFile, bool]]) -> Arrival:
        """The same with companions: which part each is, its file, and whether a durable copy of it is recorded."""
        parts = tuple(
            Arrival(self.id, file, f"{self.key}.{part}", self.token, self.seen_s, part=part, copied=copied)
            for part, file, copied in files
        )
        return replace(self, companions=parts)


def accompanied(arrivals: Iterable[Arrival], taken: Iterable[Arrival]) -> list[Arrival]:
    """Arrivals with those of their companions that were taken."""
    here = {(companion.id, companion.part) for companion in taken}
    return [
        replace(arrival, companions=tuple(part for part in arrival.companions if (part.id, part.part) in here))
        for arrival in arrivals
    ]


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """What was read: the hash covers the very bytes that were decoded.

    Attributes:
        sha256: lower-case hex, None only where reading failed.
        size: bytes read.
        mtime_ns: modification time when they were read.
        names: how many names the file had (hard links); through another one it can still be changed.
        ctime_ns: change time then; told only of a file that stays in its inbox, as is the next.
        inode: of the file then.
    """

    sha256: str | None
    size: int
    mtime_ns: int
    names: int = 1
    ctime_ns: int = 0
    inode: int = 0


@dataclass(frozen=True, slots=True)
class Decoded:
    """A picture ready for a model since `ready_s` (monotonic); `pixels` are what `spec` asks for."""

    arrival: Arrival
    fingerprint: Fingerprint
    pixels: Pixels
    width: int
    height: int
    taken_at: datetime | None = None
    spec: PixelSpec | None = None
    ready_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a model says of one picture: `ranked` holds (label, calibrated probability), best first."""

    model: str
    version: int
    ranked: tuple[tuple[str, float], ...]

    @property
    def label(self) -> str:
        """The most probable label."""
        return self.ranked[0][0]

    @property
    def confidence(self) -> float:
        """The calibrated probability of `label`."""
        return self.ranked[0][1]


@dataclass(frozen=True, slots=True)
class Classified:
    """A picture with its prediction."""

    arrival: Arrival
    fingerprint: Fingerprint
    width: int
    height: int
    prediction: Prediction
    threshold: float
    taken_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Rejected:
    """A file that gets no label, and why. Bad input is data, not an exception."""

    arrival: Arrival
    fingerprint: Fingerprint
    reason: Reason
    detail: str
    width: int | None = None
    height: int | None = None


@dataclass(frozen=True, slots=True)
class Original:
    """A picture that is filed, or will be by a plan: `destination` is relative to the output, as in the database.

    None where it stays in its inbox.
    """

    image_id: int
    destination: str | None

    def __str__(self) -> str:
        return f"image {self.image_id}" + ("" if self.destination is None else f", filed at {self.destination}")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A picture of the same bytes as one that is filed in its inbox; no model needs to see it."""

    arrival: Arrival
    fingerprint: Fingerprint
    width: int
    height: int
    original: Original


@dataclass(frozen=True, slots=True)
class Withdrawn:
    """A claimed file that gets no result: it still changed, or is gone from the work folder (which must not be).

    A file that is there goes back into its inbox and is a new arrival once it is complete.
    """

    arrival: Arrival
    status: Status
    detail: str


Outcome = Classified | Rejected | Duplicate
"""What became of a picture: a result."""

Handled = Classified | Rejected | Duplicate | Withdrawn
"""What comes out of an engine, exactly once for each arrival that went in."""
