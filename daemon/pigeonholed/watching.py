"""One inbox, watched: which of its files are complete now.

The folder is the queue and rescanning is the truth. Hints of events only say where to look first; they may be lost,
late, repeated or wrong without any effect but on the wait.
"""

from __future__ import annotations

import contextlib
import errno
import heapq
import math
import os
import stat
import time
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from pigeonholed.companions import Company, is_companion
from pigeonholed.hints import Hints
from pigeonholed.images import ImageFile, mtime_ns_of
from pigeonholed.metrics import Ineligible
from pigeonholed.peeking import peek
from pigeonholed.settling import Marks, Signature, Window

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from pigeonholed.ignoring import NameFilter

_WRITERS_PAUSE_AT_MOST_S = 2.0  # beyond settle_s; who rests for longer is not asked after: a backlog is older than that
_WRITER_PAUSE_S = 0.5
_CLOCKS_DIFFER_S = 1.0  # by more: the file system's clock is not known
_LEFT = {
    errno.EACCES: Ineligible.PERMISSION,
    errno.EPERM: Ineligible.PERMISSION,
    errno.ENAMETOOLONG: Ineligible.TOO_DEEP,
}


@dataclass(frozen=True, slots=True)
class Rules:
    """How an inbox is watched; times in seconds, `sidecars` in small letters."""

    name: str
    root: str
    settle_s: float
    incomplete_s: float
    rescan_s: float
    recursive: bool
    sidecars: tuple[str, ...] = ()


