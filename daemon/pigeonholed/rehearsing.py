"""`run --dry-run`: what a service would do with what is in the inboxes now. Changes nothing, and needs no lock."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from pigeonholed import imaging
from pigeonholed.errors import Misconfigured
from pigeonholed.images import Classified, Rejected
from pigeonholed.looking import Looker
from pigeonholed.paths import to_text
from pigeonholed.pipeline import demand_of, load_served, policy_of, watch_of
from pigeonholed.placing import Placer, alternatives, placement_of, sidecar_of
from pigeonholed.store import ModelStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

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
        for outcome, path in looker.look(_files(inbox)):
            yield _entry(inbox, outcome, path, placer, promised)


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
    if not isinstance(outcome, Classified | Rejected):
        return entry | {"reason": outcome.detail}

    entry["outcome"] = placement_of(outcome).value
    if inbox.action != "none" and inbox.output is not None:
        entry["destination"] = to_text(_destination(inbox.output, outcome, placer, promised))
    if isinstance(outcome, Rejected):
        return entry | {"reason": outcome.reason.value}
    return entry | {"label": outcome.prediction.label, "confidence": outcome.prediction.confidence}


def _destination(output: Path, outcome: Outcome, placer: Placer, promised: set[str]) -> str:
    def taken(destination: str) -> bool:
        target = os.path.join(output, destination)
        return destination in promised or os.path.lexists(target) or os.path.lexists(sidecar_of(target))

    destination = next(alternatives(placer.destination(outcome), "0" * 32, taken))
    promised.add(destination)
    return destination
