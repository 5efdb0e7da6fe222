"""Removing what crashes leave in work and hold folders: empty folders, half copies, originals of recorded copies."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from pigeonholed.hold_folder import PART, HoldFolder, parse_held
from pigeonholed.images import Status
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from pigeonholed.finishing import Delivery
    from pigeonholed.ledger import Ledger

log = structlog.get_logger()

_COPY_IS_SAFE = frozenset({Status.INGESTED, Status.PLANNED, Status.FILED, Status.RETURNED})


def sweep(deliveries: Iterable[Delivery], used: Collection[str], ledger: Ledger) -> None:
    """Tidy the folders of batches that no row in flight uses; what cannot be explained is reported and never touched.

    Args:
        deliveries: whose outputs and inboxes to look through.
        used: tokens of batches in flight.
        ledger: says how far the row of an original has come.
    """
    deliveries = list(deliveries)
    folders: list[str] = []
    for output in {delivery.output for delivery in deliveries}:
        folders += [output.batch_folder(token) for token in output.batch_folders() if token not in used]
    holds = [HoldFolder.in_inbox(delivery.inbox, private=False) for delivery in deliveries]
    for hold in holds:
        folders += [os.path.join(hold.root, token) for token in hold.tokens() if token not in used]
    folders = [folder for folder in folders if not _removed(folder)]
    if folders:
        safe = _safe_originals(folders, ledger)
        for folder in folders:
            _clear(folder, safe)
            if not _removed(folder):
                log.error("orphans_found", folder=to_text(folder), remedy="pigeonholed fsck")
    for hold in holds:
        _clear(hold.root, {})  # half of what was being put back
        hold.remove_root()


def _removed(folder: str) -> bool:
    try:
        os.rmdir(folder)
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def _safe_originals(folders: Iterable[str], ledger: Ledger) -> Mapping[tuple[int, str], Status]:
    """The rows of all originals that are left, asked for in one go."""
    found = [held for folder in folders for name in _names(folder) if (held := parse_held(name)) is not None]
    return ledger.statuses([number for number, _key in found])


def _clear(folder: str, rows: Mapping[tuple[int, str], Status]) -> None:
    """Remove halves of copies, whose source is elsewhere, and originals whose copies are durable by their rows."""
    for name in _names(folder):
        held = parse_held(name)
        if name.endswith(PART) or (held is not None and rows.get(held) in _COPY_IS_SAFE):
            with contextlib.suppress(OSError):
                os.unlink(os.path.join(folder, name))


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
