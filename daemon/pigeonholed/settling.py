"""When a file counts as complete: it has provably not changed for a while.

Elapsed time is always measured with the monotonic clock. Two proofs are accepted. Either we have looked twice, far
enough apart, and saw the same thing. Or, without remembering the file at all, its change time (ctime, which nobody
can set) is older than a mark that we ourselves made on the same file system long enough ago: that serves a backlog of
a million files with no memory for each.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed.images import mtime_ns_of

if TYPE_CHECKING:
    import os


@dataclass(frozen=True, slots=True)
class Signature:
    """What changes when a file changes; compared for equality only."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int

    @classmethod
    def of(cls, status: os.stat_result) -> Signature:
        """The signature of a file."""
        return cls(status.st_size, mtime_ns_of(status), status.st_ctime_ns, status.st_ino)


def signature_of(status: os.stat_result) -> Signature:
    """A signature that fits into a database: inodes of 64 bits lose their first."""
    return Signature(status.st_size, mtime_ns_of(status), status.st_ctime_ns, status.st_ino & (1 << 63) - 1)


class Marks:
    """Moments at which we know both the file system's time and our monotonic clock.

    Args:
        settle_s: how long a file must be unchanged.

    Owned by the claiming thread.
    """

    _STEP_S = 0.5

    def __init__(self, settle_s: float) -> None:
        self.settle_s = settle_s
        self._spacing_s = settle_s / 20
        self._at_s: list[float] = []
        self._fs_ns: list[int] = []

    def due(self, now_s: float) -> bool:
        """Whether another mark is worth its system call."""
        return not self._at_s or now_s - self._at_s[-1] >= self._spacing_s

    def add(self, now_s: float, fs_ns: int) -> None:
        """Remember a mark; a step of the system clock makes all earlier ones void."""
        if self._at_s:
            drift_s = (fs_ns - self._fs_ns[-1]) / 1e9 - (now_s - self._at_s[-1])
            if abs(drift_s) > self._STEP_S:
                self._at_s.clear()
                self._fs_ns.clear()
        self._at_s.append(now_s)
        self._fs_ns.append(fs_ns)
        old = bisect_right(self._at_s, now_s - self.settle_s) - 1
        if old > 0:
            del self._at_s[:old], self._fs_ns[:old]

    def settled(self, ctime_ns: int, now_s: float) -> bool:
        """Whether a file of this change time has been unchanged for `settle_s`, for certain."""
        index = bisect_right(self._at_s, now_s - self.settle_s) - 1
        return index >= 0 and ctime_ns < self._fs_ns[index]

    def age_s(self, ctime_ns: int, now_s: float) -> float:
        """Seconds since a file changed by the file system's clock: a hint, wrong where that clock was stepped."""
        if not self._at_s:
            return 0.0
        return (self._fs_ns[-1] - ctime_ns) / 1e9 + (now_s - self._at_s[-1])


@dataclass(slots=True)
class _Waiting:
    signature: Signature
    since_s: float
    announced: bool
    incomplete: bool = False


class Window:
    """The bounded set of files that are being waited for.

    Args:
        capacity: files at most. One that finds no room is not remembered; the next scan looks at it again.

    Owned by the claiming thread.
    """

    def __init__(self, capacity: int = 8192) -> None:
        self._capacity = capacity
        self._files: dict[str, _Waiting] = {}

    def __len__(self) -> int:
        return len(self._files)

    def __contains__(self, path: str) -> bool:
        return path in self._files

    def unchanged_s(self, path: str, signature: Signature, now_s: float, *, announced: bool) -> float:
        """How long we have seen this very signature; remembers it, and whether an event had announced the file."""
        waiting = self._files.get(path)
        if waiting is not None and waiting.signature == signature:
            return now_s - waiting.since_s
        if waiting is not None or len(self._files) < self._capacity:
            announced = announced or (waiting is not None and waiting.announced)
            self._files[path] = _Waiting(signature, now_s, announced)
        return 0.0

    def was_announced(self, path: str) -> bool | None:
        """Whether an event had announced a remembered file; None for one that is not remembered."""
        waiting = self._files.get(path)
        return None if waiting is None else waiting.announced

    def mark_incomplete(self, path: str) -> None:
        """Remember that the end of this picture is missing."""
        if (waiting := self._files.get(path)) is not None:
            waiting.incomplete = True

    def forget(self, path: str) -> None:
        """It was claimed, or is gone."""
        self._files.pop(path, None)

    def paths(self) -> list[str]:
        """All that is waited for."""
        return list(self._files)

    def full(self) -> bool:
        """Whether files may be waiting outside."""
        return len(self._files) >= self._capacity

    def oldest_s(self) -> float | None:
        """The moment since which the longest-waiting file is unchanged. Any thread may ask: it looks at a copy."""
        return min((waiting.since_s for waiting in list(self._files.values())), default=None)

    def changed_after(self, moment_s: float) -> list[str]:
        """Files that were seen to change after a moment."""
        return [path for path, waiting in self._files.items() if waiting.since_s > moment_s]

    def incomplete(self) -> list[str]:
        """Pictures whose end is missing."""
        return [path for path, waiting in self._files.items() if waiting.incomplete]
