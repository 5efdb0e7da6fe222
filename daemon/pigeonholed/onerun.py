"""`run --once`: everything that is there at start and stays unchanged, and then an end."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Mapping, Sequence

    from pigeonholed.claiming import Claimer
    from pigeonholed.watching import Watch

_LOOK_EVERY_S = 0.25


class OneRun:
    """Claims what was there at start; owned by the claiming thread.

    A file that is not yet known to be unchanged is waited for as long as that takes, a picture whose end is missing for
    `incomplete_s`. One that is still seen to change once `settle_s` has passed is left. One that arrives later is not
    waited for.
    """

    def __init__(self, claimer: Claimer, watches: Sequence[Watch], clock: Callable[[], float] = time.monotonic) -> None:
        self._claimer = claimer
        self._watches = watches
        self._clock = clock
        self.left: list[str] = []

    def run(self, stop: threading.Event) -> None:
        """Return when all is claimed but what `left` names."""
        started_s = self._clock()
        self._scan_all(stop)
        seen_s = self._clock()
        # Where a window is full, files wait outside that nobody remembers: then whatever is there was there.
        present = {
            watch.rules.name: None if watch.window.full() else set(watch.window.paths()) for watch in self._watches
        }
        longest_s = max((watch.rules.settle_s for watch in self._watches), default=0.0)
        while not stop.is_set():
            busy = self._claimer.turn()
            if self._clock() - started_s >= longest_s:
                self._scan_all(stop)
                if not self._waited_for(present, started_s, seen_s):
                    break
            if not busy:
                stop.wait(_LOOK_EVERY_S)
        waiting = [f"{watch.rules.name}/{path}" for watch in self._watches for path in _present_in(watch, present)]
        self.left = sorted(waiting) + self._claimer.blocked()

    def _scan_all(self, stop: threading.Event) -> None:
        """One complete pass over every inbox, claiming what is ready."""
        wanted = [watch.scans + (2 if watch.scanning() else 1) for watch in self._watches]
        for watch in self._watches:
            watch.rescan()
        while not stop.is_set() and any(
            watch.scans < scans for watch, scans in zip(self._watches, wanted, strict=True)
        ):
            self._claimer.turn()

    def _waited_for(self, present: Mapping[str, set[str] | None], started_s: float, seen_s: float) -> bool:
        """Whether any file that was there at start may still become complete."""
        for watch in self._watches:
            changing = set(watch.window.changed_after(max(seen_s, started_s + watch.rules.settle_s)))
            if any(path not in changing for path in _present_in(watch, present)):
                return True
        return False


def _present_in(watch: Watch, present: Mapping[str, set[str] | None]) -> list[str]:
    """What is still waited for in an inbox and was there at start."""
    names = present[watch.rules.name]
    return [path for path in watch.window.paths() if names is None or path in names]
