"""`run --dry-run`: what a service would do with what is in the inboxes now. Changes nothing, and needs no lock."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pigeonholed import database, imaging
from pigeonholed.duplicates import Originals, compared, content_of
from pigeonholed.errors import Misconfigured
from pigeonholed.images import Classified, Duplicate, Original, Rejected, Withdrawn
from pigeonholed.known_contents import find
from pigeonholed.loading import load_served
from pigeonholed.looking import Looker
from pigeonholed.paths import to_text
from pigeonholed.patience import Patience
from pigeonholed.pipeline import demand_of, policy_of, watch_of
from pigeonholed.placing import Placer, alternatives, placement_of, sidecar_of
from pigeonholed.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from pigeonholed.duplicates import Content
    from pigeonholed.images import Handled, ImageFile, Outcome
    from pigeonholed.settings import InboxSettings, Settings


def dry_run(settings: Settings) -> Iterator[dict[str, Any]]:
    """One entry for each file: `inbox`, `path`, `outcome`, `reason`, `label`, `confidence`, `destination`.

    Raises:
        Misconfigured: an inbox is missing.
        BundleError: a model cannot be served.
    """
    imaging.configure()
    store = ModelStore(settings.models.dir)
    for inbox in settings.inbox:
        if not os.path.isdir(inbox.path):
            raise Misconfigured(f"the inbox {inbox.path} does not exist; make that folder first")
        served = load_served(settings, store.open(inbox.model, inbox.version))
        looker = Looker(served, demand_of(inbox, served), policy_of(inbox))
        placer = Placer(inbox.template)
        promised: set[str] = set()
        originals = Originals(
            {inbox.name} if inbox.duplicates == "set-aside" else (), _Filed(settings), Patience(), "file"
        )
        twins: dict[Content, Original] = {}
        for outcome, path in looker.look(_files(inbox)):
            result = outcome
            if originals and not isinstance(outcome, Withdrawn):
                result = compared(outcome, originals.of([outcome]) | twins)
            entry = _entry(inbox, result, path, placer, promised)
            if originals and isinstance(result, Classified):
                twins[content_of(result)] = Original(0, str(entry["destination"]))
            yield entry


@dataclass(frozen=True, slots=True)
class _Filed:
    """What the database knows to be filed; nothing where there is none yet, or an older one."""

    settings: Settings

    def originals(self, inbox: str, hashes: Sequence[str]) -> dict[str, Original]:
        engine = database.connect(self.settings.database.url, read_only=True)
        try:
            return find(engine, inbox, hashes)
        except sa.exc.DBAPIError:
            return {}
        finally:
            engine.dispose()


def _files(inbox: InboxSettings) -> Iterator[tuple[ImageFile, str]]:
    """What would be taken if everything had settled."""
    still = inbox.model_copy(update={"settle_s": 0.0, "incomplete_s": 0.0})
    watch = watch_of(still, time.time_ns)
    seen: set[str] = set()
    while not watch.scans:
        for file in watch.take(time.monotonic(), 1024):
            if file.path not in seen:
                seen.add(file.path)
                yield file, os.path.join(inbox.path, file.path)


def _entry(inbox: InboxSettings, outcome: Handled, path: str, placer: Placer, promised: set[str]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "inbox": inbox.name,
        "path": to_text(os.path.relpath(path, inbox.path)),
        "outcome": None,
        "reason": None,
        "label": None,
        "confidence": None,
        "destination": None,
    }
    if isinstance(outcome, Withdrawn):
        return entry | {"reason": outcome.detail}

    entry["outcome"] = placement_of(outcome).value
    if inbox.action != "none" and inbox.output is not None:
        entry["destination"] = to_text(_destination(inbox.output, outcome, placer, promised))
    if isinstance(outcome, Rejected):
        return entry | {"reason": outcome.reason.value}
    if isinstance(outcome, Duplicate):
        return entry
    return entry | {"label": outcome.prediction.label, "confidence": outcome.prediction.confidence}


def _destination(output: Path, outcome: Outcome, placer: Placer, promised: set[str]) -> str:
    def taken(destination: str) -> bool:
        target = os.path.join(output, destination)
        return destination in promised or os.path.lexists(target) or os.path.lexists(sidecar_of(target))

    destination = next(alternatives(placer.destination(outcome), "0" * 32, taken))
    promised.add(destination)
    return destination
