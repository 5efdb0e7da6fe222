"""Removing what crashes leave in work and hold folders: empty folders, half copies, originals of recorded copies."""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

import structlog

from pigeonholed.hold_folder import PART, HoldFolder, held_name, parse_held
from pigeonholed.images import Status
from pigeonholed.originals import Held
from pigeonholed.output import DRAFT
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from pigeonholed.delivery import Delivery
    from pigeonholed.ledger import Ledger

log = structlog.get_logger()

_COPY_IS_SAFE = frozenset({Status.INGESTED, Status.PLANNED, Status.FILED, Status.RETURNED})


def sweep(deliveries: Mapping[str, Delivery], used: Collection[str], ledger: Ledger) -> int:
    """Tidy the folders of batches that no row in flight uses; what cannot be explained is reported and never touched.

    Returns:
        How many folders hold something that cannot be explained.

    Args:
        deliveries: by inbox; their outputs and inboxes are looked through.
        used: tokens of batches in flight.
        ledger: says how far the row of an original has come.
    """
    holds = [HoldFolder.in_output(output) for output in {delivery.output for delivery in deliveries.values()}]
    holds += [HoldFolder.in_inbox(delivery.inbox, private=False) for delivery in deliveries.values()]
    orphans = 0
    for hold in holds:
        tokens = hold.tokens()
        for token in tokens:
            _remove_halves(os.path.join(hold.root, token))
        # One in use as well, if it is empty: the originals of its files have gone.
        left = [token for token in tokens if not _removed(os.path.join(hold.root, token)) and token not in used]
        if left:
            orphans += _tidy(hold, left, deliveries, ledger)
        if hold.beside:
            _remove_halves(hold.root)  # of what was being put back
        hold.remove_root()
    return orphans


def _tidy(hold: HoldFolder, tokens: Sequence[str], deliveries: Mapping[str, Delivery], ledger: Ledger) -> int:
    """Resolve what is left in the folders of some batches, whose rows are asked for in one go."""
    folders = [os.path.join(hold.root, token) for token in tokens]
    held = [found for folder in folders for name in _names(folder) if (found := parse_held(name)) is not None]
    for picture, status in ledger.arrivals(sorted({number for number, _key in held})):
        for arrival in (picture, *picture.companions):
            name = os.path.join(hold.root, arrival.token, held_name(arrival))
            stays = arrival.part or status is Status.VANISHED
            if arrival.copied if arrival.part else status in _COPY_IS_SAFE:
                _remove(name)
            elif stays and arrival.file.inbox in deliveries and os.path.lexists(name):
                # It was held while its inbox was away and seemed to be empty: it goes back, and is a new arrival.
                delivery = deliveries[arrival.file.inbox]
                Held(delivery.inbox, hold).give_back(arrival, delivery.output.disk)
    hold.close()
    orphans = 0
    for folder in folders:
        if not _removed(folder):
            orphans += 1
            log.error("orphans_found", folder=to_text(folder), remedy="pigeonholed fsck")
    return orphans


def _remove_halves(folder: str) -> None:
    """Copies that were never complete, whose originals are elsewhere, and reasons for what was not planned in time."""
    for name in _names(folder):
        if name.endswith((PART, DRAFT)):
            _remove(os.path.join(folder, name))


def _remove(path: str) -> None:
    with contextlib.suppress(OSError):
        os.unlink(path)


def _removed(folder: str) -> bool:
    with contextlib.suppress(OSError):
        os.rmdir(folder)
    return not os.path.lexists(folder)


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except OSError:
        return []
