"""Pictures that stay where they are: `action = "none"` reads them in their inbox, and changes nothing on any disk.

What they were is in their rows, and in the ledger's memory of the files that it knows.
"""

from __future__ import annotations

import errno
import os
from dataclasses import replace
from typing import TYPE_CHECKING

from pigeonholed.beneath import folder, open_beneath
from pigeonholed.copying import Copier
from pigeonholed.custody import Ingested
from pigeonholed.disk import WAITED_FOR
from pigeonholed.images import Status, Withdrawn
from pigeonholed.settling import signature_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.images import Arrival, ImageFile, Outcome
    from pigeonholed.originals import InPlace
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience


class Staying:
    """Nothing is taken. A file that is being looked at, or was and has not changed since, does not arrive again.

    Args:
        originals: the files of the inbox, and which of them are known.
        output: where the inbox's files went while it had another action; they go back from there.

    Used by the claiming thread; `release`, `put_back` and `forget` by any.
    """

    copies = False
    keeps = True
    rows_only = True

    def __init__(self, originals: InPlace, output: Output) -> None:
        self._originals = originals
        self._output = output
        self._in_flight: set[str] = set()

    def knows(self, path: str) -> bool:
        """Whether it is being looked at, or is known to have been."""
        return path in self._in_flight or self._originals.knows(path)

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that are neither being looked at nor known."""
        return self._originals.fresh([file for file in files if file.path not in self._in_flight])

    def begin(self, token: str) -> None:
        """Nothing is needed."""

    def take(self, arrival: Arrival) -> None:
        """It stays, and does not arrive again until it is released."""
        self._in_flight.add(arrival.file.path)

    def has(self, arrival: Arrival) -> bool:
        """Whether it is still there."""
        return self._originals.has(arrival)

    def ingest(self, arrivals: Sequence[Arrival], patience: Patience) -> Ingested:  # noqa: ARG002
        """They are read where they are."""
        return Ingested(list(arrivals))

    def end(self, token: str) -> None:
        """Nothing was made."""

    def tidy(self) -> None:
        """Nothing is left."""

    def release(self, arrivals: Sequence[Arrival]) -> None:
        """They have ended; the ledger says how."""
        self._in_flight.difference_update([arrival.file.path for arrival in arrivals])

    def put_back(self, source: str, target: str) -> None:
        """Move a file back that was filed while the inbox had another action."""
        self._originals.put_back(source, target, self._output.disk, Copier())

    def forget(self) -> None:
        """Ask the ledger anew."""
        self._originals.forget()

    def close(self) -> None:
        """Nothing was made."""


def open_in_place(root: str, path: str) -> int:
    """Open a file of the inbox `root` for reading; no link is followed below it.

    Raises:
        OSError: as `open(2)`; ELOOP also for a link, or a file, in the place of a folder.
    """
    try:
        return open_beneath(root, path)
    except NotADirectoryError as error:
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), path) from error


def look_again(outcome: Outcome, root: str) -> Outcome | Withdrawn:
    """The last look before a row says what a file of the inbox `root` is: it must be the one that was read, unchanged.

    Its change time counts, too, which nobody can set: contents may change between two reads of one file.

    Raises:
        OSError: the machine is at fault.
    """
    arrival, read = outcome.arrival, outcome.fingerprint
    above, _, name = arrival.file.path.rpartition("/")
    try:
        with folder(root, above) as fd:
            now = signature_of(os.lstat(name, dir_fd=fd))
    except OSError as error:
        if error.errno in WAITED_FOR:
            raise
        return Withdrawn(arrival, Status.VANISHED, f"it was out of reach before it was recorded: {error.strerror}")
    if read.sha256 is None and (now.size, now.mtime_ns) == (read.size, read.mtime_ns):  # it could not be read
        return replace(outcome, fingerprint=replace(read, ctime_ns=now.ctime_ns, inode=now.inode))
    if (now.size, now.mtime_ns, now.ctime_ns) != (read.size, read.mtime_ns, read.ctime_ns):
        return Withdrawn(arrival, Status.VANISHED, "it changed while it was looked at")
    return outcome
