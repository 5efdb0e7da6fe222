"""Putting filed files back where they came from: undo, and another try for what was rejected.

The intent is committed before a file moves, the result after the move is durable. A file that `undo` has put back is
held: the daemon passes over it until it changes or is released.
"""

from __future__ import annotations

import errno
import os
from collections import Counter
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog

from pigeonholed import beneath
from pigeonholed.contents import holds, is_same_content, sha256_of
from pigeonholed.copying import Unfit
from pigeonholed.disk import is_there
from pigeonholed.explanations import explains
from pigeonholed.images import Placement
from pigeonholed.paths import to_text
from pigeonholed.placing import alternatives, sidecar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.delivery import Delivery
    from pigeonholed.entries import Companion, Filed
    from pigeonholed.holding import Holds
    from pigeonholed.ledger import Ledger

log = structlog.get_logger()

_BATCH = 64


@dataclass(frozen=True, slots=True)
class Returned:
    """What came of putting files back: how many are back, and why each of the others is not."""

    back: int
    refused: tuple[str, ...]


class Returner:
    """Puts files back. One thread at a time.

    Args:
        ledger: knows what is filed.
        deliveries: by inbox.
        holds: told of what is put back to stay.

    Attributes:
        on_return: told of an inbox and how many files are back in it.
    """

    def __init__(self, ledger: Ledger, deliveries: Mapping[str, Delivery], holds: Holds) -> None:
        self._ledger = ledger
        self._deliveries = deliveries
        self._holds = holds
        self.on_return: Callable[[str, int], None] = lambda _inbox, _count: None

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
            done, stuck = self._batch(possible, hold=hold)
            back += len(done)
            refused += [f"{to_text(file.destination)}: {why}" for file, why in stuck]
        log.info("files_returned", files=back, refused=len(refused), held=hold)
        return Returned(back, tuple(refused))

    def resume(self) -> None:
        """Finish what an earlier process began: a file that is back is returned, one that never left stays filed."""
        begun = [file for file in self._ledger.returning() if self._may_be_judged(file)]
        for file in begun:
            self._finish(file)
        gone = [file for file in begun if self._has_left(file)]
        stayed = [file for file in begun if file not in gone]
        for file in stayed:
            self._holds.remove(file.hold)
        for file in gone:
            self._remove_explanation(file)
            if file.companions and file.hold.inbox in self._deliveries:
                self._move_companions(file)
        self._sync(gone)
        self._ledger.cancel_return(stayed)
        self._end(gone)

    def _finish(self, file: Filed) -> None:
        """A file that was copied back, or linked, is there twice until the one that was filed is removed."""
        delivery = self._deliveries.get(file.hold.inbox)
        if delivery is None or file.stays:
            return
        source = os.path.join(delivery.output.root, file.destination)
        target = os.path.join(delivery.inbox, file.hold.path)
        copied = delivery.custody.copies and not delivery.custody.keeps
        if _is_twice(source, target, copied=copied):
            delivery.output.disk.sync([target], [os.path.dirname(target)])
            os.unlink(source)
            self._remove_explanation(file)

    def _end(self, files: Sequence[Filed]) -> None:
        """Record what is back; an original that stayed in its inbox is no longer known to have been copied."""
        self._ledger.end_return(files)
        for inbox, count in Counter(file.hold.inbox for file in files).items():
            self.on_return(inbox, count)
            if inbox in self._deliveries:
                self._deliveries[inbox].custody.forget()

    def _batch(self, files: Sequence[Filed], *, hold: bool) -> tuple[list[Filed], list[tuple[Filed, str]]]:
        self._ledger.begin_return(files, hold=hold)
        # From before they leave until the rows say so, their names are nobody else's: two rows of one name would both
        # be taken for true after a kill.
        leaving = [
            (self._deliveries[file.hold.inbox].output.leaving, name)
            for file in files
            if not file.stays
            for name in (file.destination, *(companion.destination for companion in file.companions))
        ]
        for names, name in leaving:
            names.add(name)
        done: list[Filed] = []
        stuck: list[tuple[Filed, str]] = []
        for file in files:
            # Also where it is to be taken again: it may be in the inbox and still where it was filed, if it is copied.
            before = self._holds.add(file.hold)
            if (why := None if file.stays else self._move(file)) is None:
                done.append(file)
            else:
                self._holds.remove(file.hold)
                if before is not None:
                    self._holds.add(before)
                stuck.append((file, why))
        self._sync(done)
        self._end(done)
        for file in done if not hold else ():
            self._holds.remove(file.hold)
        self._ledger.cancel_return([file for file, _why in stuck])
        for names, name in leaving:
            names.discard(name)
        return done, stuck

    def _fault(self, file: Filed) -> str | None:
        """Why a file cannot be put back; None when it can."""
        delivery = self._deliveries.get(file.hold.inbox)
        if delivery is None:
            return f"its inbox {file.hold.inbox} is not in the configuration"
        return None if file.stays else _fault_of_moving(file, delivery)  # it is where it came from

    def _move(self, file: Filed) -> str | None:
        """Put one file back; why that cannot be, where it cannot."""
        delivery = self._deliveries[file.hold.inbox]
        with ExitStack() as stack:
            try:
                filed = stack.enter_context(beneath.folder(delivery.output.root, os.path.dirname(file.destination)))
                back = stack.enter_context(beneath.folder(delivery.inbox, os.path.dirname(file.hold.path), make=True))
            except NotADirectoryError:
                return f"a file or a link is in the way to its old place {to_text(file.hold.path)}"
            except OSError as error:
                return f"it cannot be put back: {error.strerror}"
            source = os.path.join(beneath.path_of(filed), os.path.basename(file.destination))
            target = os.path.join(beneath.path_of(back), os.path.basename(file.hold.path))
            try:
                delivery.custody.put_back(source, target)
            except FileExistsError:
                return f"its old place {to_text(file.hold.path)} is taken"
            except (OSError, Unfit) as error:
                if is_there(target) or not is_there(source):
                    raise  # it may be half way: the intent stands, and the next start finishes what is there
                return f"it cannot be put back: {(isinstance(error, OSError) and error.strerror) or error}"
        self._remove_explanation(file)
        self._move_companions(file)
        return None

    def _move_companions(self, file: Filed) -> None:
        """What was filed with a file follows it back; what cannot is told of, and stays. Safe to repeat."""
        for companion in file.companions:
            try:
                self._move_companion(self._deliveries[file.hold.inbox], companion, file.arrival)
            except (OSError, Unfit) as error:
                log.warning("sidecar_left", path=to_text(companion.destination), error=str(error))

    def _move_companion(self, delivery: Delivery, companion: Companion, key: str) -> None:
        """Put one back, under another name where its own is taken."""
        with ExitStack() as stack:
            filed = stack.enter_context(beneath.folder(delivery.output.root, os.path.dirname(companion.destination)))
            back = stack.enter_context(beneath.folder(delivery.inbox, os.path.dirname(companion.path), make=True))
            source = os.path.join(beneath.path_of(filed), os.path.basename(companion.destination))
            for name in alternatives(os.path.basename(companion.path), key, lambda _name: False):
                target = os.path.join(beneath.path_of(back), name)
                if not is_there(source):
                    return
                if _is_twice(source, target, copied=delivery.custody.copies):
                    delivery.output.disk.sync([target], [os.path.dirname(target)])
                    os.unlink(source)
                    return
                with suppress(FileExistsError):
                    delivery.custody.put_back(source, target)
                    return
            raise FileExistsError(errno.EEXIST, "no name is free for it", companion.path)

    def _remove_explanation(self, file: Filed) -> None:
        """The sidecar of a rejected file goes with it, if it is ours."""
        if file.stays:
            return
        sidecar = sidecar_of(os.path.join(self._deliveries[file.hold.inbox].output.root, file.destination))
        if file.placement is Placement.REJECTED and explains(sidecar, file.arrival):
            with suppress(FileNotFoundError):
                os.unlink(sidecar)

    def _sync(self, files: Sequence[Filed]) -> None:
        folders: dict[str, set[str]] = {}
        for file in files:
            if file.stays:
                continue
            delivery = self._deliveries[file.hold.inbox]
            target = os.path.join(delivery.inbox, file.hold.path)
            source = os.path.join(delivery.output.root, file.destination)
            folders.setdefault(file.hold.inbox, set()).update((os.path.dirname(target), os.path.dirname(source)))
        for inbox, changed in folders.items():
            self._deliveries[inbox].output.disk.sync([], changed)

    def _may_be_judged(self, file: Filed) -> bool:
        """Whether it can be seen how far a file has come: not while a copy of it may be in an inbox that is away."""
        delivery = self._deliveries.get(file.hold.inbox)
        if delivery is None or file.stays or os.path.isdir(delivery.inbox):
            return True
        return not is_there(os.path.join(delivery.output.root, file.destination))

    def _has_left(self, file: Filed) -> bool:
        """Whether a file is no longer where it was filed; somebody else's may have that name meanwhile."""
        if file.stays:
            return True
        delivery = self._deliveries.get(file.hold.inbox)
        if delivery is None:
            return False
        destination = os.path.join(delivery.output.root, file.destination)
        if not is_there(destination):
            return True
        back = os.path.join(delivery.inbox, file.hold.path)
        return not holds(destination, file.hold.size, file.sha256) and holds(back, file.hold.size, file.sha256)


def _fault_of_moving(file: Filed, delivery: Delivery) -> str | None:
    """Why a file cannot be moved back to its inbox; None when it can."""
    if delivery.nowhere:
        return "the output of its inbox is away, or the configuration does not name it any more"
    if not os.path.isdir(delivery.inbox):
        return f"its inbox {delivery.inbox} is missing"
    path = os.path.join(delivery.output.root, file.destination)
    try:
        if file.sha256 is not None and sha256_of(path) != file.sha256:
            return "its content has changed since it was filed"
    except FileNotFoundError:
        return "it is not where it was filed"
    except OSError as error:
        return f"it cannot be read: {error.strerror}"
    return None


def _is_twice(source: str, target: str, *, copied: bool) -> bool:
    """Whether a file is in its old place as well as where it was filed, so that the latter may go.

    Raises:
        OSError: one of them is there and cannot be read: nobody knows.
    """
    try:
        one, other = os.lstat(source), os.lstat(target)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if os.path.samestat(one, other):
        return one.st_nlink > 1  # two names, and not one that two ways lead to
    return copied and is_same_content(source, target)
