"""Bringing rows into line with the disk: what `fsck --repair` asks of the one writer.

Only rows change, and sidecars that are missing are written. No file of anybody is moved, overwritten or removed. What
was found is looked at once more, because it was found by another process, some time ago; what is recorded is durable
on the disk first. Killed at any moment, each row is as it was, or true.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import structlog

from pigeonholed import beneath
from pigeonholed.adopting import Source, Unclear, origin_of
from pigeonholed.contents import holds, sha256_of_open
from pigeonholed.disk import is_there
from pigeonholed.findings import Kind
from pigeonholed.finishing import explanation, explanation_in
from pigeonholed.fsck import is_clean
from pigeonholed.hold_folder import PART
from pigeonholed.images import Arrival, Fingerprint, ImageFile, Placement, Reason, mtime_ns_of
from pigeonholed.ledger import Filed, Found, Hold, Plan
from pigeonholed.paths import from_text, to_text
from pigeonholed.placing import sidecar_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.settings import InboxSettings
    from pigeonholed.store import ModelStore

log = structlog.get_logger()

_LONGEST = 4 * 4096  # each byte as an escape
_DEFAULT_LEADS = "{label}/"
_BY = "made by fsck --repair of a file that no row explained"


class Left(Exception):
    """Something stays as it is; the message says why, as the end of a sentence."""


@dataclass(frozen=True, slots=True)
class Item:
    """One thing to mend; paths are relative to the output, as `os.fsdecode` gives them."""

    kind: Kind
    output: Output
    path: str
    image: int | None
    found: str | None = None
    other: int | None = None


@dataclass(slots=True)
class _Batch:
    """What is to be recorded together, once it is durable."""

    rows: Mapping[int, Filed]
    explained: set[str]
    gone: list[tuple[int, str]] = field(default_factory=list)
    moved: list[tuple[int, str]] = field(default_factory=list)
    found: list[Found] = field(default_factory=list)
    files: dict[Output, list[str]] = field(default_factory=dict)
    folders: dict[Output, set[str]] = field(default_factory=dict)

    def keep(self, output: Output, path: str) -> None:
        """Make a file and its name durable before anything is recorded."""
        full_path = os.path.join(output.root, path)
        self.files.setdefault(output, []).append(full_path)
        self.keep_names(output, path)

    def keep_names(self, output: Output, path: str) -> None:
        """Make what is in its folder, and what is not, durable; and the folders above."""
        folder = os.path.dirname(os.path.join(output.root, path))
        folders = self.folders.setdefault(output, set())
        while len(folder) >= len(output.root):
            folders.add(folder)
            folder = os.path.dirname(folder)


class Mender:
    """Mends what a comparison found. One thread at a time.

    Args:
        ledger: the rows.
        outputs: by folder.
        inboxes: the settings of each.
        store: the models, whose labels are names of folders.
    """

    def __init__(
        self, ledger: Ledger, outputs: Mapping[str, Output], inboxes: Sequence[InboxSettings], store: ModelStore
    ) -> None:
        self._ledger = ledger
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
        if not all(isinstance(path, str) and _is_storable(path) for path in paths):
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
        unexplained = [item.path for item in items if item.kind is Kind.UNEXPLAINED]
        batch = _Batch(self._ledger.filed_of(ids), self._ledger.placed_since(since, unexplained))
        ways: dict[Kind, Callable[[Item, _Batch], str]] = {
            Kind.MISSING: self._gone,
            Kind.TWICE: self._twice,
            Kind.MOVED: self._moved,
            Kind.REASON_MISSING: self._explained,
            Kind.UNEXPLAINED: _Adopting(self._ledger, self._inboxes, self._store).adopt,
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
        self._ledger.amend(gone=batch.gone, moved=batch.moved, found=batch.found)
        log.info("rows_mended", gone=len(batch.gone), moved=len(batch.moved), found=len(batch.found))
        return told

    def _gone(self, item: Item, batch: _Batch) -> str:
        row = _row(item, batch)
        if is_there(os.path.join(item.output.root, item.path)):
            raise Left("it is there again")
        batch.keep_names(item.output, item.path)
        batch.gone.append((row.id, "it was not where it was filed, nor anywhere below the output"))
        return "its row is 'vanished' now"

    def _twice(self, item: Item, batch: _Batch) -> str:
        row, other = _row(item, batch), batch.rows.get(item.other or 0)
        if other is None or other.id == row.id or other.destination != row.destination:
            raise Left("no other row claims it any more")
        if not holds(os.path.join(item.output.root, item.path), other.hold.size, other.sha256):
            raise Left("it is of neither row: its bytes have changed")
        batch.gone.append((row.id, f"its place holds the file of row {other.id}"))
        return f"row {row.id} is 'vanished' now, and row {other.id} keeps the file"

    def _moved(self, item: Item, batch: _Batch) -> str:
        row = _row(item, batch)
        if item.found is None or row.sha256 is None:
            raise Left("nobody knows where it is")
        with _opened(item.output, item.found) as fd:
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

    def _explained(self, item: Item, batch: _Batch) -> str:
        row = _row(item, batch)
        if row.placement is not Placement.REJECTED:
            raise Left("it is not rejected")
        self._explain(item.output, row, item.path, batch)
        return "it is written anew"

    def _explain(self, output: Output, row: Filed, path: str, batch: _Batch) -> None:
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


class _Adopting:
    """Rows for files that have none. For one batch, in which the models do not change.

    Args:
        ledger: gives ids, and knows labels.
        inboxes: the settings of each.
        store: the models.
    """

    def __init__(self, ledger: Ledger, inboxes: Sequence[InboxSettings], store: ModelStore) -> None:
        self._ledger = ledger
        self._inboxes = inboxes
        self._store = store
        self._sources: dict[str, dict[str, Source]] = {}

    def adopt(self, item: Item, batch: _Batch) -> str:
        """Make the row of one file."""
        if item.path in batch.explained:
            raise Left("a row explains it by now")
        batch.explained.add(item.path)
        if sidecar_of("") == item.path[-len(sidecar_of("")) :]:
            raise Left("it looks like an explanation of another file")
        said = _explanation_of(item)
        try:
            inbox = None if said is None else str(said.get("inbox"))
            origin = origin_of(item.path, self._sources_of(item.output), inbox)
        except Unclear as why:
            raise Left(f"it {why}") from None
        with _opened(item.output, item.path) as fd:
            before = os.fstat(fd)
            sha256 = sha256_of_open(os.dup(fd))
            after = os.fstat(fd)
        if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
            raise Left("it is being written to")
        hold = Hold(origin.inbox, origin.path, after.st_size, mtime_ns_of(after))
        key, detail = secrets.token_hex(16), _BY
        if said is not None and origin.placement is Placement.REJECTED and said.get("sha256") == sha256:
            hold, key, detail = _as_said(said, hold, key)
        (number,) = self._ledger.take_ids(1)
        batch.keep(item.output, item.path)
        batch.found.append(
            Found(number, hold, item.path, origin.placement, sha256, key, origin.label, origin.reason, detail)
        )
        return f"row {number} was made: {origin.placement.value} {origin.label or origin.reason or ''}".rstrip()

    def _sources_of(self, output: Output) -> dict[str, Source]:
        if output.root not in self._sources:
            self._sources[output.root] = {
                inbox.name: Source(self._labels(inbox.model), inbox.template.startswith(_DEFAULT_LEADS))
                for inbox in self._inboxes
                if str(inbox.output) == output.root
            }
        return self._sources[output.root]

    def _labels(self, model: str) -> frozenset[str]:
        from pigeonholed.bundle import BundleError

        known = self._ledger.labels_of(model)
        if not known:  # a database that never loaded it
            with contextlib.suppress(BundleError):
                known = set(self._store.open(model).manifest.labels)
        return frozenset(known)


def _is_storable(text: str) -> bool:
    """Whether it is a path as the database has it: no half characters, and no longer than any path."""
    return len(text) <= _LONGEST and not any("\ud800" <= character <= "\udfff" for character in text)


def _row(item: Item, batch: _Batch) -> Filed:
    row = batch.rows.get(item.image or 0)
    if row is None or row.destination != item.path:
        raise Left("its row says something else by now")
    return row


@contextlib.contextmanager
def _opened(output: Output, path: str) -> Iterator[int]:
    """A regular file below an output, through no link."""
    try:
        fd = beneath.open_beneath(output.root, path)
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EACCES, errno.ENXIO, errno.ENAMETOOLONG}:
            raise Left(f"it cannot be read: {error.strerror}") from None
        raise
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            raise Left("it is no regular file")
        yield fd
    finally:
        os.close(fd)


def _explanation_of(item: Item) -> dict[str, Any] | None:
    try:
        return explanation_in(sidecar_of(os.path.join(item.output.root, item.path)))
    except OSError:
        return None


def _as_said(said: dict[str, Any], hold: Hold, key: str) -> tuple[Hold, str, str]:
    """What an explanation says beyond what its place does, as far as it can be."""
    arrival, path, detail = said.get("arrival"), said.get("path"), said.get("detail")
    if isinstance(arrival, str) and len(arrival) == 32 and set(arrival) <= set("0123456789abcdef"):
        key = arrival
    if isinstance(path, str) and path.isprintable() and _is_storable(path) and is_clean(from_text(path)):
        hold = Hold(hold.inbox, from_text(path), hold.size, hold.mtime_ns)
    text = detail if isinstance(detail, str) and detail.isprintable() and len(detail) < 1000 else _BY
    return hold, key, text
