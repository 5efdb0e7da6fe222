"""Rows for files in an output that have none: what their places and their explanations say of them."""

from __future__ import annotations

import contextlib
import os
import secrets
from typing import TYPE_CHECKING, Any

from pigeonholed.amendments import Found
from pigeonholed.companions import is_companion
from pigeonholed.contents import sha256_of_open
from pigeonholed.entries import Hold
from pigeonholed.explanations import explanation_in
from pigeonholed.images import Placement, mtime_ns_of
from pigeonholed.judging import is_clean
from pigeonholed.origins import Source, Unclear, origin_of
from pigeonholed.paths import from_text
from pigeonholed.placing import sidecar_of
from pigeonholed.repairs import Left, is_storable, opened

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pigeonholed.ledger import Ledger
    from pigeonholed.output import Output
    from pigeonholed.repairs import Batch, Item
    from pigeonholed.served_models import ServedModels
    from pigeonholed.settings import InboxSettings
    from pigeonholed.store import ModelStore

_DEFAULT_LEADS = "{label}/"
_BY = "made by fsck --repair of a file that no row explained"


class Adopting:
    """Makes rows. For one batch, in which the models do not change.

    Args:
        ledger: gives ids.
        served: knows labels.
        inboxes: the settings of each.
        store: the models.
    """

    def __init__(
        self, ledger: Ledger, served: ServedModels, inboxes: Sequence[InboxSettings], store: ModelStore
    ) -> None:
        self._ledger = ledger
        self._served = served
        self._inboxes = inboxes
        self._store = store
        self._sources: dict[str, dict[str, Source]] = {}

    def adopt(self, item: Item, batch: Batch) -> str:
        """Make the row of one file."""
        if item.path in batch.explained:
            raise Left("a row explains it by now")
        batch.explained.add(item.path)
        if item.path in batch.sidecars or is_companion(item.path, self._suffixes_of(item.output)):
            raise Left("it is the sidecar of a picture, and none that is filed has it; move it to that, or away")
        if sidecar_of("") == item.path[-len(sidecar_of("")) :]:
            raise Left("it looks like an explanation of another file")
        said = _explanation_of(item)
        try:
            inbox = None if said is None else str(said.get("inbox"))
            origin = origin_of(item.path, self._sources_of(item.output), inbox)
        except Unclear as why:
            raise Left(f"it {why}") from None
        with opened(item.output, item.path) as fd:
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

    def _suffixes_of(self, output: Output) -> tuple[str, ...]:
        """The endings of sidecars in an output."""
        return tuple(suffix for inbox in self._inboxes if str(inbox.output) == output.root for suffix in inbox.sidecars)

    def _labels(self, model: str) -> frozenset[str]:
        from pigeonholed.bundle import BundleError

        known = self._served.labels_of(model)
        if not known:  # a database that never loaded it
            with contextlib.suppress(BundleError):
                known = set(self._store.open(model).manifest.labels)
        return frozenset(known)


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
    if isinstance(path, str) and path.isprintable() and is_storable(path) and is_clean(from_text(path)):
        hold = Hold(hold.inbox, from_text(path), hold.size, hold.mtime_ns)
    text = detail if isinstance(detail, str) and detail.isprintable() and len(detail) < 1000 else _BY
    return hold, key, text
