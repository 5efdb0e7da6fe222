"""Pictures of the same bytes as one that is filed: for inboxes that set them aside.

`KnownContents` says what is filed. What it says when a plan is about to be committed is decisive; that a picture is
asked after before a model sees it only spares the model.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from pigeonholed.images import Classified, Duplicate, Rejected, Status, Withdrawn

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping, Sequence

    from pigeonholed.images import Decoded, Original, Outcome
    from pigeonholed.patience import Patience

Content = tuple[str, str | None]
"""An inbox and a hash: what must be the same."""


class Filed(Protocol):
    """Who knows what is filed: `KnownContents`."""

    def originals(self, inbox: str, hashes: Sequence[str]) -> dict[str, Original]:
        """Of these hashes, those that are filed in an inbox."""


def content_of(picture: Decoded | Outcome) -> Content:
    """What a picture must have in common with another to be its duplicate."""
    return picture.arrival.file.inbox, picture.fingerprint.sha256


class Originals:
    """Looks up what is filed, at the cost of one query an inbox; none where no inbox asks for it.

    Args:
        inboxes: those that set duplicates aside.
        contents: what is filed.
        patience: waits for a database that is away.
        stage: who waits.
    """

    def __init__(self, inboxes: Collection[str], contents: Filed, patience: Patience, stage: str) -> None:
        self._inboxes = frozenset(inboxes)
        self._contents = contents
        self._patience = patience
        self._stage = stage

    def __bool__(self) -> bool:
        """Whether any inbox asks."""
        return bool(self._inboxes)

    def of(self, pictures: Iterable[Decoded | Outcome]) -> dict[Content, Original]:
        """What is filed of these contents; rejected files are no duplicates, and not asked after."""
        if not self._inboxes:
            return {}
        hashes: dict[str, set[str]] = {}
        for picture in pictures:
            inbox, sha256 = content_of(picture)
            if inbox in self._inboxes and sha256 is not None and not isinstance(picture, Rejected):
                hashes.setdefault(inbox, set()).add(sha256)
        found: dict[Content, Original] = {}
        for inbox, wanted in hashes.items():
            look = partial(self._contents.originals, inbox, sorted(wanted))
            known = self._patience.retry(self._stage, "look up what is filed", look)
            found |= {(inbox, sha256): original for sha256, original in known.items()}
        return found

    def told_apart(self, pictures: Sequence[Decoded]) -> tuple[list[Decoded], list[Duplicate]]:
        """Those that a model has to see, and those that are known."""
        known = self.of(pictures)
        if not known:
            return list(pictures), []
        fresh = [picture for picture in pictures if content_of(picture) not in known]
        again = [picture for picture in pictures if content_of(picture) in known]
        return fresh, [as_duplicate(picture, known[content_of(picture)]) for picture in again]


def as_duplicate(picture: Decoded | Classified | Duplicate, original: Original) -> Duplicate:
    """What a picture is when another of its bytes is filed."""
    return Duplicate(picture.arrival, picture.fingerprint, picture.width, picture.height, original)


def compared(outcome: Outcome, known: Mapping[Content, Original]) -> Outcome | Withdrawn:
    """What an outcome is, in view of what is filed now."""
    original = known.get(content_of(outcome))
    if isinstance(outcome, Rejected):
        return outcome
    if original is not None:
        return as_duplicate(outcome, original)
    if isinstance(outcome, Duplicate):  # and no model has seen it
        return Withdrawn(outcome.arrival, Status.VANISHED, "the file of the same bytes was put back meanwhile")
    return outcome
