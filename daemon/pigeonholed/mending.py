"""Bringing rows into line with the disk: what `fsck --repair` asks of the one writer.

Only rows change, and sidecars that are missing are written. No file of anybody is moved, overwritten or removed. What
was found is looked at once more, because it was found by another process, some time ago; what is recorded is durable
on the disk first. Killed at any moment, each row is as it was, or true.
"""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

import structlog

from pigeonholed import beneath
from pigeonholed.adopting import Adopting
from pigeonholed.companions import is_companion
from pigeonholed.contents import holds, sha256_of_open
from pigeonholed.disk import is_there
from pigeonholed.entries import Filed, Plan
from pigeonholed.explanations import explanation
from pigeonholed.findings import Kind
from pigeonholed.hold_folder import PART
from pigeonholed.images import Arrival, Fingerprint, ImageFile, Placement, Reason
from pigeonholed.judging import is_clean
from pigeonholed.paths import from_text, to_text
from pigeonholed.placing import sidecar_of
from pigeonholed.repairs import Batch, Item, Left, is_storable, opened

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.amendments import Amendments
    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.served_models import ServedModels
    from pigeonholed.settings import InboxSettings
    from pigeonholed.store import ModelStore

log = structlog.get_logger()


class Mender:
    """Mends what a comparison found. One thread at a time.

    Args:
        ledger: gives ids to rows that are made.
        amendments: the rows.
        served: labels of models, which are names of folders.
        outputs: by folder.
        inboxes: the settings of each.
        store: the models, for labels of those that never served here.
    """

    def __init__(
        self,
        ledger: Ledger,
        amendments: Amendments,
        served: ServedModels,
        outputs: Mapping[str, Output],
        inboxes: Sequence[InboxSettings],
        store: ModelStore,
    ) -> None:
        self._ledger = ledger
        self._amendments = amendments
        self._served = served
        self._outputs = outputs
        self._inboxes = inboxes
        self._store = store

    def item(self, arguments: Mapping[str, Any]) -> Item:
        """Read one thing to mend out of a request.

        Raises:
            ValueError: it is none; the message is a whole sentence.
        """
        try:
            kind, output = Kind(arguments["kind"]), self._outputs[arguments["folder"]]
        except (KeyError, TypeError, ValueError):
            raise ValueError("say what kind of finding is to be mended, and in which output") from None
        paths = [arguments.get("path"), arguments.get("found", arguments.get("path"))]
        if not all(isinstance(path, str) and is_storable(path) for path in paths):
            raise ValueError("the path of a finding must be text that can be stored")
        path, found = (from_text(str(path)) for path in paths)
        if not (is_clean(path) and is_clean(found)):
            raise ValueError("the path of a finding must be one within its output")
        ids = [arguments.get("image"), arguments.get("other")]
        if not all(number is None or (type(number) is int and 0 < number < 1 << 63) for number in ids):
            raise ValueError("a row is named by its id, a whole number")
        return Item(kind, output, path, ids[0], found if "found" in arguments else None, ids[1])

    def mend(self, items: Sequence[Item], since: int) -> list[tuple[bool, str]]:
        """Mend what can be mended; for each whether it is, and how or why not.

        Args:
            items: what was found.
            since: the highest id that was known when it was found.

        Raises:
            OSError: a disk does not say what is on it, or fails.
        """
        for output in {item.output for item in items}:
            output.require()
        ids = [number for item in items for number in (item.image, item.other) if number is not None]
        new = [item.found or item.path for item in items if item.kind in (Kind.UNEXPLAINED, Kind.SIDECAR_MOVED)]
        rows, explained = self._amendments.filed_of(ids), self._amendments.placed_since(since, new)
        batch = Batch(rows, explained, self._amendments.beside_pictures(new))
        ways: dict[Kind, Callable[[Item, Batch], str]] = {
            Kind.MISSING: self._gone,
            Kind.TWICE: self._twice,
            Kind.MOVED: self._moved,
            Kind.REASON_MISSING: self._explained,
            Kind.SIDECAR_MISSING: self._sidecar_gone,
            Kind.SIDECAR_MOVED: self._sidecar_moved,
            Kind.UNEXPLAINED: Adopting(self._ledger, self._served, self._inboxes, self._store).adopt,
        }
        told: list[tuple[bool, str]] = []
        for item in items:
            try:
                if item.kind not in ways:
                    raise Left("only a person can mend that")
                told.append((True, ways[item.kind](item, batch)))
            except Left as why:
                told.append((False, str(why)))
        for output in batch.files.keys() | batch.folders.keys():
            output.disk.sync(batch.files.get(output, []), batch.folders.get(output, set()))
            output.require()  # it was there all the while, and nothing only seemed to be missing
        self._amendments.record(gone=batch.gone, moved=batch.moved, found=batch.found, followed=batch.followed)
        log.info(
            "rows_mended",
            gone=len(batch.gone),
            moved=len(batch.moved),
            found=len(batch.found),
            sidecars=len(batch.followed),
        )
        return told

    def _gone(self, item: Item, batch: Batch) -> str:
        row = _row(item, batch)
        if is_there(os.path.join(item.output.root, item.path)):
            raise Left("it is there again")
        batch.keep_names(item.output, item.path)
        batch.gone.append((row.id, "it was not where it was filed, nor anywhere below the output"))
        return "its row is 'vanished' now"

    def _twice(self, item: Item, batch: Batch) -> str:
        row, other = _row(item, batch), batch.rows.get(item.other or 0)
        if other is None or other.id == row.id or other.destination != row.destination:
            raise Left("no other row claims it any more")
        if not holds(os.path.join(item.output.root, item.path), other.hold.size, other.sha256):
            raise Left("it is of neither row: its bytes have changed")
        batch.gone.append((row.id, f"its place holds the file of row {other.id}"))
        return f"row {row.id} is 'vanished' now, and row {other.id} keeps the file"

    def _moved(self, item: Item, batch: Batch) -> str:
        row = _row(item, batch)
        if item.found is None or row.sha256 is None:
            raise Left("nobody knows where it is")
        with opened(item.output, item.found) as fd:
            status = os.fstat(fd)
            if status.st_size != row.hold.size or sha256_of_open(os.dup(fd)) != row.sha256:
                raise Left("what was found has other bytes by now")
        place = os.path.join(item.output.root, item.path)
        if item.other is None and is_there(place) and holds(place, row.hold.size, row.sha256):
            raise Left("it is there again")
        if row.placement is Placement.REJECTED and item.found.startswith("_rejected/"):
            with contextlib.suppress(Left):  # somebody else's file of that name is told of the next time
                self._explain(item.output, row, item.found, batch)
        batch.keep(item.output, item.found)
        batch.moved.append((row.id, item.found))
        return f"its row says {to_text(item.found)} now"

    def _sidecar_gone(self, item: Item, batch: Batch) -> str:
        row = _row_beside(item, batch)
        if is_there(os.path.join(item.output.root, item.path)):
            raise Left("it is there again")
        batch.keep_names(item.output, item.path)
        batch.followed.append((row.id, item.path, None))
        return "its picture's row has forgotten it"

    def _sidecar_moved(self, item: Item, batch: Batch) -> str:
        row = _row_beside(item, batch)
        if item.found is None or not is_companion(item.found, (os.path.splitext(item.path)[1].lower(),)):
            raise Left("nobody knows where it is")
        if is_there(os.path.join(item.output.root, item.path)):
            raise Left("it is there again")
        if item.found in batch.explained:
            raise Left(f"{to_text(item.found)} belongs to another picture by now")
        with opened(item.output, item.found):
            batch.keep(item.output, item.found)
        batch.explained.add(item.found)
        batch.followed.append((row.id, item.path, item.found))
        return f"its picture's row says {to_text(item.found)} now"

    def _explained(self, item: Item, batch: Batch) -> str:
        row = _row(item, batch)
        if row.placement is not Placement.REJECTED:
            raise Left("it is not rejected")
        self._explain(item.output, row, item.path, batch)
        return "it is written anew"

    def _explain(self, output: Output, row: Filed, path: str, batch: Batch) -> None:
        """Write the sidecar of a file that is at `path`, never over anything; whole, or not there."""
        hold = row.hold
        arrival = Arrival(row.id, ImageFile(hold.inbox, hold.path, hold.size, hold.mtime_ns), row.arrival, "", 0.0)
        fingerprint = Fingerprint(row.sha256, hold.size, hold.mtime_ns)
        reason = None if row.reason is None else Reason(row.reason)
        plan = Plan(arrival, fingerprint, row.placement, path, None, reason, row.detail)
        token = output.make_batch_folder()
        draft = os.path.join(output.batch_folder(token), secrets.token_hex(16) + PART)
        try:
            with open(draft, "x", encoding="utf-8") as file:
                file.write(explanation(plan, row.filed_at))
            output.disk.sync([draft], [])
            with beneath.folder(output.root, os.path.dirname(path)) as folder:
                output.disk.rename_new(draft, sidecar_of(os.path.basename(path)), target_dir=folder)
        except FileExistsError:
            raise Left("a file of that name is there, and no explanation of this one") from None
        except NotADirectoryError:
            raise Left("a link or a file is on the way to it") from None
        finally:
            with contextlib.suppress(OSError):
                os.unlink(draft)
            output.remove_batch_folder(token)
        batch.keep(output, sidecar_of(path))


def _row(item: Item, batch: Batch) -> Filed:
    row = batch.rows.get(item.image or 0)
    if row is None or row.destination != item.path:
        raise Left("its row says something else by now")
    return row


def _row_beside(item: Item, batch: Batch) -> Filed:
    """The row of the picture that a sidecar was filed with."""
    row = batch.rows.get(item.image or 0)
    if row is None or item.path not in {companion.destination for companion in row.companions}:
        raise Left("its picture's row says something else by now")
    return row
