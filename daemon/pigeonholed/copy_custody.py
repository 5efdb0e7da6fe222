"""Custody by copying: for inboxes that a rename does not lead out of, or that are not trusted, or keep their files."""

from __future__ import annotations

import contextlib
import errno
import os
from functools import partial
from typing import TYPE_CHECKING

import structlog

from pigeonholed.copying import Copier, Unfit
from pigeonholed.custody import Ingested, Refusal
from pigeonholed.disk import WAITED_FOR, Disk, is_there
from pigeonholed.entries import Copy
from pigeonholed.hold_folder import PART
from pigeonholed.paths import to_text
from pigeonholed.settling import signature_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.images import Arrival, ImageFile
    from pigeonholed.ledger import Ledger
    from pigeonholed.originals import Originals
    from pigeonholed.output import Output
    from pigeonholed.patience import Patience

log = structlog.get_logger()

_ATTEMPTS = 3


class Copying:
    """Files are copied into the work folder.

    Each sync and each commit serves a batch: contents of the copies, then their names and the claims of the originals,
    then the commit of *ingested* rows; only then the originals go. A copy that has its name is therefore complete, and
    until the commit the original is the truth.

    Args:
        originals: where they wait.
        output: where the copies go.
        ledger: records them.

    Owned by one thread.
    """

    copies = True
    rows_only = False

    def __init__(self, originals: Originals, output: Output, ledger: Ledger) -> None:
        self._originals = originals
        self._output = output
        self._ledger = ledger
        self._copier = Copier()
        self._disk = Disk(output.private)
        self._resisting: list[Arrival] = []

    @property
    def keeps(self) -> bool:
        """Whether originals stay in the inbox."""
        return self._originals.stay

    def knows(self, path: str) -> bool:
        """Whether the originals know that it was copied."""
        return self._originals.knows(path)

    def fresh(self, files: Sequence[ImageFile]) -> Sequence[ImageFile]:
        """Those that the originals say were not copied yet."""
        return self._originals.fresh(files)

    def begin(self, token: str) -> None:
        """Make a place for the originals."""
        self._originals.begin(token)

    def take(self, arrival: Arrival) -> None:
        """Put the original where nobody else can reach it."""
        self._originals.take(arrival)

    def has(self, arrival: Arrival) -> bool:
        """Whether the original is there."""
        return self._originals.has(arrival)

    def ingest(self, arrivals: Sequence[Arrival], patience: Patience) -> Ingested:
        """Copy all, make the copies durable, record them, and let the originals go."""
        done: dict[str, Copy] = {}
        refused: dict[str, Refusal] = {}
        copy_all = partial(self._copy_all, arrivals, done, refused)
        patience.retry("claim", "copy files of an inbox", copy_all)
        copies = list(done.values())
        taken = [copy.arrival for copy in copies]
        if taken:
            patience.retry("claim", "make copies durable", partial(self._finish, taken))
        self._ledger.ingest(copies)
        for arrival in taken:
            self._let_go(arrival, patience)
        for refusal in refused.values():
            give_back = partial(self._originals.give_back, refusal.arrival, self._disk)
            patience.retry("claim", "give a file back to its inbox", give_back, also=frozenset({errno.EIO}))
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._output.work_path(refusal.arrival))  # a copy that a crash left before it was recorded
        return Ingested(taken, list(refused.values()))

    def end(self, token: str) -> None:
        """Remove the place of the originals."""
        self._originals.end(token)

    def tidy(self) -> None:
        """Remove originals that resisted; each is only in the way, and the next start tries again, too."""
        if not self._resisting:
            return
        resisted, self._resisting = self._resisting, []
        for arrival in resisted:
            try:
                self._originals.let_go(arrival)
            except OSError:
                self._resisting.append(arrival)
            self._originals.end(arrival.token)

    def release(self, arrivals: Sequence[Arrival]) -> None:
        """Nothing is kept of them."""

    def put_back(self, source: str, target: str) -> None:
        """Move, or copy where a move cannot lead. Any thread: nothing is shared with the one that ingests."""
        self._originals.put_back(source, target, self._output.disk, Copier())

    def forget(self) -> None:
        """Ask the ledger anew."""
        self._originals.forget()

    def close(self) -> None:
        """Leave nothing in the inbox."""
        self.tidy()
        self._originals.close()
        self._disk.close()

    def _copy_all(self, arrivals: Sequence[Arrival], done: dict[str, Copy], refused: dict[str, Refusal]) -> None:
        """Copy what is not done yet, and make the contents durable; safe to repeat."""
        for arrival in arrivals:
            if arrival.key in done or arrival.key in refused:
                continue
            result = self._copied(arrival)
            if isinstance(result, Copy):
                done[arrival.key] = result
            else:
                refused[arrival.key] = result
        try:
            self._disk.sync([_part_of(self._output, copy.arrival) for copy in done.values()], [])
            self._output.require()  # while it was away, the names of the copies led nowhere
        except OSError:
            done.clear()  # what a failed sync has left of a copy nobody knows: it is made anew
            raise

    def _copied(self, arrival: Arrival) -> Copy | Refusal:
        """Copy one file, or say why its owner keeps it.

        Raises:
            OSError: the machine is at fault.
        """
        attempt = 1
        while True:
            try:
                return self._copy(arrival)
            except Unfit as unfit:
                return Refusal(arrival, str(unfit))
            except OSError as error:
                if error.errno in WAITED_FOR:
                    raise
                self._output.require()
                if attempt == _ATTEMPTS:
                    return Refusal(arrival, f"it could not be copied: {error.strerror}", error)
                attempt += 1

    def _copy(self, arrival: Arrival) -> Copy:
        target = _part_of(self._output, arrival)
        source = self._originals.open(arrival)
        try:
            original = signature_of(os.fstat(source)) if self.keeps else None
            try:
                return Copy(arrival, self._copier.copy(source, target), original)
            except FileExistsError:  # of an attempt that was broken off
                os.unlink(target)
                return Copy(arrival, self._copier.copy(source, target), original)
        finally:
            os.close(source)

    def _finish(self, arrivals: Sequence[Arrival]) -> None:
        """Give complete copies their names, and make those and the claims durable; safe to repeat."""
        for arrival in arrivals:
            target = self._output.work_path(arrival)
            try:
                os.rename(_part_of(self._output, arrival), target)
            except FileNotFoundError:
                if not is_there(target):
                    self._output.require()
                    raise
        folders = {self._output.batch_folder(arrival.token) for arrival in arrivals}
        self._disk.sync([], [*folders, self._output.private])
        self._output.require()
        self._originals.sync(arrivals)

    def _let_go(self, arrival: Arrival, patience: Patience) -> None:
        """Remove an original; one that resists is only in the way: `tidy` tries again."""
        try:
            patience.retry("claim", "remove an original", partial(self._originals.let_go, arrival))
        except OSError as error:
            self._resisting.append(arrival)
            log.warning("original_left", path=to_text(arrival.file.path), error=error.strerror)


def _part_of(output: Output, arrival: Arrival) -> str:
    return output.work_path(arrival) + PART
