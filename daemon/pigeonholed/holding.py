"""Which files in the inboxes are passed over, because somebody has put them back there."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pigeonholed.entries import Hold

if TYPE_CHECKING:
    from collections.abc import Iterable


class Holds:
    """Which files in the inboxes are passed over: path to (size, mtime_ns), by inbox.

    Written by whoever puts files back, read by the claiming thread; each operation on a dict is atomic.
    """

    def __init__(self, holds: Iterable[Hold] = ()) -> None:
        self._held: dict[tuple[str, str], tuple[int, int]] = {}
        for hold in holds:
            self.add(hold)

    def add(self, hold: Hold) -> Hold | None:
        """Pass over a file from now on; returns what was passed over in its place."""
        before = self._held.get((hold.inbox, hold.path))
        self._held[hold.inbox, hold.path] = (hold.size, hold.mtime_ns)
        return before and Hold(hold.inbox, hold.path, *before)

    def remove(self, hold: Hold) -> None:
        """It is not passed over any longer."""
        self._held.pop((hold.inbox, hold.path), None)

    def clear(self) -> int:
        """Release all; how many there were."""
        count = len(self._held)
        self._held.clear()
        return count

    def covers(self, inbox: str, path: str, size: int, mtime_ns: int) -> bool:
        """Whether a file is passed over; one that has changed is not, and never again."""
        held = self._held.get((inbox, path))
        if held is None:
            return False
        if held == (size, mtime_ns):
            return True
        self._held.pop((inbox, path), None)
        return False
