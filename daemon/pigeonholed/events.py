"""File events as hints: watchdog tells which paths to look at first. Correctness never rests on them."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import structlog
from watchdog.events import (
    DirCreatedEvent,
    DirMovedEvent,
    FileClosedEvent,
    FileCreatedEvent,
    FileSystemEventHandler,
)

from pigeonholed.filesystems import Mount, gives_events, mounts_below
from pigeonholed.hold_folder import HOLD
from pigeonholed.inotify_limits import limit_of
from pigeonholed.kernel_events import Observer
from pigeonholed.paths import to_text

if TYPE_CHECKING:
    from collections.abc import Callable

    from watchdog.events import FileSystemEvent

    from pigeonholed.hints import Hints
    from pigeonholed.inotify_limits import Limit

log = structlog.get_logger()


class _Handler(FileSystemEventHandler):  # type: ignore[misc]
    def __init__(self, root: str, hints: Hints, wake: Callable[[], None]) -> None:
        self._prefix = os.path.join(root, "")
        self._hold = os.path.join(root, HOLD)
        self._hints = hints
        self._wake = wake

    def dispatch(self, event: FileSystemEvent) -> None:
        """Turn an event into a hint; anything about a folder means that something may be anywhere below it."""
        path = os.fsdecode(event.src_path)
        if path.startswith(self._hold):
            return  # our own doing
        if isinstance(event, FileCreatedEvent | FileClosedEvent):
            if path.startswith(self._prefix):
                self._hints.add(path[len(self._prefix) :])
        elif isinstance(event, DirCreatedEvent | DirMovedEvent):
            self._hints.overflow()
        else:
            return
        self._wake()


@dataclass(slots=True)
class _Inbox:
    """An inbox that is to be watched; `folder` and `mounts` are what was there when that was last tried."""

    root: str
    hints: Hints
    recursive: bool
    even_remote: bool
    folder: tuple[int, int] | None = None
    mounts: tuple[Mount, ...] = ()
    watched: bool = False


class Events:
    """Watches inboxes; each that cannot be watched is left to rescanning, and the log says why.

    Args:
        wake: called after a hint, from watchdog's thread.
        on_overflow: called when the kernel has dropped events, from watchdog's thread.
        clock: monotonic seconds.
        on_limit: told what to do, once, where a limit of the kernel leaves something to rescans; from any thread.
    """

    _PAUSE_S = 5.0
    _CALM_S = 1.0
    _LIMITED_S = 300.0

    def __init__(
        self,
        wake: Callable[[], None],
        on_overflow: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        on_limit: Callable[[str], None] = lambda _told: None,
    ) -> None:
        self._wake = wake
        self._on_overflow = on_overflow
        self._on_limit = on_limit
        self._clock = clock
        self._inboxes: list[_Inbox] = []
        self._anew_at_s = 0.0
        self._overflows = 0
        self._seen_overflows = 0
        self._calm_at_s: float | None = None
        self._limit: Limit | None = None  # what was met since the last beginning, ...
        self._limit_value: int | None = None  # ... how high it was then, ...
        self._limit_told: Limit | None = None  # ... and of what the log speaks already
        self._limit_at_s = 0.0
        self._observer = self._started()

    def watch(self, root: str, hints: Hints, *, recursive: bool, even_remote: bool = True) -> bool:
        """Begin to give hints for an inbox; false when it cannot be watched.

        Args:
            root: the inbox; one that is missing is watched from the first `tend` on that finds it.
            hints: where they go.
            recursive: whether sub-folders are watched, too.
            even_remote: whether it is watched on a file system that tells nothing of what others do.
        """
        inbox = _Inbox(root, hints, recursive, even_remote)
        self._inboxes.append(inbox)
        return self._begin(inbox)

    def watches(self, root: str) -> bool:
        """Whether there should be hints for every folder of an inbox, but for those on mounts that give none."""
        return self._limit is None and any(inbox.root == root and inbox.watched for inbox in self._inboxes)

    def silent(self, root: str) -> tuple[str, ...]:
        """The folders of an inbox, each with its slash, of which there are never hints: what is mounted there."""
        return tuple(
            mount.below + "/"
            for inbox in self._inboxes
            if inbox.root == root and not inbox.even_remote
            for mount in inbox.mounts
            if not mount.gives_events
        )

    def tend(self) -> bool:
        """Begin anew, with fresh threads, where something may not be watched.

        That is so if a thread has died, another folder is now where an inbox was, something was mounted in it, a limit
        was raised, or the kernel has dropped events, by which folders are told that come; then it waits until it is
        calm again.

        Returns:
            Whether that was so. Every inbox that is watched is then scanned: nobody knows what was missed.
        """
        calm_again = self._is_calm_again()
        lost = not self.alive() or calm_again or (not self.unsettled and any(map(_is_another_now, self._inboxes)))
        if not (lost or self._may_do_more()) or self._clock() < self._anew_at_s:
            return False
        if calm_again:
            log.warning("events_dropped", times=self._overflows, instead="a scan")
        self._anew_at_s, self._calm_at_s = self._clock() + self._PAUSE_S, None
        self.close()
        self._observer = self._started()
        for inbox in self._inboxes:
            if self._begin(inbox):
                inbox.hints.overflow()
        if self._limit is None:
            self._limit_told = None
        return lost or self._limit is None

    @property
    def unsettled(self) -> bool:
        """Whether events were dropped, and what came then may not be watched yet."""
        return self._overflows != self._seen_overflows or self._calm_at_s is not None

    def alive(self) -> bool:
        """Whether hints can still come: watchdog's threads end silently when something fails in them.

        Where there are none because of a limit, nothing has died.
        """
        observer = self._observer
        if observer is None:
            return self._limit is not None
        return observer.is_alive() and observer.reads() and all(emitter.is_alive() for emitter in observer.emitters)

    def close(self) -> None:
        """End the threads."""
        if self._observer is None:
            return
        try:
            self._observer.stop()
        except (KeyError, OSError) as error:
            # watchdog 7 loses count of folders whose names change quickly, and then never tells its threads to end;
            # they are daemons that hold nothing but their watches.
            log.info("watch_ended_untidily", error=repr(error))
            return
        self._observer.join()

    def _started(self) -> Observer | None:
        """New threads; None where the kernel grants none."""
        self._limit = None
        try:
            observer = Observer(self._overflow, self._meet)
        except OSError as error:
            if (limit := limit_of(error)) is None:
                raise
            self._meet(limit)
            return None
        observer.start()
        return observer

    def _meet(self, limit: Limit) -> None:
        """A limit of the kernel leaves something to rescans."""
        if self._limit is None:
            self._limit_at_s = self._clock() + self._LIMITED_S
            self._limit, self._limit_value = limit, limit.value_now()
        if self._limit_told is not limit:
            self._limit_told = limit
            log.warning("watch_limited", remedy=limit.told(), instead="rescans")
            self._on_limit(limit.told())

    def _may_do_more(self) -> bool:
        """Whether the limit that was met may be gone."""
        limit = self._limit
        return limit is not None and (limit.value_now() != self._limit_value or self._clock() >= self._limit_at_s)

    def _overflow(self) -> None:
        self._overflows += 1
        self._on_overflow()
        for inbox in self._inboxes:
            inbox.hints.overflow()
        self._wake()

    def _is_calm_again(self) -> bool:
        """Whether events were dropped, and none for a while since."""
        if self._overflows != self._seen_overflows:
            self._seen_overflows = self._overflows
            self._calm_at_s = self._clock() + self._CALM_S
        return self._calm_at_s is not None and self._clock() >= self._calm_at_s

    def _begin(self, inbox: _Inbox) -> bool:
        """Watch an inbox, if it is there and its file system tells anything."""
        inbox.folder, inbox.mounts, inbox.watched = None, (), False
        try:
            inbox.folder, inbox.mounts = _identity(inbox.root), mounts_below(inbox.root)
            if self._observer is None:
                return False
            if inbox.even_remote or gives_events(inbox.root):
                handler = _Handler(inbox.root, inbox.hints, self._wake)
                self._observer.schedule(handler, inbox.root, recursive=inbox.recursive)
                inbox.watched = True
        except (OSError, RecursionError) as error:  # watchdog goes down a tree by calling itself, on Python 3.11
            why = (isinstance(error, OSError) and error.strerror) or str(error)
            log.warning("watch_refused", folder=to_text(inbox.root), error=why, instead="rescans")
        return inbox.watched


def _identity(root: str) -> tuple[int, int]:
    status = os.stat(root)
    return status.st_dev, status.st_ino


def _is_another_now(inbox: _Inbox) -> bool:
    """Whether another folder than before, or one that was missing, is there; or another mount in it."""
    try:
        return _identity(inbox.root) != inbox.folder or mounts_below(inbox.root) != inbox.mounts
    except OSError:
        return False  # it is missing: its return will be noticed