class Watch:
    """Finds the complete files of one inbox, a bounded number at a time, in bounded memory.

    Args:
        rules: what counts as complete.
        names: which names to pass over.
        fs_time_ns: touches something on the inbox's file system and returns the time that it got there.
        passes_over: whether a file (path, size, mtime_ns) is to be left alone for now.
        stopwatch: seconds, to measure what a scan costs.
        on_complete: told of each file that is complete, how many seconds ago it last changed.
        beat: called at each folder and file: a scan may take long, and is no standstill.

    Owned by the claiming thread, but for `hints`.
    """

    _DUTY = 20  # a scan that took a second is followed by at least 20 s of other work

    def __init__(
        self,
        rules: Rules,
        names: NameFilter,
        fs_time_ns: Callable[[], int],
        stopwatch: Callable[[], float] = time.perf_counter,
        passes_over: Callable[[str, int, int], bool] = lambda _path, _size, _mtime_ns: False,
        on_complete: Callable[[float], None] = lambda _age_s: None,
        beat: Callable[[], None] = lambda: None,
    ) -> None:
        self.rules = rules
        self.hints = Hints()
        self.window = Window()
        self.marks = Marks(rules.settle_s)
        self.available = True
        self.silent: tuple[str, ...] = ()  # folders of which no event comes; other threads put another in its place
        self.ineligible: dict[Ineligible, int] = dict.fromkeys(Ineligible, 0)
        self.scans = 0
        self.recovered = 0
        self._announced = True
        self._names = names
        self._company = Company(rules.name, rules.root, rules.sidecars, self.marks, self._is_open, names)
        self._fs_time_ns = fs_time_ns
        self._passes_over = passes_over
        self._on_complete = on_complete
        self._beat = beat
        self._stopwatch = stopwatch
        self._due: list[tuple[float, str]] = []
        self._alarms: dict[str, float] = {}  # the one moment in `_due` that counts for a path
        self._ahead: deque[str] = deque()
        self._scan: Iterator[str] | None = None
        self._scan_again = False
        self._counting = dict.fromkeys(Ineligible, 0)
        self._scan_cost_s = 0.0
        self._scan_at_s = 0.0

    def take(self, now_s: float, limit: int) -> list[ImageFile]:
        """Up to `limit` files that are complete now; fewer than `limit` means that there are no more for now.

        The caller claims what it gets before it calls again, or leaves it to be found again.
        """
        if self.marks.due(now_s):
            self.marks.add(now_s, self._fs_time_ns())
        found: dict[str, ImageFile] = {}
        started_s = self._stopwatch()
        for path in self._candidates(now_s):
            self._beat()
            if path not in found and (file := self._look(path, now_s)) is not None:
                found[path] = file
                if len(found) >= limit:
                    break
        self._scan_cost_s += self._stopwatch() - started_s
        return list(found.values())

    def rescan(self) -> None:
        """Begin a scan at the next opportunity; one that is under way is followed by another."""
        self._scan_at_s = 0.0
        self._scan_again = self._scan is not None

    def scanning(self) -> bool:
        """Whether a scan is under way."""
        return self._scan is not None

    def next_look_s(self) -> float:
        """The moment at which `take` has something to do, if no hint comes before."""
        if self._scan is not None or self._ahead:
            return 0.0
        return min(self._scan_at_s, self._due[0][0]) if self._due else self._scan_at_s

    def _candidates(self, now_s: float) -> Iterator[str]:
        """Paths to look at: hinted, due, then those of the scan that is under way or due."""
        hinted, lost = self.hints.take()
        if lost:
            self.rescan()
        self._ahead.extend(hinted)
        while self._due and self._due[0][0] <= now_s:
            at_s, path = heapq.heappop(self._due)
            if self._alarms.get(path) == at_s:
                del self._alarms[path]
                self._ahead.append(path)
        self._announced = True
        while self._ahead:
            path = self._ahead.popleft()
            if not self._passed_over(path):
                yield path
        if self._scan is None and now_s >= self._scan_at_s:
            self._counting = dict.fromkeys(Ineligible, 0)
            self._scan = self._walk()
        # Not `yield from`: closing this generator, as `take` does when it has enough, must not close the scan.
        # What the first scan finds is the backlog; what a later one finds had to be announced by an event.
        self._announced = self.scans == 0
        while self._scan is not None:
            if (ahead := next(self._scan, None)) is None:
                self._end_scan(now_s)
            else:
                yield ahead

    def _end_scan(self, now_s: float) -> None:
        self._scan = None
        self.scans += 1
        self.ineligible = self._counting
        pause_s = self.rules.rescan_s
        if self.window.full():
            pause_s = min(pause_s, max(self.rules.settle_s, 0.05))
        self._scan_at_s = now_s if self._scan_again else now_s + max(pause_s, self._DUTY * self._scan_cost_s)
        self._scan_again = False
        self._scan_cost_s = 0.0

    def _passed_over(self, path: str) -> bool:
        """Whether a hinted path is one that a scan would not come by."""
        folders = path.split("/")[:-1]
        if (folders and not self.rules.recursive) or is_companion(path, self.rules.sidecars):
            return True
        return self._names.ignores(path) or any(self._names.prunes(folder) for folder in folders)

    def _walk(self) -> Iterator[str]:
        """Every file of the inbox as a path relative to it, streaming: no listing is ever held whole."""
        folders = [""]
        while folders:
            folder = folders.pop()
            self._beat()
            try:
                entries = os.scandir(os.path.join(self.rules.root, folder))
            except OSError as error:
                self._count_left(error)
                if folder == "":
                    self.available = False
                continue
            if folder == "":
                self.available = True
            with entries, contextlib.suppress(OSError):  # a listing that breaks off: the next scan sees the rest
                for entry in entries:
                    path = f"{folder}/{entry.name}" if folder else entry.name
                    if entry.is_dir(follow_symlinks=False):
                        if self.rules.recursive and not self._names.prunes(entry.name):
                            folders.append(path)
                    elif is_companion(path, self.rules.sidecars):
                        self._counting[Ineligible.SIDECAR] += 1
                    elif self._names.ignores(path):
                        self._counting[Ineligible.EXCLUDED] += 1
                    else:
                        yield path

    def _look(self, path: str, now_s: float) -> ImageFile | None:
        """The file, if it is complete now."""
        full_path = os.path.join(self.rules.root, path)
        try:
            status = os.lstat(full_path)
        except OSError as error:
            self._count_left(error)
            self.window.forget(path)
            self._company.forget(path)
            return None
        if not stat.S_ISREG(status.st_mode):
            self.window.forget(path)
            if not stat.S_ISDIR(status.st_mode):
                self._counting[Ineligible.NOT_REGULAR] += 1
            return None
        if self._passes_over(path, status.st_size, mtime_ns_of(status)):
            self.window.forget(path)
            return None
        signature = Signature.of(status)
        if self.rules.settle_s > 0 and not self.marks.settled(signature.ctime_ns, now_s):
            unchanged_s = self.window.unchanged_s(path, signature, now_s, announced=self._announced)
            if unchanged_s < self.rules.settle_s:
                self._look_again(path, now_s + self.rules.settle_s - unchanged_s)
                return None
        whole = self._whole(path, full_path, signature, now_s)
        companions = self._companions(path, signature, now_s) if whole else None
        if companions is None:
            return None
        announced = self.window.was_announced(path)
        announced = self._announced if announced is None else announced
        self.recovered += not (announced or path.startswith(self.silent))
        self.window.forget(path)
        if (age_s := self.marks.age_s(signature.ctime_ns, now_s)) > -_CLOCKS_DIFFER_S:
            self._on_complete(max(0.0, age_s))
        return ImageFile(self.rules.name, path, signature.size, signature.mtime_ns, companions)

    def _companions(self, path: str, signature: Signature, now_s: float) -> tuple[ImageFile, ...] | None:
        """What is to travel with a complete picture; None while some of that still changes and may be waited for."""
        found, wait_s = self._company.beside(path, now_s)
        if wait_s > 0:
            waited_s = self.window.unchanged_s(path, signature, now_s, announced=self._announced)
            if waited_s < self.rules.settle_s + self.rules.incomplete_s:
                self._look_again(path, now_s + wait_s)
                return None
        self._company.forget(path)
        return found

    def _is_open(self, path: str, signature: Signature, now_s: float) -> bool:
        """Whether somebody is known to write to a file that was changed lately."""
        lately = self.marks.age_s(signature.ctime_ns, now_s) < self.rules.settle_s + _WRITERS_PAUSE_AT_MOST_S
        return peek(path, signature.size, ask_for_writers=lately)[1]

    def _whole(self, path: str, full_path: str, signature: Signature, now_s: float) -> bool:
        """Whether the file can be read, its end is there and nobody writes; or it has been waited for long enough."""
        try:
            lately = self.marks.age_s(signature.ctime_ns, now_s) < self.rules.settle_s + _WRITERS_PAUSE_AT_MOST_S
            missing, written_to = peek(full_path, signature.size, ask_for_writers=lately)
        except OSError as error:
            if error.errno == errno.EIO:
                return True  # the decoder has retries, and the word for it
            self._count_left(error)
            self.window.forget(path)  # unreadable, gone, or we are out of descriptors: the next scan says which
            return False
        if not written_to and not missing:
            return True
        unchanged_s = self.window.unchanged_s(path, signature, now_s, announced=self._announced)
        waited_s = max(unchanged_s, self.marks.age_s(signature.ctime_ns, now_s))
        if waited_s >= self.rules.incomplete_s:
            return True
        self.window.mark_incomplete(path)
        pause_s = self.rules.incomplete_s - waited_s
        self._look_again(path, now_s + (min(pause_s, _WRITER_PAUSE_S) if written_to else pause_s))
        return False

    def _count_left(self, error: OSError) -> None:
        if (reason := _LEFT.get(error.errno or 0)) is not None:
            self._counting[reason] += 1

    def _look_again(self, path: str, at_s: float) -> None:
        if path in self.window and at_s < self._alarms.get(path, math.inf):
            self._alarms[path] = at_s
            heapq.heappush(self._due, (at_s, path))
