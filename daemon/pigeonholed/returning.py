"""Putting filed files back where they came from: undo, and another try for what was rejected.

The intent is committed before a file moves, the result after the move is durable. A file that `undo` has put back is
held: the daemon passes over it until it changes or is released.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pigeonholed import beneath
from pigeonholed.finishing import explains
from pigeonholed.images import Placement
from pigeonholed.paths import to_text
from pigeonholed.placing import sidecar_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from pigeonholed.finishing import Delivery
    from pigeonholed.ledger import Filed, Hold, Ledger

log = structlog.get_logger()

_CHUNK_BYTES = 1 << 20
_BATCH = 64


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of putting files back: how many are back, and why each of the others is not."""

    back: int
    refused: tuple[str, ...]


class Holds:
    """Which files in the inboxes are passed over: path to (size, mtime_ns), by inbox.

    Written by whoever puts files back, read by the claiming thread; each operation on a dict is atomic.
    """

    def __init__(self, holds: Iterable[Hold] = ()) -> None:
        self._held: dict[tuple[str, str], tuple[int, int]] = {}
        for hold in holds:
            self.add(hold)

    def add(self, hold: Hold) -> None:
        """Pass over a file from now on."""
        self._held[hold.inbox, hold.path] = (hold.size, hold.mtime_ns)

    def remove(self, hold: Hold) -> None:
        """It is not passed over any longer."""
        self._held.pop((hold.inbox, hold.path), None)

    def clear(self) -> int:
        """Release all; how many there were."""
        count = len(self._held)
        self._held.clear()
        return count

    def covers(self, inbox: str, path: str, size: int, mtime_ns: int) -> bool:
        """Whether a file is passed over; one that has changed is not, and never again."""
        held = self._held.get((inbox, path))
        if held is None:
            return False
        if held == (size, mtime_ns):
            return True
        self._held.pop((inbox, path), None)
        return False


class Returner:
    """Puts files back. One thread at a time.

    Args:
        ledger: knows what is filed.
        deliveries: by inbox.
        holds: told of what is put back to stay.
    """

    def __init__(self, ledger: Ledger, deliveries: Mapping[str, Delivery], holds: Holds) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._holds = holds

    def put_back(self, files: Sequence[Filed], *, hold: bool) -> Returned:
        """Put files back, checked by their hashes, never overwriting; `hold` makes the daemon pass over them."""
        back = 0
        refused: list[str] = []
        for start in range(0, len(files), _BATCH):
            possible: list[Filed] = []
            for file in files[start : start + _BATCH]:
                if (why := self._fault(file)) is None:
                    possible.append(file)
                else:
                    refused.append(f"{to_text(file.destination)}: {why}")
            done, taken = self._batch(possible, hold=hold)
            back += len(done)
            refused += [
                f"{to_text(file.destination)}: its old place {to_text(file.hold.path)} is taken" for file in taken
            ]
        log.info("files_returned", files=back, refused=len(refused), held=hold)
        return Returned(back, tuple(refused))

    def resume(self) -> None:
        """Finish what an earlier process began: a file that is back is returned, one that never left stays filed."""
        begun = self._ledger.returning()
        gone = [file for file in begun if not self._is_filed(file)]
        stayed = [file for file in begun if self._is_filed(file)]
        for file in stayed:
            self._holds.remove(file.hold)
        self._ledger.cancel_return(stayed)
        self._ledger.end_return(gone)

    def _batch(self, files: Sequence[Filed], *, hold: bool) -> tuple[list[Filed], list[Filed]]:
        self._ledger.begin_return(files, hold=hold)
        done: list[Filed] = []
        taken: list[Filed] = []
        for file in files:
            if hold:
                self._holds.add(file.hold)
            if self._move(file):
                done.append(file)
            else:
                self._holds.remove(file.hold)
                taken.append(file)
        self._sync(done)
        self._ledger.end_return(done)
        self._ledger.cancel_return(taken)
        return done, taken

    def _fault(self, file: Filed) -> str | None:
        """Why a file cannot be put back; None when it can."""
        delivery = self._deliveries.get(file.hold.inbox)
        if delivery is None:
            return f"its inbox {file.hold.inbox} is not in the configuration"
        if not os.path.isdir(delivery.inbox):
            return f"its inbox {delivery.inbox} is missing"
        path = os.path.join(delivery.output.root, file.destination)
        try:
            if file.sha256 is not None and _hash(path) != file.sha256:
                return "its content has changed since it was filed"
        except FileNotFoundError:
            return "it is not where it was filed"
        except OSError as error:
            return f"it cannot be read: {error.strerror}"
        return None

    def _move(self, file: Filed) -> bool:
        delivery = self._deliveries[file.hold.inbox]
        source = os.path.join(delivery.output.root, file.destination)
        folder, _, name = file.hold.path.rpartition("/")
        try:
            with (
                beneath.folder(delivery.output.root, os.path.dirname(file.destination)) as filed,
                beneath.folder(delivery.inbox, folder, make=True) as back,
            ):
                delivery.output.disk.rename_new(
                    os.path.join(beneath.path_of(filed), os.path.basename(source)),
                    os.path.join(beneath.path_of(back), name),
                )
        except (FileExistsError, NotADirectoryError):
            return False
        if file.placement is Placement.REJECTED and explains(sidecar_of(source), file.arrival):
            with contextlib.suppress(FileNotFoundError):
                os.unlink(sidecar_of(source))
        return True

    def _sync(self, files: Sequence[Filed]) -> None:
        folders: dict[str, set[str]] = {}
        for file in files:
            delivery = self._deliveries[file.hold.inbox]
            target = os.path.join(delivery.inbox, file.hold.path)
            source = os.path.join(delivery.output.root, file.destination)
            folders.setdefault(file.hold.inbox, set()).update((os.path.dirname(target), os.path.dirname(source)))
        for inbox, changed in folders.items():
            self._deliveries[inbox].output.disk.sync([], changed)

    def _is_filed(self, file: Filed) -> bool:
        delivery = self._deliveries.get(file.hold.inbox)
        return delivery is None or os.path.lexists(os.path.join(delivery.output.root, file.destination))


def _hash(path: str) -> str:
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        digest = hashlib.sha256()
        while part := file.read(_CHUNK_BYTES):
            digest.update(part)
    return digest.hexdigest()
