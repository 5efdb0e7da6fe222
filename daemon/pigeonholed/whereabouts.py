"""Where the file of an unfinished row may be, whatever the settings say now."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from pigeonholed.contents import holds
from pigeonholed.hold_folder import HoldFolder
from pigeonholed.images import mtime_ns_of

if TYPE_CHECKING:
    from pigeonholed.delivery import Delivery
    from pigeonholed.images import Arrival, Fingerprint


def original_is(copied: Fingerprint, arrival: Arrival, delivery: Delivery) -> bool:
    """Whether an original that stays in the inbox still has the bytes that were copied."""
    path = os.path.join(delivery.inbox, arrival.file.path)
    return delivery.custody.keeps and not delivery.custody.rows_only and has(path, copied)


def hold_of(arrival: Arrival, delivery: Delivery) -> HoldFolder | None:
    """Where an original is held, whatever the settings say now: those may have changed since."""
    return next((hold for hold in hold_folders(delivery) if hold.has(arrival)), None)


def hold_folders(delivery: Delivery) -> tuple[HoldFolder, HoldFolder]:
    """Every folder where originals of an inbox may be held."""
    return HoldFolder.in_output(delivery.output), HoldFolder.in_inbox(delivery.inbox, private=False)


def require_gone(arrival: Arrival, delivery: Delivery) -> None:
    """Before a file is given up: it is in no listing of a folder where it could be."""
    delivery.output.require_gone(arrival)
    for hold in hold_folders(delivery):
        hold.require_gone(arrival)


def has(path: str, fingerprint: Fingerprint) -> bool:
    """Whether the very bytes that were read are at a path."""
    return holds(path, fingerprint.size, fingerprint.sha256)


def is_in_inbox(arrival: Arrival, delivery: Delivery) -> bool:
    """Whether the file that was recorded is still where it was."""
    try:
        status = os.lstat(os.path.join(delivery.inbox, arrival.file.path))
    except OSError:
        return False
    return (status.st_size, mtime_ns_of(status)) == (arrival.file.size, arrival.file.mtime_ns)


def let_go(hold: HoldFolder, arrival: Arrival) -> None:
    """Remove an original whose copy is durable and recorded."""
    hold.drop(arrival)
    hold.remove(arrival.token)


def is_one_file(one: str, other: str) -> bool:
    """Whether two names that are there lead to one file."""
    try:
        return os.path.samestat(os.lstat(one), os.lstat(other))
    except (FileNotFoundError, NotADirectoryError):
        return False
