"""How the files of an inbox come into our hands: renamed where that is possible and enough, else copied, or not at all.

Renaming is one step and moves no byte. It cannot lead to another mount, and it leaves a dropper who kept the file open
able to change it. A copy is a file that nobody else ever had; its original goes only after the copy is durable and
recorded.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from pigeonholed.disk import is_there

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.images import Arrival, ImageFile
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience


@dataclass(frozen=True, slots=True)
class Refusal:
    """A file that was left to its owner; `error` is set where another attempt would fail for the same cause."""

    arrival: Arrival
    why: str
    error: OSError | None = None


@dataclass(slots=True)
class Ingested:
    """What came of a batch: files that wait in the work folder, and those that were left to their owners."""

    taken: list[Arrival] = field(default_factory=list)
    refused: list[Refusal] = field(default_factory=list)


class Custody(Protocol):
    """Takes files over from an inbox, a batch at a time: `begin`, a row for each, `take` each, `ingest` all, `end`.

    Attributes:
        copies: what waits in the work folder is a copy that nobody else ever had.
        keeps: originals stay in the inbox.
        rows_only: nothing else becomes of them: files are read where they are.
    """

    @property
    def copies(self) -> bool:
        """See above."""

    @property
    def keeps(self) -> bool:
        """See above."""

    @property
    def rows_only(self) -> bool:
        """See above."""

    def knows(self, path: str) -> bool:
        """Whether a file is known to have been taken before, as far as that can be told in no time."""

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that have not been taken before.

        Raises:
            OSError: that cannot be told now.
        """

    def begin(self, token: str) -> None:
        """Make what a batch needs. Safe to repeat."""

    def take(self, arrival: Arrival) -> None:
        """Take a file out of its inbox.

        Raises:
            FileNotFoundError: it is gone; never that a mount is away.
            OSError: as `rename(2)`.
        """

    def has(self, arrival: Arrival) -> bool:
        """Whether `take` has happened.

        Raises:
            OSError: the disk does not say.
        """

    def ingest(self, arrivals: Sequence[Arrival], patience: Patience) -> Ingested:
        """Return when what was taken is in the work folder, and as safe as it will ever be."""

    def end(self, token: str) -> None:
        """A batch is over: leave nothing of what `begin` made."""

    def tidy(self) -> None:
        """Try again to remove what is not needed any more and resisted."""

    def release(self, arrivals: Sequence[Arrival]) -> None:
        """These have ended, and their rows say how. Any thread."""

    def put_back(self, source: str, target: str) -> None:
        """Move a file of the output to a place in the inbox, never over anything.

        Raises:
            FileExistsError: the place is taken; nothing has changed.
            OSError: as `rename(2)`.
        """

    def forget(self) -> None:
        """Files were put back, and the ledger has forgotten them. Any thread."""

    def close(self) -> None:
        """Leave nothing behind."""


class Renaming:
    """Files are renamed into the work folder: the claim is the whole of it."""

    copies = False
    keeps = False
    rows_only = False

    def __init__(self, inbox: str, output: Output) -> None:
        self._inbox = inbox
        self._output = output

    def knows(self, path: str) -> bool:  # noqa: ARG002
        """None: what was taken is not there any more."""
        return False

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """All."""
        return files

    def begin(self, token: str) -> None:
        """The batch folder is all that is needed."""

    def take(self, arrival: Arrival) -> None:
        """Rename."""
        self._output.take_in(os.path.join(self._inbox, arrival.file.path), arrival)

    def has(self, arrival: Arrival) -> bool:
        """Whether it is in the work folder."""
        return is_there(self._output.work_path(arrival))

    def ingest(self, arrivals: Sequence[Arrival], patience: Patience) -> Ingested:  # noqa: ARG002
        """They are there already; the finisher makes them durable together with their plans."""
        return Ingested(list(arrivals))

    def end(self, token: str) -> None:
        """The batch folder stays until its files are filed."""

    def tidy(self) -> None:
        """Nothing is left."""

    def release(self, arrivals: Sequence[Arrival]) -> None:
        """Nothing is kept of them."""

    def put_back(self, source: str, target: str) -> None:
        """Rename."""
        self._output.disk.rename_new(source, target)

    def forget(self) -> None:
        """Nothing was remembered."""

    def close(self) -> None:
        """Nothing was made."""
