"""Where to look first in an inbox: what file events told, and whether some of it was lost."""

from __future__ import annotations

import threading


class Hints:
    """Paths that an event spoke of. Filled by the watcher's thread, emptied by the claiming thread."""

    _CAPACITY = 8192

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._paths: dict[str, None] = {}
        self._lost = False

    def add(self, path: str) -> None:
        """Look at this path (relative to the inbox) soon."""
        with self._lock:
            if len(self._paths) < self._CAPACITY:
                self._paths[path] = None
            else:
                self._lost = True

    def overflow(self) -> None:
        """Something happened somewhere: scan."""
        with self._lock:
            self._lost = True

    def take(self) -> tuple[list[str], bool]:
        """The paths since the last call, and whether some were lost."""
        with self._lock:
            paths, lost = list(self._paths), self._lost
            self._paths.clear()
            self._lost = False
        return paths, lost
