"""Settings of the kernel that some tests change for a moment, where they may."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_QUEUED_EVENTS = Path("/proc/sys/fs/inotify/max_queued_events")


@contextmanager
def shortened_event_queue(length: int) -> Iterator[None]:
    """Queues of file events that are made in the block hold so many; skips the test where that needs more rights."""
    before = _QUEUED_EVENTS.read_text()
    try:
        _QUEUED_EVENTS.write_text(str(length))
    except OSError as error:
        pytest.skip(f"only root can shorten the kernel's queue of file events: {error.strerror}")
    try:
        yield
    finally:
        _QUEUED_EVENTS.write_text(before)
